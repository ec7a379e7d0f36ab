// What udhcpc calls when a lease comes, changes or goes: makes the kernel agree with it. The values are in the environment.
//
// Each NIC has a routing table of its own (100 + its number) that packets from its address look into, so that an instance
// with two NICs answers by the NIC it was asked on: what leaves by another is dropped as forged by the network. The main
// table prefers the NIC that came first.
#include "tools.h"
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static const char *env(const char *name) {
    const char *value = getenv(name);
    return value ? value : "";
}

struct nic {
    int index;
    uint32_t table;
    struct in_addr address;
    int prefix;
};

// In both tables.
static void route(const struct nic *nic, struct in_addr to, int prefix, const struct in_addr *gateway) {
    route_set(nic->index, AF_INET, &to, prefix, gateway, nic->table, 0);
    route_set(nic->index, AF_INET, &to, prefix, gateway, nic->table, nic->table);
}

static bool on_link(const struct nic *nic, struct in_addr address) {
    uint32_t mask = nic->prefix ? htonl(~0u << (32 - nic->prefix)) : 0;
    return nic->prefix < 32 && ((address.s_addr ^ nic->address.s_addr) & mask) == 0;
}

static void route_by(const struct nic *nic, struct in_addr to, int prefix, struct in_addr gateway) {
    if (gateway.s_addr == 0) {
        route(nic, to, prefix, NULL);
        return;
    }
    if (!on_link(nic, gateway))
        route(nic, gateway, 32, NULL);
    route(nic, to, prefix, &gateway);
}

// "10.1.0.0/16 10.0.0.1 0.0.0.0/0 10.0.0.1"; where they are given, the router option doesn't count (RFC 3442).
static void static_routes(const struct nic *nic, char *text) {
    char *rest = NULL;
    for (char *to = strtok_r(text, " ", &rest); to; to = strtok_r(NULL, " ", &rest)) {
        char *by = strtok_r(NULL, " ", &rest), *slash = strchr(to, '/');
        struct in_addr destination, gateway;
        int prefix = slash ? atoi(slash + 1) : 32;
        if (slash)
            *slash = 0;
        if (by && inet_aton(to, &destination) && inet_aton(by, &gateway) && prefix >= 0 && prefix <= 32)
            route_by(nic, destination, prefix, gateway);
    }
}

static void resolvers(const char *name) {
    char text[1024], servers[512];
    const char *domain = *env("search") ? env("search") : env("domain");
    int used = snprintf(text, sizeof text, *domain ? "search %s\n" : "%s", domain);
    char *rest = NULL;
    snprintf(servers, sizeof servers, "%s", env("dns"));
    for (char *server = strtok_r(servers, " ", &rest); server && used < (int)sizeof text - 80; server = strtok_r(NULL, " ", &rest))
        used += snprintf(text + used, sizeof text - used, "nameserver %s\n", server);
    resolvers_set(name, "4", text);
}

static void forget(struct nic *nic, const char *name, const char *record) {
    char line[64] = "";
    FILE *file = fopen(record, "r");
    if (file) {
        struct in_addr old;
        if (fgets(line, sizeof line, file) && inet_aton(strtok(line, "\n"), &old))
            rule_set(false, AF_INET, &old, 32, nic->table);
        fclose(file);
        unlink(record);
    }
    addresses_drop_v4(nic->index);
    resolvers_set(name, "4", "");
}

static void hold(struct nic *nic, const char *name, const char *record) {
    if (!inet_aton(env("ip"), &nic->address))
        die("%s: a lease without an address", name);
    nic->prefix = *env("mask") ? atoi(env("mask")) : 32;
    char old[1024] = "", new[1024];
    FILE *file = fopen(record, "r");
    if (file) {
        old[fread(old, 1, sizeof old - 1, file)] = 0;
        fclose(file);
    }
    snprintf(new, sizeof new, "%s\n%s %s %s %s %s %s", env("ip"), env("mask"), env("mtu"), env("router"), env("staticroutes"),
             env("dns"), env("domain"));
    if (!strcmp(old, new))
        return; // a renewal of the same: nothing is touched
    bool moved = strcspn(old, "\n") != strcspn(new, "\n") || strncmp(old, new, strcspn(new, "\n"));
    if (moved)
        forget(nic, name, record);
    int mtu = atoi(env("mtu"));
    if (mtu >= 576)
        link_mtu(name, mtu);
    address_set(nic->index, AF_INET, &nic->address, nic->prefix, 0, 0);
    rule_set(true, AF_INET, &nic->address, 32, nic->table);
    routes_drop(nic->index, AF_INET, 0);
    routes_drop(nic->index, AF_INET, nic->table);
    if (nic->prefix < 32) {
        struct in_addr subnet = {nic->address.s_addr & (nic->prefix ? htonl(~0u << (32 - nic->prefix)) : 0)};
        route_set(nic->index, AF_INET, &subnet, nic->prefix, NULL, nic->table, nic->table);
    }
    if (*env("staticroutes")) {
        char text[1024];
        snprintf(text, sizeof text, "%s", env("staticroutes"));
        static_routes(nic, text);
    } else {
        char routers[256];
        struct in_addr any = {0}, gateway;
        snprintf(routers, sizeof routers, "%s", env("router"));
        char *first = strtok(routers, " ");
        if (first && inet_aton(first, &gateway))
            route_by(nic, any, 0, gateway);
    }
    resolvers(name);
    write_file(record, new);
    if (moved)
        tell_address("v4", name, env("ip"));
}

int lease4_main(int argc, char **argv) {
    const char *event = argc > 1 ? argv[1] : "", *name = env("interface");
    struct nic nic = {.index = if_nametoindex(name)};
    if (!nic.index)
        return 0; // unplugged meanwhile
    nic.table = 100 + nic.index;
    char record[64];
    snprintf(record, sizeof record, "/run/network/%s.lease", name);
    if (!strcmp(event, "bound") || !strcmp(event, "renew"))
        hold(&nic, name, record);
    else if (!strcmp(event, "deconfig"))
        forget(&nic, name, record);
    return 0;
}
