// Links, addresses, routes and rules by rtnetlink. Each request waits for the kernel's answer; one that fails says so on the
// console, but for what is there (or gone) already.
#include "tools.h"
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fib_rules.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

struct request {
    struct nlmsghdr header;
    char body[512];
};

static int size_of(int family) { return family == AF_INET6 ? 16 : 4; }

int link_open(unsigned groups) {
    int s = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    struct sockaddr_nl us = {.nl_family = AF_NETLINK, .nl_groups = groups};
    if (s < 0 || bind(s, (struct sockaddr *)&us, sizeof us) < 0)
        die("no netlink socket: %s", strerror(errno));
    return s;
}

static void *begin(struct request *request, int type, int flags, size_t body) {
    memset(request, 0, sizeof *request);
    request->header.nlmsg_len = NLMSG_LENGTH(body);
    request->header.nlmsg_type = type;
    request->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK | flags;
    return NLMSG_DATA(&request->header);
}

static void attribute(struct request *request, int type, const void *data, size_t length) {
    struct rtattr *a = (void *)((char *)request + NLMSG_ALIGN(request->header.nlmsg_len));
    a->rta_type = type;
    a->rta_len = RTA_LENGTH(length);
    memcpy(RTA_DATA(a), data, length);
    request->header.nlmsg_len = NLMSG_ALIGN(request->header.nlmsg_len) + RTA_ALIGN(a->rta_len);
}

static void ask(struct request *request, const char *what) {
    int s = link_open(0);
    char answer[4096];
    if (send(s, request, request->header.nlmsg_len, 0) >= 0) {
        ssize_t got = recv(s, answer, sizeof answer, 0);
        struct nlmsghdr *header = (void *)answer;
        if (got > 0 && header->nlmsg_type == NLMSG_ERROR) {
            int error = -((struct nlmsgerr *)NLMSG_DATA(header))->error;
            if (error && error != EEXIST && error != ESRCH && error != ENOENT && error != EADDRNOTAVAIL && error != ENODEV)
                say("%s: %s", what, strerror(error));
        }
    }
    close(s);
}

static void interface_ioctl(const char *nic, unsigned long request, struct ifreq *ifr) {
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    snprintf(ifr->ifr_name, sizeof ifr->ifr_name, "%s", nic);
    if (ioctl(s, request, ifr) < 0 && errno != ENODEV)
        say("%s: %s", nic, strerror(errno));
    close(s);
}

void link_up(const char *nic) {
    struct ifreq ifr = {0};
    interface_ioctl(nic, SIOCGIFFLAGS, &ifr);
    ifr.ifr_flags |= IFF_UP;
    interface_ioctl(nic, SIOCSIFFLAGS, &ifr);
}

void link_mtu(const char *nic, int mtu) {
    struct ifreq ifr = {.ifr_mtu = mtu};
    interface_ioctl(nic, SIOCSIFMTU, &ifr);
}

bool link_mac(const char *nic, uint8_t mac[6]) {
    struct ifreq ifr = {0};
    interface_ioctl(nic, SIOCGIFHWADDR, &ifr);
    memcpy(mac, ifr.ifr_hwaddr.sa_data, 6);
    return ifr.ifr_hwaddr.sa_family == 1;
}

bool link_sysctl(const char *nic, const char *key, const char *value) {
    char path[160];
    snprintf(path, sizeof path, "/proc/sys/net/ipv6/conf/%s/%s", nic, key);
    int file = open(path, O_WRONLY | O_CLOEXEC);
    if (file < 0)
        return false;
    bool written = write(file, value, strlen(value)) > 0;
    close(file);
    return written;
}

void address_set(int index, int family, const void *address, int prefix, uint32_t preferred_secs, uint32_t valid_secs) {
    struct request request;
    struct ifaddrmsg *body = begin(&request, RTM_NEWADDR, NLM_F_CREATE | NLM_F_REPLACE, sizeof *body);
    struct ifa_cacheinfo times = {.ifa_prefered = preferred_secs, .ifa_valid = valid_secs};
    uint32_t flags = family == AF_INET6 ? IFA_F_NODAD | IFA_F_NOPREFIXROUTE : 0;
    *body = (struct ifaddrmsg){.ifa_family = family, .ifa_prefixlen = prefix, .ifa_index = index};
    attribute(&request, IFA_LOCAL, address, size_of(family));
    attribute(&request, IFA_ADDRESS, address, size_of(family));
    attribute(&request, IFA_FLAGS, &flags, sizeof flags);
    if (valid_secs)
        attribute(&request, IFA_CACHEINFO, &times, sizeof times);
    ask(&request, "address");
}

void address_drop(int index, int family, const void *address, int prefix) {
    struct request request;
    struct ifaddrmsg *body = begin(&request, RTM_DELADDR, 0, sizeof *body);
    *body = (struct ifaddrmsg){.ifa_family = family, .ifa_prefixlen = prefix, .ifa_index = index};
    attribute(&request, IFA_LOCAL, address, size_of(family));
    ask(&request, "address");
}

// Walks a dump; for each message `each` may make a request of its own to send after.
static void dump(struct request *request, void (*each)(struct nlmsghdr *, void *), void *context) {
    int s = link_open(0);
    static char answer[32768];
    request->header.nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP;
    bool more = send(s, request, request->header.nlmsg_len, 0) >= 0;
    while (more) {
        ssize_t got = recv(s, answer, sizeof answer, 0);
        if (got <= 0)
            break;
        for (struct nlmsghdr *h = (void *)answer; NLMSG_OK(h, got); h = NLMSG_NEXT(h, got)) {
            if (h->nlmsg_type == NLMSG_DONE || h->nlmsg_type == NLMSG_ERROR) {
                more = false;
                break;
            }
            each(h, context);
        }
    }
    close(s);
}

static void drop_address(struct nlmsghdr *h, void *context) {
    struct ifaddrmsg *body = NLMSG_DATA(h);
    if ((int)body->ifa_index != *(int *)context)
        return;
    int left = IFA_PAYLOAD(h);
    for (struct rtattr *a = IFA_RTA(body); RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == IFA_LOCAL)
            address_drop(body->ifa_index, body->ifa_family, RTA_DATA(a), body->ifa_prefixlen);
}

void addresses_drop_v4(int index) {
    struct request request;
    struct ifaddrmsg *body = begin(&request, RTM_GETADDR, 0, sizeof *body);
    body->ifa_family = AF_INET;
    dump(&request, drop_address, &index);
}

void route_set(int index, int family, const void *to, int prefix, const void *gateway, uint32_t metric, uint32_t table) {
    struct request request;
    struct rtmsg *body = begin(&request, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof *body);
    uint32_t link = index, in = table ? table : RT_TABLE_MAIN;
    *body = (struct rtmsg){.rtm_family = family, .rtm_dst_len = prefix, .rtm_table = RT_TABLE_UNSPEC, .rtm_protocol = RTPROT_DHCP,
                           .rtm_scope = gateway || family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK, .rtm_type = RTN_UNICAST};
    if (prefix)
        attribute(&request, RTA_DST, to, size_of(family));
    if (gateway)
        attribute(&request, RTA_GATEWAY, gateway, size_of(family));
    attribute(&request, RTA_OIF, &link, sizeof link);
    attribute(&request, RTA_PRIORITY, &metric, sizeof metric);
    attribute(&request, RTA_TABLE, &in, sizeof in);
    ask(&request, "route");
}

struct routes {
    int index, family;
    uint32_t table;
};

static void drop_route(struct nlmsghdr *h, void *context) {
    struct routes *which = context;
    struct rtmsg *body = NLMSG_DATA(h);
    uint32_t table = body->rtm_table, link = 0;
    int left = RTM_PAYLOAD(h);
    for (struct rtattr *a = RTM_RTA(body); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == RTA_TABLE)
            memcpy(&table, RTA_DATA(a), 4);
        if (a->rta_type == RTA_OIF)
            memcpy(&link, RTA_DATA(a), 4);
    }
    if (body->rtm_protocol != RTPROT_DHCP || (int)link != which->index || table != which->table)
        return;
    struct request request;
    size_t length = h->nlmsg_len < sizeof request ? h->nlmsg_len : sizeof request;
    memcpy(&request, h, length);
    request.header.nlmsg_type = RTM_DELROUTE;
    request.header.nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK;
    ask(&request, "route");
}

void routes_drop(int index, int family, uint32_t table) {
    struct request request;
    struct routes which = {index, family, table ? table : RT_TABLE_MAIN};
    struct rtmsg *body = begin(&request, RTM_GETROUTE, 0, sizeof *body);
    body->rtm_family = family;
    dump(&request, drop_route, &which);
}

void rule_set(bool there, int family, const void *from, int prefix, uint32_t table) {
    struct request request;
    struct fib_rule_hdr *body = begin(&request, there ? RTM_NEWRULE : RTM_DELRULE, there ? NLM_F_CREATE | NLM_F_EXCL : 0, sizeof *body);
    uint32_t priority = 1000;
    *body = (struct fib_rule_hdr){.family = family, .src_len = prefix, .action = FR_ACT_TO_TBL};
    attribute(&request, FRA_SRC, from, size_of(family));
    attribute(&request, FRA_TABLE, &table, sizeof table);
    attribute(&request, FRA_PRIORITY, &priority, sizeof priority);
    ask(&request, "rule");
}
