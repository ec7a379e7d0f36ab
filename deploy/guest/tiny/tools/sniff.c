// Prints what a NIC receives, one line per frame, for tests that must see a packet come or not come:
//
//   sniff NIC MILLISECONDS
//   02:00:00:00:00:01 > 02:00:00:00:00:02 ipv4 10.0.0.1 > 10.0.0.2 udp 1024 > 9 len 60
#include "tools.h"
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_packet.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

static unsigned get16(const uint8_t *at) { return at[0] << 8 | at[1]; }

static void print_mac(const uint8_t *m) { printf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5]); }

static void print_payload(unsigned protocol, const uint8_t *at, size_t length) {
    if ((protocol == IPPROTO_UDP || protocol == IPPROTO_TCP) && length >= 4)
        printf(" %s %u > %u", protocol == IPPROTO_UDP ? "udp" : "tcp", get16(at), get16(at + 2));
    else if ((protocol == IPPROTO_ICMP || protocol == IPPROTO_ICMPV6) && length >= 1)
        printf(" %s type %u", protocol == IPPROTO_ICMP ? "icmp" : "icmp6", at[0]);
    else
        printf(" protocol %u", protocol);
}

static void print_frame(const uint8_t *frame, size_t length) {
    char from[INET6_ADDRSTRLEN], to[INET6_ADDRSTRLEN];
    unsigned kind = get16(frame + 12);
    const uint8_t *ip = frame + 14;
    size_t left = length - 14;
    print_mac(frame + 6), printf(" > "), print_mac(frame);
    if (kind == 0x0800 && left >= 20 && left >= (size_t)(ip[0] & 15) * 4) {
        size_t header = (ip[0] & 15) * 4;
        printf(" ipv4 %s > %s", inet_ntop(AF_INET, ip + 12, from, sizeof from), inet_ntop(AF_INET, ip + 16, to, sizeof to));
        if ((get16(ip + 6) & 0x1fff) == 0)
            print_payload(ip[9], ip + header, left - header);
        else
            printf(" fragment");
    } else if (kind == 0x86dd && left >= 40) {
        printf(" ipv6 %s > %s", inet_ntop(AF_INET6, ip + 8, from, sizeof from), inet_ntop(AF_INET6, ip + 24, to, sizeof to));
        print_payload(ip[6], ip + 40, left - 40);
    } else if (kind == 0x0806 && left >= 28) {
        printf(" arp %s %s > %s by ", get16(ip + 6) == 1 ? "request" : "reply", inet_ntop(AF_INET, ip + 14, from, sizeof from),
               inet_ntop(AF_INET, ip + 24, to, sizeof to));
        print_mac(ip + 8);
    } else {
        printf(" kind %04x", kind);
    }
    printf(" len %zu\n", length);
    fflush(stdout);
}

int sniff_main(int argc, char **argv) {
    struct sockaddr_ll link = {.sll_family = AF_PACKET, .sll_protocol = htons(3 /* all */)};
    if (argc != 3 || atoi(argv[2]) <= 0)
        die("usage: sniff NIC MILLISECONDS");
    link.sll_ifindex = if_nametoindex(argv[1]);
    int s = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
    if (!link.sll_ifindex || bind(s, (struct sockaddr *)&link, sizeof link) < 0)
        die("sniff: %s: %s", argv[1], strerror(errno));
    uint64_t ends_at = now_ms() + atoi(argv[2]), now;
    static uint8_t frame[65536];
    while ((now = now_ms()) < ends_at) {
        struct pollfd wait = {.fd = s, .events = POLLIN};
        struct sockaddr_ll sender;
        socklen_t length = sizeof sender;
        if (poll(&wait, 1, (int)(ends_at - now)) <= 0)
            continue;
        ssize_t got = recvfrom(s, frame, sizeof frame, 0, (struct sockaddr *)&sender, &length);
        if (got >= 14 && sender.sll_pkttype != PACKET_OUTGOING)
            print_frame(frame, got);
    }
    return 0;
}
