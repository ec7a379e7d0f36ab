//! The text that `nft -f -` takes, in one transaction: all of it (at the start, or when something else changed the rules), or the
//! difference between two rulesets. Pure.
//!
//! A refused packet isn't dropped where it is refused: it gets a mark, and a table that no replacement touches counts it by
//! interface and reason and drops it, a step later in the same hook. Named counters beside the rules were rejected, since replacing
//! the table zeroes them. The two tables are made in one transaction, the counting one first, so that a mark always drops.

use super::{
    DropReason,
    difference::Change,
    element::Element,
    fence,
    ruleset::{Head, Ruleset, Table},
};
use std::fmt::{self, Write};

/// Elements per line: a line of everything is hard to read in a log.
const PER_COMMAND: usize = 512;

/// Everything, replacing what is there. Connections and drop counters live on.
#[must_use]
pub fn render_full(rules: &Ruleset) -> String {
    let mut out = DROPS.to_owned();
    for table in [Table::Inet, Table::Arp] {
        let table = table.as_str();
        push(&mut out, format_args!("add table {table}\ndelete table {table}\nadd table {table}\n"));
    }
    for ((table, name), set) in &rules.sets {
        declare(&mut out, *table, name, set.head);
    }
    for (name, limit) in &rules.limits {
        push(&mut out, format_args!("add limit inet iaas {name} {{ {limit} }}\n"));
    }
    for name in rules.chains.keys() {
        push(&mut out, format_args!("add chain inet iaas {name}\n"));
    }
    out.push_str(&skeleton());
    for (name, texts) in &rules.chains {
        add_rules(&mut out, name, texts);
    }
    for ((table, name), set) in &rules.sets {
        elements(&mut out, "add", *table, name, &set.elements);
    }
    out
}

/// The text of a difference.
#[must_use]
pub fn render_changes(changes: &[Change]) -> String {
    let mut out = String::new();
    for change in changes {
        match change {
            Change::Declare { table, name, head } => declare(&mut out, *table, name, *head),
            Change::AddChain { name } => push(&mut out, format_args!("add chain inet iaas {name}\n")),
            Change::DeleteElements { table, set, elements: some } => elements(&mut out, "delete", *table, set, some),
            Change::AddElements { table, set, elements: some } => elements(&mut out, "add", *table, set, some),
            Change::DeleteLimit { name } => push(&mut out, format_args!("delete limit inet iaas {name}\n")),
            Change::AddLimit { name, limit } => {
                push(&mut out, format_args!("add limit inet iaas {name} {{ {limit} }}\n"));
            }
            Change::FlushChain { name } => push(&mut out, format_args!("flush chain inet iaas {name}\n")),
            Change::AddRules { chain, rules } => add_rules(&mut out, chain, rules),
            Change::DeleteChain { name } => push(&mut out, format_args!("delete chain inet iaas {name}\n")),
            Change::DeleteSet { table, name, map } => {
                push(&mut out, format_args!("delete {} {} {name}\n", set_or_map(*map), table.as_str()));
            }
        }
    }
    out
}

fn set_or_map(map: bool) -> &'static str {
    if map { "map" } else { "set" }
}

fn push(out: &mut String, text: fmt::Arguments<'_>) {
    out.write_fmt(text).expect("writing to a string never fails");
}

fn add_rules(out: &mut String, chain: &str, rules: &[String]) {
    for rule in rules {
        push(out, format_args!("add rule inet iaas {chain} {rule}\n"));
    }
}

fn declare(out: &mut String, table: Table, name: &str, head: Head) {
    let flags = if head.interval { "flags interval; " } else { "" };
    push(
        out,
        format_args!("add {} {} {name} {{ type {}; {flags}}}\n", set_or_map(head.map), table.as_str(), head.kind),
    );
}

fn elements<'a>(
    out: &mut String,
    verb: &str,
    table: Table,
    name: &str,
    elements: impl IntoIterator<Item = &'a Element>,
) {
    let mut elements = elements.into_iter().peekable();
    while elements.peek().is_some() {
        push(out, format_args!("{verb} element {} {name} {{ ", table.as_str()));
        for (at, element) in elements.by_ref().take(PER_COMMAND).enumerate() {
            push(out, format_args!("{}{element}", if at == 0 { "" } else { ", " }));
        }
        out.push_str(" }\n");
    }
}

/// The part that counts and drops. The kernel sets memory for the stated size apart, in each network: it is for a thousand ports with
/// each of the reasons. Repeating it changes nothing but to flush and refill three chains.
const DROPS: &str = "\
add table inet iaas_drops
add set inet iaas_drops by_source { type ifname . mark; size 16384; flags dynamic; counter; }
add set inet iaas_drops by_target { type ifname . mark; size 16384; flags dynamic; counter; }
add chain inet iaas_drops prerouting { type filter hook prerouting priority -305; policy accept; }
add chain inet iaas_drops forward { type filter hook forward priority 5; policy accept; }
add chain inet iaas_drops input { type filter hook input priority 5; policy accept; }
flush chain inet iaas_drops prerouting
flush chain inet iaas_drops forward
flush chain inet iaas_drops input
add rule inet iaas_drops prerouting meta mark & 0xffff0000 == 0xd0d00000 update @by_source { iifname . meta mark } drop
add rule inet iaas_drops forward meta mark & 0xffff0000 == 0xd0d00000 oifname \"t*\" update @by_target { oifname . meta mark }
add rule inet iaas_drops forward meta mark & 0xffff0000 == 0xd0d00000 iifname \"t*\" update @by_source { iifname . meta mark }
add rule inet iaas_drops forward meta mark & 0xffff0000 == 0xd0d00000 drop
add table arp iaas_drops
add set arp iaas_drops by_source { type ifname . mark; size 16384; flags dynamic; counter; }
add chain arp iaas_drops input { type filter hook input priority 5; policy accept; }
flush chain arp iaas_drops input
add rule arp iaas_drops input meta mark & 0xffff0000 == 0xd0d00000 update @by_source { iifname . meta mark } drop
add rule inet iaas_drops input meta mark & 0xffff0000 == 0xd0d00000 update @by_source { iifname . meta mark } drop
";

/// Tracked flows that a port may have begun at a time. They are the kernel's memory, which all networks share. The kernel goes through a
/// port's flows when it counts them, so they are also few enough for that, and how fast they begin is limited before.
pub const FLOWS_PER_PORT: u32 = 16_384;

/// Base chains: the order of checks, which never changes.
fn skeleton() -> String {
    let mark = |reason: DropReason| format!("meta mark set {:#x} accept", reason.mark());
    SKELETON
        .replace("<spoof>", &mark(DropReason::Spoof))
        .replace("<dhcp>", &mark(DropReason::DhcpServer))
        .replace("<ra>", &mark(DropReason::RouterAdvertisement))
        .replace("<group>", &mark(DropReason::SecurityGroup))
        .replace("<protected>", &mark(DropReason::Protected))
        .replace("<host>", &mark(DropReason::Host))
        .replace("<rate>", &mark(DropReason::Rate))
        .replace("<transit>", &mark(DropReason::Transit))
        .replace("<nat>", &mark(DropReason::StaleNat))
        .replace("<private>", &mark(DropReason::NotRoutable))
        .replace("<slowly>", "limit rate over 5/second burst 20 packets")
        .replace("<strangers>", "limit rate over 10/second burst 64 packets")
        .replace("<all_strangers>", "limit rate over 40/second burst 256 packets")
        .replace("<begin>", "limit rate over 2000/second burst 8000 packets")
        .replace("<flows>", &FLOWS_PER_PORT.to_string())
        .replace("<guarded>", &format!("meta mark set {:#x}", fence::GUARDED))
        .replace("<left>", &format!("meta mark {:#x} meta mark set {:#x}", fence::GUARDED, fence::LEFT))
        .replace("<forwarded>", &format!("meta mark {:#x} meta mark set {:#x}", fence::LEFT, fence::FORWARDED))
        .replace("<taken>", &format!("meta mark {:#x} meta mark set {:#x}", fence::GUARDED, fence::TAKEN))
}

/// A set that packets fill takes its kernel memory, 16 bytes for each place, when it is made; a network has at most some thousands of ports on a host.
const SKELETON: &str = r#"table inet iaas {
	# Each of these addresses is an entry of the neighbour table, which all networks of the host share. A port has one link-local address of
	# its own choice at a time; of its allowed blocks, new neighbours are few in a second.
	set links6 { type ifname . ipv6_addr; size 4096; flags dynamic, timeout; timeout 1m; }
	set links6_taken { type ifname; size 4096; flags dynamic, timeout; timeout 1m; }
	set neighbours { type ifname; size 4096; flags dynamic, timeout; timeout 1m; }
	# So is each address of the external network that a port sends to, also one that nobody has: new ones are few in a second.
	set outside4 { type ifname . ipv4_addr; size 4096; flags dynamic, timeout; timeout 1m; }
	set outside6 { type ifname . ipv6_addr; size 4096; flags dynamic, timeout; timeout 1m; }
	set outside_new { type ifname; size 4096; flags dynamic, timeout; timeout 1m; }
	# How many tracked flows each port began; the kernel removes those that are empty.
	set flows { type ifname; size 4096; flags dynamic; }
	set flow_rate { type ifname; size 4096; flags dynamic, timeout; timeout 1m; }
	chain link_local {
		iifname . ip6 saddr @links6 update @links6 { iifname . ip6 saddr } update @links6_taken { iifname } accept
		iifname @links6_taken <spoof>
		add @links6 { iifname . ip6 saddr } add @links6_taken { iifname } accept
	}
	chain outside {
		iifname . ip daddr @outside4 update @outside4 { iifname . ip daddr } return
		iifname . ip6 daddr @outside6 update @outside6 { iifname . ip6 daddr } return
		update @outside_new { iifname <strangers> } <rate>
		<all_strangers> <rate>
		add @outside4 { iifname . ip daddr }
		add @outside6 { iifname . ip6 daddr }
	}
	# A host speaks for the ports that are bound to it, and its router for itself: what it answers to packets that it can't deliver.
	chain tunnel {
		ether saddr . ip saddr @remote4 accept
		ether saddr . ip6 saddr @remote6 accept
		ether saddr . ip saddr @remote4x accept
		ether saddr . ip6 saddr @remote6x accept
		ether saddr @hosts ip6 saddr fe80::/10 accept
		ether saddr @hosts ip6 saddr @gateways6 icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
		<spoof>
	}
	# Before connection tracking: a forged packet leaves no trace.
	chain guard {
		type filter hook prerouting priority -310; policy accept;
		# Observed: each chain that decides says so to the next, and a table that nobody else can flush lets nothing else pass.
		<guarded>
		# Whose addresses are at home elsewhere: nobody outside is of this network, nor is a peered network of a third.
		iifname "up" ip saddr @inside4 <spoof>
		iifname "up" ip6 saddr @inside6 <spoof>
		iifname "pr*" ip saddr @inside4 iifname . ip saddr != @behind4 <spoof>
		iifname "pr*" ip6 saddr @inside6 iifname . ip6 saddr != @behind6 <spoof>
		iifname "vx" jump tunnel
		iifname != "t*" accept
		udp sport 67 <dhcp>
		udp sport 547 <dhcp>
		icmpv6 type { nd-router-advert, nd-redirect } <ra>
		limit name iifname map @limit_out <rate>
		iifname . ether saddr . ip saddr @guard4 accept
		iifname . ether saddr . ip6 saddr @guard6 accept
		iifname . ether saddr @macs ip6 saddr fe80::/10 jump link_local
		iifname . ether saddr @macs ip saddr 0.0.0.0 udp sport 68 udp dport 67 accept
		iifname . ether saddr @macs ip6 saddr :: icmpv6 type { nd-neighbor-solicit, nd-router-solicit, mld2-listener-report } accept
		iifname . ether saddr . ip saddr @guard4x accept
		icmpv6 type { nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit } update @neighbours { iifname <slowly> } <rate>
		iifname . ether saddr . ip6 saddr @guard6x accept
		<spoof>
	}
	chain rate {
		type filter hook forward priority -5; policy accept;
		limit name oifname map @limit_in <rate>
	}
	chain egress {
		type filter hook forward priority 0; policy accept;
		meta mark & 0xffff0000 == 0xd0d00000 accept
		<left>
		# On its way to a port elsewhere, which checks it: packets of peered networks may pass here in one direction alone.
		iifname "pr*" oifname "vx" accept
		oifname "up" ct status snat ct reply ip daddr != @ours4 <nat>
		oifname "up" ct status snat ct reply ip6 daddr != @ours6 <nat>
		ct status dnat ct original ip daddr != @ours4 <nat>
		tcp flags syn tcp option maxseg size set rt mtu
		ct state established,related accept
		ct state invalid <group>
		iifname "t*" update @flow_rate { iifname <begin> } <rate>
		iifname "t*" add @flows { iifname ct count over <flows> } <rate>
		iifname vmap @port_out
		iifname "t*" <group>
	}
	chain ingress {
		type filter hook forward priority 1; policy accept;
		meta mark & 0xffff0000 == 0xd0d00000 accept
		<forwarded>
		# The outside meets translated addresses alone. What is translated already goes on as it began.
		oifname "up" ct direction original ct status & snat == 0 jump leaving
		iifname "up" ct direction original ct status & dnat == 0 <private>
		ct state established,related accept
		oifname vmap @port_in
		oifname "t*" <group>
		oifname "up" ip daddr @protected4 <protected>
		oifname "up" ip6 daddr @protected6 <protected>
		iifname "t*" oifname "up" ip daddr @onlink4 jump outside
		iifname "t*" oifname "up" ip6 daddr @onlink6 jump outside
		iifname "t*" oifname { "vx", "up" } accept
		iifname "t*" oifname "pr*" accept
		iifname "pr*" oifname "vx" accept
		<transit>
	}
	# What guests may ask of the router itself.
	chain own {
		type filter hook input priority 0; policy accept;
		<taken>
		iifname "lo" accept
		ct state established,related accept
		iifname "t*" update @flow_rate { iifname <begin> } <rate>
		iifname "t*" add @flows { iifname ct count over <flows> } <rate>
		icmp type echo-request accept
		icmpv6 type { echo-request, nd-neighbor-solicit, nd-neighbor-advert, nd-router-solicit, mld2-listener-report } accept
		iifname "t*" udp dport { 67, 547 } accept
		iifname "t*" meta l4proto { tcp, udp } th dport 53 accept
		iifname "t*" ip daddr 169.254.169.254 tcp dport 80 accept
		iifname "up" ip6 saddr fe80::/10 meta l4proto ipv6-icmp accept
		<host>
	}
	chain floating {
		type nat hook prerouting priority dstnat; policy accept;
		dnat ip to ip daddr map @floating_in
	}
	chain outgoing {
		type nat hook postrouting priority srcnat; policy accept;
		oifname "up" snat ip to ip saddr map @floating_out
		oifname "up" jump source_nat
	}
}
table arp iaas {
	set neighbours { type ifname; size 4096; flags dynamic, timeout; timeout 1m; }
	chain guard {
		type filter hook input priority 0; policy accept;
		iifname != "t*" accept
		iifname . arp saddr ether . arp saddr ip @guard4 accept
		iifname . arp saddr ether @macs arp saddr ip 0.0.0.0 accept
		update @neighbours { iifname <slowly> } <rate>
		iifname . arp saddr ether . arp saddr ip @guard4x accept
		<spoof>
	}
}
"#;
