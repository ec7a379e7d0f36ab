//! The section `[resource]`.

use domain::{
    Name,
    network::{Cidr, ExternalSubnet, IpRange, Vni},
};
use serde::{Deserialize, Serialize};
use service_kit::config::ConfigError;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// A commit may wait this long for the database, and what it took must not be given to others meanwhile.
const QUARANTINE_SECS_MAX: u64 = 86_400;
const RESERVATION_TTL_SECS_MAX: u32 = 3600;

/// A block of an external network that is there from the start. Two of one name are two blocks of one network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ExternalNetworkConfig {
    /// As in the hosts' `[network.external]`.
    pub name: Name,
    pub cidr: Cidr,
    pub gateway: IpAddr,
    /// Where routers' and floating addresses are taken from. Empty: everywhere but the gateway.
    #[serde(default)]
    pub allocation: Vec<IpRange>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// How long a released address is quarantined before anybody gets it again, seconds.
    pub quarantine_secs: u64,
    /// How long a port's reservation stands when its owner doesn't say, seconds.
    pub reservation_ttl_secs: u32,
    /// The first and the last VXLAN network identifier that networks get.
    pub vni_first: u32,
    pub vni_last: u32,
    /// Between two looks for what has expired, what is missing and what is too much, milliseconds.
    pub reconcile_interval_ms: u64,
    /// How often memory is held against the database, seconds. 0: never.
    pub leak_check_secs: u64,
    /// How long outcomes of operations are kept for repeats, hours.
    pub operation_keep_hours: u64,
    /// Blocks that no instance of any host may open connections to by an external network: the managers' addresses, and whatever else only
    /// operators may reach. The addresses of the hosts and of this machine are known and needn't be configured.
    pub protected: BTreeSet<Cidr>,
    /// Made or brought up to date at each start; what is taken out of here stays until it is deleted.
    pub external_networks: Vec<ExternalNetworkConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            quarantine_secs: 60,
            reservation_ttl_secs: 120,
            vni_first: 1,
            vni_last: Vni::MAX,
            reconcile_interval_ms: 500,
            leak_check_secs: 600,
            operation_keep_hours: 24,
            protected: BTreeSet::new(),
            external_networks: vec![],
        }
    }
}

impl Config {
    /// Everything that is wrong with it.
    #[must_use]
    pub fn validate(&self) -> Vec<ConfigError> {
        let mut errors = Vec::new();
        let mut check = |holds: bool, key: &str, detail: &str| {
            if !holds {
                errors.push(ConfigError::new(format!("resource.{key}"), detail));
            }
        };
        check(self.quarantine_secs <= QUARANTINE_SECS_MAX, "quarantine_secs", "must be at most 86400");
        let ttl = 1..=RESERVATION_TTL_SECS_MAX;
        check(ttl.contains(&self.reservation_ttl_secs), "reservation_ttl_secs", "must be 1 to 3600");
        check((1..=Vni::MAX).contains(&self.vni_first), "vni_first", "must be 1 to 16777215");
        let last = self.vni_first..=Vni::MAX;
        check(last.contains(&self.vni_last), "vni_last", "must be vni_first to 16777215");
        let interval = 10..=60_000;
        check(interval.contains(&self.reconcile_interval_ms), "reconcile_interval_ms", "must be 10 to 60000");
        check(self.operation_keep_hours >= 1, "operation_keep_hours", "must be at least 1");
        for (name, subnets) in self.external_networks() {
            for (at, subnet) in subnets.iter().enumerate() {
                let others: Vec<Cidr> = subnets[..at].iter().map(|other| other.cidr).collect();
                if let Err(wrong) = subnet.spec().validate(&others) {
                    check(false, "external_networks", &format!("{name}: {wrong}"));
                }
            }
        }
        errors
    }

    /// Each with its blocks.
    #[must_use]
    pub fn external_networks(&self) -> BTreeMap<Name, Vec<ExternalSubnet>> {
        let mut networks: BTreeMap<Name, Vec<ExternalSubnet>> = BTreeMap::new();
        for ExternalNetworkConfig { name, cidr, gateway, allocation } in &self.external_networks {
            let subnet = ExternalSubnet { cidr: *cidr, gateway: *gateway, allocation: allocation.clone() };
            networks.entry(name.clone()).or_default().push(subnet);
        }
        networks
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_errors_are_named_at_once() {
        assert_eq!(Config::default().validate(), vec![]);
        let block = |cidr: &str, gateway: &str| ExternalNetworkConfig {
            name: "public".parse().expect("a name"),
            cidr: cidr.parse().expect("a CIDR"),
            gateway: gateway.parse().expect("an address"),
            allocation: vec![],
        };
        let bad = Config {
            vni_first: 9,
            vni_last: 8,
            reservation_ttl_secs: 0,
            external_networks: vec![block("203.0.113.0/24", "203.0.113.1"), block("203.0.113.0/25", "203.0.113.2")],
            ..Config::default()
        };
        let keys: Vec<_> = bad.validate().into_iter().map(|e| e.key).collect();
        assert_eq!(keys, ["resource.reservation_ttl_secs", "resource.vni_last", "resource.external_networks"]);
    }
}
