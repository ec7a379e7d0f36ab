// A DHCPv6 client (RFC 8415) for one address per NIC, /128, by multicast. Written for this image since busybox as Debian
// builds it has none. It is a state machine over one socket: what is sent again and when follows section 15 of the RFC.
//
// The router's word that addresses are managed starts it (nics.c), and routes are the router's affair, not DHCP's.
#include "tools.h"
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

enum message { SOLICIT = 1, ADVERTISE = 2, REQUEST = 3, RENEW = 5, REBIND = 6, REPLY = 7 };
enum option { CLIENT = 1, SERVER = 2, IA_NA = 3, IA_ADDRESS = 5, WANTED = 6, ELAPSED = 8, STATUS = 13, RAPID = 14, DNS = 23, DOMAINS = 24 };

// What each message waits for its answer at first and at most (section 7.6), and how often it is sent.
static const struct pace {
    uint32_t first_ms, most_ms;
    unsigned times; // 0: until something ends it
} PACES[] = {
    [SOLICIT] = {1000, 30000, 0}, // the RFC's hour is for millions of clients of one server
    [REQUEST] = {1000, 30000, 10},
    [RENEW] = {10000, 600000, 0},
    [REBIND] = {10000, 600000, 0},
};

struct dhcp6 {
    char nic[IFNAMSIZ];
    int index, socket;
    uint8_t duid[10]; // type 3: by the hardware address
    uint8_t server[130];
    size_t server_length;
    enum message asking; // 0: nothing is out
    uint8_t transaction[3];
    uint64_t asked_at, sent_at, wait_ms;
    unsigned sent;
    bool held;
    struct in6_addr address;
    uint64_t renew_at, rebind_at, ends_at;
};

static void put16(uint8_t *to, unsigned value) { to[0] = value >> 8, to[1] = value; }
static unsigned get16(const uint8_t *from) { return from[0] << 8 | from[1]; }
static uint32_t get32(const uint8_t *from) { return (uint32_t)get16(from) << 16 | get16(from + 2); }

static uint8_t *put_option(uint8_t *to, enum option code, const void *data, size_t length) {
    put16(to, code), put16(to + 2, length);
    memcpy(to + 4, data, length);
    return to + 4 + length;
}

static void send_now(struct dhcp6 *client) {
    uint8_t packet[512], body[40] = {0}, *to = packet;
    uint64_t now = now_ms(), elapsed = (now - client->asked_at) / 10;
    *to++ = client->asking;
    memcpy(to, client->transaction, 3), to += 3;
    to = put_option(to, CLIENT, client->duid, sizeof client->duid);
    if (client->asking == REQUEST || client->asking == RENEW)
        to = put_option(to, SERVER, client->server, client->server_length);
    if (client->asking == SOLICIT)
        to = put_option(to, RAPID, "", 0);
    put16(body, elapsed > 0xffff ? 0xffff : elapsed);
    to = put_option(to, ELAPSED, body, 2);
    to = put_option(to, WANTED, "\0\x17\0\x18", 4);
    memcpy(body, client->duid + 6, 4); // IAID: the NIC's own part of its hardware address
    memset(body + 4, 0, 8);
    if (client->asking == SOLICIT) {
        to = put_option(to, IA_NA, body, 12);
    } else {
        put16(body + 12, IA_ADDRESS), put16(body + 14, 24);
        memcpy(body + 16, &client->address, 16);
        to = put_option(to, IA_NA, body, 40); // its lifetimes zero: the server's choice
    }
    struct sockaddr_in6 all = {.sin6_family = AF_INET6, .sin6_port = htons(547), .sin6_scope_id = client->index};
    inet_pton(AF_INET6, "ff02::1:2", &all.sin6_addr);
    // A failure is a packet lost: the timer sends it again.
    (void)!sendto(client->socket, packet, to - packet, 0, (struct sockaddr *)&all, sizeof all);
    client->sent_at = now;
    client->sent++;
}

// The message that goes out when the timer fires next: after its first pause, if nobody sends it at once.
static void prepare(struct dhcp6 *client, enum message message) {
    client->asking = message;
    client->asked_at = client->sent_at = now_ms();
    client->wait_ms = PACES[message].first_ms;
    client->sent = 0;
    // Needs to differ, not to be secret: early in a boot the secret ones take a second to come.
    if (getrandom(client->transaction, 3, GRND_INSECURE) != 3)
        put16(client->transaction, client->asked_at);
}

static void ask(struct dhcp6 *client, enum message message) {
    prepare(client, message);
    send_now(client);
}

static void let_go(struct dhcp6 *client) {
    if (client->held) {
        address_drop(client->index, AF_INET6, &client->address, 128);
        resolvers_set(client->nic, "6", "");
    }
    client->held = false;
}

struct dhcp6 *dhcp6_start(const char *nic, int index) {
    struct dhcp6 *client = calloc(1, sizeof *client);
    struct sockaddr_in6 us = {.sin6_family = AF_INET6, .sin6_port = htons(546)};
    int on = 1;
    snprintf(client->nic, sizeof client->nic, "%s", nic);
    client->index = index;
    client->socket = socket(AF_INET6, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    setsockopt(client->socket, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
    setsockopt(client->socket, SOL_SOCKET, SO_BINDTODEVICE, nic, strlen(nic) + 1);
    if (client->socket < 0 || bind(client->socket, (struct sockaddr *)&us, sizeof us) < 0) {
        say("%s: no DHCPv6: %s", nic, strerror(errno));
        close(client->socket);
        free(client);
        return NULL;
    }
    put16(client->duid, 3), put16(client->duid + 2, 1);
    link_mac(nic, client->duid + 4);
    ask(client, SOLICIT);
    return client;
}

void dhcp6_stop(struct dhcp6 *client) {
    let_go(client);
    close(client->socket);
    free(client);
}

void dhcp6_ask_again(struct dhcp6 *client) { ask(client, client->held ? REBIND : SOLICIT); }

int dhcp6_descriptor(const struct dhcp6 *client) { return client->socket; }

// One reply's parts; pointers into the packet.
struct reply {
    const uint8_t *server, *dns, *domains;
    size_t server_length, dns_length, domains_length;
    bool ours, rapid, address_given;
    unsigned status, ia_status;
    struct in6_addr address;
    uint32_t t1, t2, preferred, valid;
};

static void read_ia(struct reply *reply, const struct dhcp6 *client, const uint8_t *at, const uint8_t *end) {
    if (end - at < 12 || memcmp(at, client->duid + 6, 4))
        return;
    reply->t1 = get32(at + 4), reply->t2 = get32(at + 8);
    for (at += 12; end - at >= 4;) {
        unsigned code = get16(at), length = get16(at + 2);
        at += 4;
        if (length > end - at)
            return;
        if (code == STATUS && length >= 2)
            reply->ia_status = get16(at);
        if (code == IA_ADDRESS && length >= 24 && !reply->address_given && get32(at + 20) > 0) {
            memcpy(&reply->address, at, 16);
            reply->preferred = get32(at + 16), reply->valid = get32(at + 20);
            reply->address_given = true;
        }
        at += length;
    }
}

static bool read_reply(struct reply *reply, const struct dhcp6 *client, const uint8_t *at, const uint8_t *end) {
    while (end - at >= 4) {
        unsigned code = get16(at), length = get16(at + 2);
        at += 4;
        if (length > end - at)
            return false;
        switch (code) {
            case CLIENT: reply->ours = length == sizeof client->duid && !memcmp(at, client->duid, length); break;
            case SERVER: reply->server = at, reply->server_length = length; break;
            case STATUS: reply->status = length >= 2 ? get16(at) : 0; break;
            case RAPID: reply->rapid = true; break;
            case DNS: reply->dns = at, reply->dns_length = length; break;
            case DOMAINS: reply->domains = at, reply->domains_length = length; break;
            case IA_NA: read_ia(reply, client, at, at + length); break;
        }
        at += length;
    }
    return reply->ours && reply->server && reply->server_length <= sizeof client->server;
}

static void tell_resolvers(const struct dhcp6 *client, const struct reply *reply) {
    char text[1024] = "", address[INET6_ADDRSTRLEN];
    int used = 0;
    // The first domain: labels, each after its length.
    const uint8_t *at = reply->domains, *end = at + reply->domains_length;
    while (at && at < end && *at && *at < 64 && *at < end - at) {
        used += snprintf(text + used, sizeof text - used, "%s%.*s", used ? "." : "search ", *at, at + 1);
        at += *at + 1;
    }
    if (used)
        used += snprintf(text + used, sizeof text - used, "\n");
    for (size_t i = 0; i + 16 <= reply->dns_length && used < (int)sizeof text - 80; i += 16)
        used += snprintf(text + used, sizeof text - used, "nameserver %s\n",
                         inet_ntop(AF_INET6, reply->dns + i, address, sizeof address));
    resolvers_set(client->nic, "6", text);
}

static void hold(struct dhcp6 *client, const struct reply *reply) {
    uint64_t now = now_ms();
    bool moved = !client->held || memcmp(&client->address, &reply->address, 16);
    if (moved)
        let_go(client);
    client->address = reply->address;
    client->held = true;
    client->asking = 0;
    memcpy(client->server, reply->server, reply->server_length);
    client->server_length = reply->server_length;
    // Times of zero are ours to choose (section 14.2); endless ones stay endless.
    uint32_t t1 = reply->t1 ? reply->t1 : reply->preferred == UINT32_MAX ? UINT32_MAX : reply->preferred / 2;
    uint32_t t2 = reply->t2 ? reply->t2 : reply->preferred == UINT32_MAX ? UINT32_MAX : reply->preferred / 5 * 4;
    client->renew_at = t1 == UINT32_MAX ? UINT64_MAX : now + t1 * 1000ull;
    client->rebind_at = t2 == UINT32_MAX ? UINT64_MAX : now + t2 * 1000ull;
    client->ends_at = reply->valid == UINT32_MAX ? UINT64_MAX : now + reply->valid * 1000ull;
    address_set(client->index, AF_INET6, &client->address, 128, reply->preferred, reply->valid);
    tell_resolvers(client, reply);
    if (moved) {
        char text[INET6_ADDRSTRLEN];
        tell_address("v6", client->nic, inet_ntop(AF_INET6, &client->address, text, sizeof text));
    }
}

void dhcp6_receive(struct dhcp6 *client) {
    uint8_t packet[1500];
    ssize_t got;
    while ((got = recv(client->socket, packet, sizeof packet, 0)) >= 0) {
        struct reply reply = {0};
        if (got < 4 || !client->asking || memcmp(packet + 1, client->transaction, 3) ||
            !read_reply(&reply, client, packet + 4, packet + got))
            continue;
        bool good = reply.status == 0 && reply.ia_status == 0 && reply.address_given;
        if (packet[0] == ADVERTISE && client->asking == SOLICIT && good) {
            memcpy(client->server, reply.server, reply.server_length);
            client->server_length = reply.server_length;
            client->address = reply.address;
            ask(client, REQUEST);
        } else if (packet[0] == REPLY && (client->asking != SOLICIT || reply.rapid)) {
            if (good) {
                hold(client, &reply);
            } else if (client->asking != SOLICIT) {
                // The server says that this address isn't ours (any more): from the start.
                let_go(client);
                prepare(client, SOLICIT);
            }
        }
    }
}

// When something is due, on the clock of now_ms.
static uint64_t due_at(const struct dhcp6 *client) {
    uint64_t due = UINT64_MAX;
    if (client->asking)
        due = client->sent_at + client->wait_ms;
    if (client->held) {
        if (!client->asking && client->renew_at < due)
            due = client->renew_at;
        if (client->asking == RENEW && client->rebind_at < due)
            due = client->rebind_at;
        if (client->ends_at < due)
            due = client->ends_at;
    }
    return due;
}

int dhcp6_timer_ms(const struct dhcp6 *client) {
    uint64_t due = due_at(client), now = now_ms();
    if (due == UINT64_MAX)
        return -1;
    return due <= now ? 0 : due - now > 3600000 ? 3600000 : (int)(due - now);
}

void dhcp6_expired(struct dhcp6 *client) {
    uint64_t now = now_ms();
    if (due_at(client) > now)
        return;
    if (client->held && client->ends_at <= now) {
        let_go(client);
        ask(client, SOLICIT);
    } else if (client->held && client->asking != REBIND && client->rebind_at <= now) {
        ask(client, REBIND);
    } else if (client->held && !client->asking) {
        ask(client, RENEW);
    } else if (PACES[client->asking].times && client->sent >= PACES[client->asking].times) {
        ask(client, SOLICIT);
    } else {
        if (client->sent > 0) {
            // Doubled, give or take a tenth, so that guests that start together don't stay together.
            uint64_t wait = client->wait_ms * 2, most = PACES[client->asking].most_ms;
            client->wait_ms = (wait > most ? most : wait) * (90 + (client->transaction[0] ^ now) % 21) / 100;
        }
        send_now(client);
    }
}
