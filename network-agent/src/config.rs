//! The section `[network]` of the configuration file.

use crate::model::state::{HostFacts, Wiring};
use domain::{
    HostId,
    network::{Cidr, merge_blocks},
};
use serde::{Deserialize, Serialize};
use service_kit::config::ConfigError;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    sync::Arc,
};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Who this host is, where it is known from outside: both agents of a host are one host. It must be the ledger's; a new ledger
    /// takes it over. Absent: the ledger's, and a new ledger makes one up.
    pub host_id: Option<HostId>,
    /// The host's name as people see it. Empty: the machine's hostname.
    pub host_name: String,
    /// The ledger: what must survive a reboot. Root alone may read it.
    pub state_dir: PathBuf,
    /// The socket by which the compute-agent acquires ports.
    pub port_socket: PathBuf,
    /// Where namespaces are mounted by name; iproute2's own directory, so that `ip netns` shows them.
    pub netns_dir: PathBuf,
    /// What the names of our namespaces, and of our table in the host's, begin with: a letter. Two agents on one machine need two.
    pub prefix: String,
    /// The address that other hosts send this one's VXLAN packets to. Without one, a host is alone.
    pub underlay_address: IpAddr,
    /// Of the underlay: networks' MTU is this less the encapsulation.
    pub underlay_mtu: u32,
    pub vxlan_port: u16,
    /// External networks by name, and the bridge in the host's namespace that leads to each.
    pub external: BTreeMap<String, String>,
    /// Blocks that no instance of this host may open connections to over an uplink. The addresses of this host are found and needn't be
    /// configured; those of the other hosts and the managers come from the resource-manager.
    pub protected: BTreeSet<Cidr>,
    /// Resolvers that names are forwarded to that aren't instances'. Empty: those of /etc/resolv.conf.
    pub resolvers: Vec<SocketAddr>,
    /// The user id that may open taps.
    pub tap_owner_uid: u32,
    /// `tap` for virtual machines; `veth` leaves the other end of each port in its namespace, for endpoints that are namespaces.
    pub wiring: Wiring,
    /// Seconds between looks at everything, in case somebody else changed it.
    pub audit_secs: u64,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            host_id: None,
            host_name: String::new(),
            state_dir: "/var/lib/iaas/network".into(),
            port_socket: "/run/iaas/network/port.sock".into(),
            netns_dir: crate::link::netns::SYSTEM_DIR.into(),
            prefix: "iaas".into(),
            underlay_address: Ipv4Addr::LOCALHOST.into(),
            underlay_mtu: 1500,
            vxlan_port: 4789,
            external: BTreeMap::new(),
            protected: BTreeSet::new(),
            resolvers: Vec::new(),
            tap_owner_uid: 0,
            wiring: Wiring::Tap,
            audit_secs: 30,
        }
    }
}

impl Config {
    /// Everything that is wrong, not only the first.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut check = |good: bool, key: &str, detail: &str| {
            if !good {
                errors.push(ConfigError::new(format!("network.{key}"), detail));
            }
        };
        check(self.state_dir.is_absolute(), "state_dir", "must be an absolute path");
        check(self.netns_dir.is_absolute(), "netns_dir", "must be an absolute path");
        let socket = self.port_socket.as_os_str().len();
        check(
            self.port_socket.is_absolute() && socket <= 107,
            "port_socket",
            "must be an absolute path of at most 107 bytes",
        );
        let plain = (1..=32).contains(&self.prefix.len())
            && self.prefix.starts_with(|first: char| first.is_ascii_lowercase())
            && self.prefix.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        check(plain, "prefix", "must be 1 to 32 characters of a-z, 0-9 and '-', the first of them a letter");
        check((1350..=9216).contains(&self.underlay_mtu), "underlay_mtu", "must be from 1350 to 9216");
        check(self.vxlan_port != 0, "vxlan_port", "must not be 0");
        let interfaces = self.external.values().all(|name| (1..=15).contains(&name.len()));
        check(interfaces, "external", "must name bridges: 1 to 15 characters each");
        check(self.audit_secs > 0, "audit_secs", "must be at least 1");
        errors
    }

    /// What no instance of this host may reach: the configured blocks, the host's own addresses, and what the manager said of the fleet. Blocks
    /// that overlap or are neighbours are one: intervals of a set must not overlap, and there may be thousands of hosts.
    #[must_use]
    pub fn protected_with(&self, own: &BTreeSet<IpAddr>, fleet: impl IntoIterator<Item = Cidr>) -> BTreeSet<Cidr> {
        let underlay = Some(self.underlay_address).filter(|addr| !addr.is_loopback());
        let hosts = own.iter().copied().chain(underlay).map(Cidr::host);
        merge_blocks(self.protected.iter().copied().chain(hosts).chain(fleet))
    }

    #[must_use]
    pub fn facts(&self, protected: Arc<BTreeSet<Cidr>>) -> HostFacts {
        HostFacts {
            underlay: self.underlay_address,
            vxlan_port: self.vxlan_port,
            external: self.external.clone(),
            protected,
            wiring: self.wiring,
            tap_owner_uid: self.tap_owner_uid,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_and_the_fleets_addresses_are_protected_and_blocks_do_not_overlap() {
        let block = |text: &str| text.parse::<Cidr>().expect("cidr");
        let configured = ["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32"].map(block);
        let at = |underlay: &str, configured: &[Cidr]| {
            let underlay_address = underlay.parse().expect("ip");
            Config { underlay_address, protected: configured.iter().copied().collect(), ..Config::default() }
                .protected_with(&BTreeSet::from(["10.9.9.9".parse().expect("ip")]), [block("192.0.2.6/32")])
        };
        let fleet = block("192.0.2.6/31");
        assert_eq!(at("127.0.0.1", &configured), BTreeSet::from([configured[0], fleet]));
        assert_eq!(at("10.255.0.1", &configured), BTreeSet::from([configured[0], fleet]), "in a block already");
        let all = BTreeSet::from([fleet, block("172.16.0.1/32"), block("10.9.9.9/32")]);
        assert_eq!(at("172.16.0.1", &configured[2..]), all);
    }

    #[test]
    fn the_defaults_are_fine_and_all_errors_come_at_once() {
        assert_eq!(Config::default().validate(), []);
        let bad = Config {
            state_dir: "relative".into(),
            prefix: "Not Plain".into(),
            underlay_mtu: 10,
            external: BTreeMap::from([("public".into(), String::new())]),
            ..Config::default()
        };
        let keys: Vec<String> = bad.validate().into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["network.state_dir", "network.prefix", "network.underlay_mtu", "network.external"]);
    }
}
