// Brings every NIC up, those that are plugged in later too: DHCPv4 by udhcpc, one for each NIC, and DHCPv6 where
// the router says that addresses are managed. Routes and MTU of IPv6 are the kernel's, from the router advertisements.
//
// It waits on the kernel's own notices (rtnetlink), so there is nothing to poll: a new NIC, its carrier, a router's flags.
#include "tools.h"
#include <errno.h>
#include <fcntl.h>
#include <linux/if_arp.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#define NICS_MAX 32
#define LOWER_UP 0x10000  // IFF_LOWER_UP of linux/if.h, which cannot be had beside net/if.h
#define RA_MANAGED 0x40 // IF_RA_MANAGED of the kernel's if_inet6.h

static struct nic {
    int index; // 0: free
    char name[IFNAMSIZ];
    bool carrier;
    pid_t udhcpc;
    struct dhcp6 *dhcp6;
} nics[NICS_MAX];

static struct nic *find(int index) {
    for (int i = 0; i < NICS_MAX; i++)
        if (nics[i].index == index)
            return &nics[i];
    return NULL;
}

static void start_udhcpc(struct nic *nic) {
    nic->udhcpc = fork();
    if (nic->udhcpc == 0) {
        // What it says about its progress is for nobody: lease4 says what came of it.
        int nowhere = open("/dev/null", O_RDWR | O_CLOEXEC);
        dup2(nowhere, 2);
        // Asked for beside busybox's own list: MTU (26), routes (121), search domains (119).
        execl("/bin/busybox", "udhcpc", "-f", "-i", nic->name, "-s", "/usr/bin/lease4", "-t", "4", "-T", "1", "-A", "4", "-O", "mtu",
              "-O", "staticroutes", "-O", "search", (char *)NULL);
        _exit(127);
    }
}

static void appear(struct nic *nic, int index, const char *name) {
    nic->index = index;
    snprintf(nic->name, sizeof nic->name, "%s", name);
    // Addresses are given out by the platform, one owner each: asking the neighbours for a second first is a second lost.
    link_sysctl(name, "accept_dad", "0");
    link_up(name);
}

static void disappear(struct nic *nic) {
    if (nic->udhcpc > 0)
        kill(nic->udhcpc, SIGKILL);
    if (nic->dhcp6)
        dhcp6_stop(nic->dhcp6);
    resolvers_set(nic->name, "4", "");
    char record[64];
    snprintf(record, sizeof record, "/run/network/%s.lease", nic->name);
    unlink(record);
    memset(nic, 0, sizeof *nic);
}

static void carrier(struct nic *nic, bool there) {
    if (there && !nic->carrier) {
        if (nic->udhcpc <= 0)
            start_udhcpc(nic);
        else
            kill(nic->udhcpc, SIGUSR1); // renew: the network behind the NIC may be another
        if (nic->dhcp6)
            dhcp6_ask_again(nic->dhcp6);
    }
    nic->carrier = there;
}

// The router's flags, in the kernel's notice of the interface's IPv6 side.
static bool managed(const struct rtattr *protinfo) {
    uint32_t flags = 0;
    int left = RTA_PAYLOAD(protinfo);
    for (struct rtattr *a = RTA_DATA(protinfo); RTA_OK(a, left); a = RTA_NEXT(a, left))
        if (a->rta_type == IFLA_INET6_FLAGS)
            memcpy(&flags, RTA_DATA(a), 4);
    return flags & RA_MANAGED;
}

// Not a bridge or a veth that somebody made in the guest: those have no device behind them.
static bool hardware(const char *name) {
    char path[64];
    snprintf(path, sizeof path, "/sys/class/net/%s/device", name);
    return access(path, F_OK) == 0;
}

static void notice(struct nlmsghdr *h) {
    struct ifinfomsg *body = NLMSG_DATA(h);
    struct nic *nic = find(body->ifi_index);
    const struct rtattr *protinfo = NULL;
    const char *name = NULL;
    int left = h->nlmsg_len - NLMSG_LENGTH(sizeof *body);
    if (h->nlmsg_type == RTM_DELLINK && body->ifi_family == AF_UNSPEC && nic)
        disappear(nic);
    if (h->nlmsg_type != RTM_NEWLINK || body->ifi_type != ARPHRD_ETHER)
        return;
    for (struct rtattr *a = (void *)((char *)body + NLMSG_ALIGN(sizeof *body)); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
        if (a->rta_type == IFLA_IFNAME)
            name = RTA_DATA(a);
        if (a->rta_type == IFLA_PROTINFO)
            protinfo = a;
    }
    if (body->ifi_family == AF_UNSPEC && name) {
        if (!nic && hardware(name) && (nic = find(0)))
            appear(nic, body->ifi_index, name);
        if (nic)
            carrier(nic, body->ifi_flags & LOWER_UP);
    } else if (body->ifi_family == AF_INET6 && nic && protinfo && !nic->dhcp6 && managed(protinfo)) {
        nic->dhcp6 = dhcp6_start(nic->name, nic->index);
    }
}

// What was there before we listened; also after the kernel says that it dropped notices.
static void ask_for_all(int netlink, int family) {
    struct {
        struct nlmsghdr header;
        struct ifinfomsg body;
    } request = {.header = {.nlmsg_len = sizeof request, .nlmsg_type = RTM_GETLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_DUMP},
                 .body = {.ifi_family = family}};
    if (send(netlink, &request, sizeof request, 0) < 0)
        say("the NICs cannot be listed: %s", strerror(errno));
}

static void read_notices(int netlink) {
    static char buffer[65536];
    ssize_t got = recv(netlink, buffer, sizeof buffer, MSG_DONTWAIT);
    if (got < 0 && errno == ENOBUFS)
        ask_for_all(netlink, AF_UNSPEC);
    for (struct nlmsghdr *h = (void *)buffer; got > 0 && NLMSG_OK(h, got); h = NLMSG_NEXT(h, got))
        notice(h);
}

static void reap(void) {
    pid_t pid;
    while ((pid = waitpid(-1, NULL, WNOHANG)) > 0)
        for (int i = 0; i < NICS_MAX; i++)
            if (nics[i].udhcpc == pid)
                start_udhcpc(&nics[i]); // it ends only when it cannot go on; it is slow to give up, so this doesn't spin
}

static void on_child(int signal) { (void)signal; }

int nics_main(int argc, char **argv) {
    (void)argc, (void)argv;
    mkdir("/run/network", 0755);
    mkfifo("/run/network/addresses", 0600);
    // Held open for both, so that init may come late and lease4 never waits.
    int fifo = open("/run/network/addresses", O_RDWR | O_CLOEXEC);
    if (fifo < 0)
        die("no /run/network/addresses: %s", strerror(errno));
    if (fork() > 0)
        _exit(0);
    setsid();
    sigset_t blocked, usual;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGCHLD);
    sigprocmask(SIG_BLOCK, &blocked, &usual);
    signal(SIGCHLD, on_child);
    link_sysctl("default", "accept_dad", "0");
    int netlink = link_open(RTMGRP_LINK | RTMGRP_IPV6_IFINFO);
    ask_for_all(netlink, AF_UNSPEC);
    for (;;) {
        struct pollfd wait[1 + NICS_MAX] = {{.fd = netlink, .events = POLLIN}};
        int timer = -1;
        for (int i = 0; i < NICS_MAX; i++) {
            struct dhcp6 *client = nics[i].dhcp6;
            wait[1 + i] = (struct pollfd){.fd = client ? dhcp6_descriptor(client) : -1, .events = POLLIN};
            int due = client ? dhcp6_timer_ms(client) : -1;
            if (due >= 0 && (timer < 0 || due < timer))
                timer = due;
        }
        struct timespec until = {.tv_sec = timer / 1000, .tv_nsec = timer % 1000 * 1000000};
        if (ppoll(wait, 1 + NICS_MAX, timer < 0 ? NULL : &until, &usual) < 0 && errno != EINTR)
            die("nics: %s", strerror(errno));
        reap();
        for (int i = 0; i < NICS_MAX; i++)
            if (nics[i].dhcp6 && wait[1 + i].fd >= 0) {
                dhcp6_receive(nics[i].dhcp6);
                dhcp6_expired(nics[i].dhcp6);
            }
        read_notices(netlink);
    }
}
