// Sends frames that an honest guest would not, so that tests can see them dropped: any sender's address, hardware address,
// and answers that only the network may give.
#include "tools.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <linux/if_packet.h>
#include <unistd.h>

static const char USAGE[] =
    "usage: forge KIND NIC [--OPTION VALUE]...   sends a frame, and says what it sent\n"
    "  arp              --from IP --to IP [--op request|reply] [--sender-mac MAC]\n"
    "  udp, tcp, ping   --from IP --to IP [--from-port N] [--to-port N] [--text TEXT]   tcp is a SYN; IPv4 or IPv6\n"
    "  dhcp-offer       --from IP --your IP --client MAC [--type N]   an answer of a DHCP server (type 2 an offer, 5 an ack)\n"
    "  dhcp6-advertise  --from IP [--to IP]                  an answer of a DHCPv6 server\n"
    "  ra               --from IP [--prefix IP]              a router advertisement\n"
    "  na               --from IP --target IP                an unsolicited neighbour advertisement\n"
    "  raw              --hex BYTES                          the whole frame\n"
    "for all: --from-mac MAC (the NIC's), --to-mac MAC (the IPv4 gateway's, else broadcast), --count N\n";

static uint8_t frame[1514], *end;
static const char *from = "", *to = "", *your = "", *target = "", *prefix = "", *op = "request", *text = "forged", *hex = "";
static uint8_t from_mac[6], to_mac[6], sender_mac[6], client_mac[6];
static unsigned from_port = 1024, to_port = 9, type = 2, count = 1;
static bool to_mac_given, sender_mac_given;

static void mac(const char *value, uint8_t into[6]) {
    if (sscanf(value, "%hhx:%hhx:%hhx:%hhx:%hhx:%hhx", into, into + 1, into + 2, into + 3, into + 4, into + 5) != 6)
        die("forge: %s is no hardware address", value);
}

static void put(const void *data, size_t length) {
    if (length > (size_t)(frame + sizeof frame - end))
        die("forge: the frame is longer than %zu bytes", sizeof frame);
    memcpy(end, data, length);
    end += length;
}
static void put8(unsigned v) { put((uint8_t[]){v}, 1); }
static void put16(unsigned v) { put((uint8_t[]){v >> 8, v}, 2); }
static void put32(uint32_t v) { put16(v >> 16), put16(v & 0xffff); }
static void put_zeros(size_t n) {
    while (n--)
        put8(0);
}

static void ipv4(const char *address) {
    struct in_addr a;
    if (!inet_aton(address, &a))
        die("forge: '%s' is no IPv4 address", address);
    put(&a, 4);
}

static void ipv6(const char *address) {
    struct in6_addr a;
    if (inet_pton(AF_INET6, address, &a) != 1)
        die("forge: '%s' is no IPv6 address", address);
    put(&a, 16);
}

static uint32_t sum(uint32_t s, const uint8_t *data, size_t length) {
    for (size_t i = 0; i < length; i++)
        s += i & 1 ? data[i] : data[i] << 8;
    return s;
}

static void store_sum(uint8_t *at, uint32_t s) {
    while (s >> 16)
        s = (s & 0xffff) + (s >> 16);
    s = ~s & 0xffff;
    at[0] = s >> 8, at[1] = s;
}

// The IP header now, its lengths and sums when the payload is there.
static uint8_t *ip_at;
static unsigned ip_protocol;

static bool v6(void) { return strchr(from, ':') != NULL; }

static void ethernet(unsigned protocol) { put(to_mac, 6), put(from_mac, 6), put16(protocol); }

static void ip_begin(unsigned protocol, unsigned hops) {
    ethernet(v6() ? 0x86dd : 0x0800);
    ip_at = end;
    ip_protocol = protocol;
    if (v6()) {
        put32(0x60000000), put16(0), put8(protocol), put8(hops);
        ipv6(from), ipv6(to);
    } else {
        put16(0x4500), put16(0), put32(0x12340000), put8(hops), put8(protocol), put16(0);
        ipv4(from), ipv4(to);
    }
}

// sum_at: where the payload's own sum goes, from its start.
static void ip_end(size_t sum_at) {
    uint8_t *payload = ip_at + (v6() ? 40 : 20);
    size_t length = end - payload;
    uint32_t pseudo = 0;
    if (v6()) {
        ip_at[4] = length >> 8, ip_at[5] = length;
        pseudo = sum(0, ip_at + 8, 32) + length + ip_protocol;
    } else {
        ip_at[2] = (length + 20) >> 8, ip_at[3] = length + 20;
        store_sum(ip_at + 10, sum(0, ip_at, 20));
        if (ip_protocol != IPPROTO_ICMP)
            pseudo = sum(0, ip_at + 12, 8) + length + ip_protocol;
    }
    store_sum(payload + sum_at, sum(pseudo, payload, length));
}

static void arp(void) {
    unsigned reply = !strcmp(op, "reply");
    ethernet(0x0806);
    put16(1), put16(0x0800), put8(6), put8(4), put16(reply ? 2 : 1);
    put(sender_mac_given ? sender_mac : from_mac, 6), ipv4(from);
    put(reply ? to_mac : (uint8_t[6]){0}, 6), ipv4(to);
}

static void udp_begin(unsigned sport, unsigned dport) {
    ip_begin(IPPROTO_UDP, 64);
    put16(sport), put16(dport), put32(0);
}

static void udp_end(void) {
    uint8_t *payload = ip_at + (v6() ? 40 : 20);
    size_t length = end - payload;
    payload[4] = length >> 8, payload[5] = length;
    ip_end(6);
}

static void udp(void) { udp_begin(from_port, to_port), put(text, strlen(text)), udp_end(); }

static void tcp(void) {
    ip_begin(IPPROTO_TCP, 64);
    put16(from_port), put16(to_port), put32(0x01020304), put32(0), put16(0x5002), put16(0xffff), put32(0);
    ip_end(16);
}

static void ping(void) {
    ip_begin(v6() ? IPPROTO_ICMPV6 : IPPROTO_ICMP, 64);
    put8(v6() ? 128 : 8), put8(0), put16(0), put16(0x6666), put16(1), put(text, strlen(text));
    ip_end(2);
}

static void dhcp_offer(void) {
    to = "255.255.255.255";
    udp_begin(67, 68);
    put8(2), put8(1), put8(6), put8(0), put32(0x66666666), put32(0), ipv4("0.0.0.0"), ipv4(your), ipv4(from), put32(0);
    put(client_mac, 6), put_zeros(10 + 64 + 128), put32(0x63825363);
    put8(53), put8(1), put8(type), put8(54), put8(4), ipv4(from), put8(51), put8(4), put32(3600);
    put8(1), put8(4), ipv4("255.255.255.0"), put8(3), put8(4), ipv4(from), put8(255);
    udp_end();
}

static void dhcp6_advertise(void) {
    if (!*to)
        to = "ff02::1";
    udp_begin(547, 546);
    put8(2), put8(0x66), put16(0x6666), put16(2), put16(10), put16(3), put16(1), put(from_mac, 6);
    udp_end();
}

static void ra(void) {
    to = *to ? to : "ff02::1";
    ip_begin(IPPROTO_ICMPV6, 255);
    put8(134), put8(0), put16(0), put8(64), put8(0), put16(1800), put32(0), put32(0);
    put8(1), put8(1), put(from_mac, 6);
    if (*prefix)
        put8(3), put8(4), put8(64), put8(0xc0), put32(3600), put32(1800), put32(0), ipv6(prefix);
    ip_end(2);
}

static void na(void) {
    to = *to ? to : "ff02::1";
    ip_begin(IPPROTO_ICMPV6, 255);
    put8(136), put8(0), put16(0), put32(0xa0000000), ipv6(target), put8(2), put8(1), put(from_mac, 6);
    ip_end(2);
}

static void raw(void) {
    unsigned byte;
    for (int used; sscanf(hex, "%2x%n", &byte, &used) == 1; hex += used)
        put8(byte);
    if (*hex)
        die("forge: --hex is not hexadecimal at '%s'", hex);
}

static const struct {
    const char *name;
    void (*build)(void);
    bool to_all; // sent to everybody if no --to-mac says otherwise
} KINDS[] = {
    {"arp", arp, true},      {"udp", udp, false},       {"tcp", tcp, false}, {"ping", ping, false}, {"dhcp-offer", dhcp_offer, true},
    {"dhcp6-advertise", dhcp6_advertise, true}, {"ra", ra, true}, {"na", na, true}, {"raw", raw, true},
};

static unsigned number(const char *value) {
    char *rest;
    unsigned long n = strtoul(value, &rest, 10);
    if (*value < '0' || *value > '9' || *rest || n > 65535)
        die("forge: '%s' is no number up to 65535", value);
    return n;
}

static void option(const char *name, const char *value) {
    static const struct {
        const char *name;
        const char **into;
    } TEXTS[] = {{"--from", &from}, {"--to", &to}, {"--your", &your}, {"--target", &target}, {"--prefix", &prefix}, {"--op", &op}, {"--text", &text}, {"--hex", &hex}};
    static const struct {
        const char *name;
        unsigned *into;
    } NUMBERS[] = {{"--from-port", &from_port}, {"--to-port", &to_port}, {"--type", &type}, {"--count", &count}};
    for (size_t i = 0; i < sizeof TEXTS / sizeof *TEXTS; i++)
        if (!strcmp(name, TEXTS[i].name)) {
            *TEXTS[i].into = value;
            return;
        }
    for (size_t i = 0; i < sizeof NUMBERS / sizeof *NUMBERS; i++)
        if (!strcmp(name, NUMBERS[i].name)) {
            *NUMBERS[i].into = number(value);
            return;
        }
    if (!strcmp(name, "--from-mac"))
        mac(value, from_mac);
    else if (!strcmp(name, "--to-mac"))
        mac(value, to_mac), to_mac_given = true;
    else if (!strcmp(name, "--sender-mac"))
        mac(value, sender_mac), sender_mac_given = true;
    else if (!strcmp(name, "--client"))
        mac(value, client_mac);
    else
        die("forge: there is no %s; see: forge --help", name);
}

// Of the NIC's default gateway, as the kernel knows it.
static bool gateway_mac(const char *nic) {
    char line[256], name[32] = "", gateway[64] = "", text[32];
    unsigned destination, by;
    FILE *routes = fopen("/proc/net/route", "r");
    while (routes && fgets(line, sizeof line, routes))
        if (sscanf(line, "%31s %x %x", name, &destination, &by) == 3 && !strcmp(name, nic) && !destination && by) {
            struct in_addr address = {by};
            snprintf(gateway, sizeof gateway, "%s", inet_ntoa(address));
            break;
        }
    if (routes)
        fclose(routes);
    bool found = false;
    FILE *neighbours = fopen("/proc/net/arp", "r");
    while (neighbours && fgets(line, sizeof line, neighbours))
        if (*gateway && sscanf(line, "%31s %*s %*s %31s", name, text) == 2 && !strcmp(name, gateway) && strstr(line, nic)) {
            mac(text, to_mac);
            found = true;
        }
    if (neighbours)
        fclose(neighbours);
    return found;
}

int forge_main(int argc, char **argv) {
    if (argc < 3 || argc % 2 == 0) {
        fputs(USAGE, argc == 2 && !strcmp(argv[1], "--help") ? stdout : stderr);
        return argc == 2 && !strcmp(argv[1], "--help") ? 0 : 2;
    }
    const char *kind = argv[1], *nic = argv[2];
    size_t k = 0;
    while (k < sizeof KINDS / sizeof *KINDS && strcmp(KINDS[k].name, kind))
        k++;
    if (k == sizeof KINDS / sizeof *KINDS)
        die("forge: there is no '%s'; see: forge --help", kind);
    struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_ifindex = if_nametoindex(nic)};
    if (!link.sll_ifindex)
        die("forge: there is no NIC %s", nic);
    link_mac(nic, from_mac);
    for (int i = 3; i < argc; i += 2)
        option(argv[i], argv[i + 1]);
    if (!to_mac_given && (KINDS[k].to_all || !gateway_mac(nic)))
        memset(to_mac, 0xff, 6);
    end = frame;
    KINDS[k].build();
    while (end < frame + 60)
        put8(0);
    int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    for (unsigned i = 0; i < count; i++)
        if (sendto(s, frame, end - frame, 0, (struct sockaddr *)&link, sizeof link) < 0)
            die("forge: not sent: %s", strerror(errno));
    printf("forged %u %s of %td bytes by %s\n", count, kind, end - frame, nic);
    return 0;
}
