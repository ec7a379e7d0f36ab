// What the tools of the image `tiny` share. One static program, named by what it is called as (main.c): a fork under
// emulation costs milliseconds, loading a second library more.
#pragma once
#include <net/if.h>
#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

int nics_main(int argc, char **argv);
int lease4_main(int argc, char **argv);
int metadata_main(int argc, char **argv);
int web_main(int argc, char **argv);
int burn_main(int argc, char **argv);
int forge_main(int argc, char **argv);
int sniff_main(int argc, char **argv);
int hang_main(int argc, char **argv);

// say.c
void say(const char *format, ...) __attribute__((format(printf, 1, 2)));          // on the console, as init does
_Noreturn void die(const char *format, ...) __attribute__((format(printf, 1, 2))); // exit code 1
uint64_t now_ms(void);
bool write_file(const char *path, const char *text); // whole, or not at all
// Tells init, which waits for it at boot, that a NIC has an address: "v4 eth0 10.0.0.5".
void tell_address(const char *family, const char *nic, const char *address);
// The resolvers that `nic` learned by `source` ("4" or "6"); /etc/resolv.conf is all of them.
void resolvers_set(const char *nic, const char *source, const char *text);

// link.c: rtnetlink
int link_open(unsigned groups);
void link_up(const char *nic);
void link_mtu(const char *nic, int mtu);
bool link_mac(const char *nic, uint8_t mac[6]);
bool link_sysctl(const char *nic, const char *key, const char *value); // net.ipv6.conf.<NIC>.<key>
void address_set(int index, int family, const void *address, int prefix, uint32_t preferred_secs, uint32_t valid_secs);
void address_drop(int index, int family, const void *address, int prefix);
void addresses_drop_v4(int index);
// `gateway` may be NULL: on the link. Table 0 is the main one.
void route_set(int index, int family, const void *to, int prefix, const void *gateway, uint32_t metric, uint32_t table);
void routes_drop(int index, int family, uint32_t table);
void rule_set(bool there, int family, const void *from, int prefix, uint32_t table);

// dhcp6.c
struct dhcp6;
struct dhcp6 *dhcp6_start(const char *nic, int index);
void dhcp6_stop(struct dhcp6 *);
void dhcp6_ask_again(struct dhcp6 *); // the link was away: confirm what we hold
int dhcp6_descriptor(const struct dhcp6 *);
void dhcp6_receive(struct dhcp6 *);
int dhcp6_timer_ms(const struct dhcp6 *); // until dhcp6_expired wants to be called; -1: never
void dhcp6_expired(struct dhcp6 *);
