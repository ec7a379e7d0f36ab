//! What on this host keeps its networks from working, or disturbs them, and what to do about it. It changes nothing.

use crate::{
    apply::rules::run_nft,
    config::Config,
    host::disturbance::{self, Noted},
    nft::forward::CHAIN,
};
use domain::Timestamp;
use serde_json::Value;
use std::fs;

/// The result of one check that found something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Instances have no network because of it; else it works, but somebody gets in the way.
    pub error: bool,
    pub what: String,
    pub hint: String,
}

/// Whether the host routes: `1` or `0`.
const FORWARDING: &str = "/proc/sys/net/ipv4/ip_forward";
/// Whether bridged packets pass the host's packet filter: `1` or `0`, absent without the kernel's module for it.
const BRIDGE_FILTER: &str = "/proc/sys/net/bridge/bridge-nf-call-iptables";

/// Makes all checks; empty when all is well.
#[must_use]
pub fn doctor(config: &Config) -> Vec<Finding> {
    let mut findings = Vec::new();
    let path = disturbance::file_beside(&config.port_socket);
    match disturbance::read(&path) {
        Ok(noted) => findings.extend(noted.iter().map(|noted| of_disturbance(noted, Timestamp::now()))),
        Err(error) => findings.push(Finding {
            error: false,
            what: format!("{} can't be read: {error}", path.display()),
            hint: "run it as root".into(),
        }),
    }
    let on = |path| fs::read_to_string(path).is_ok_and(|text| text.trim() == "1");
    let filtered = on(BRIDGE_FILTER) || (on(FORWARDING) && has_address(config));
    if filtered && !config.external.is_empty() {
        let listed = run_nft(&["-j", "list", "chains"]).ok().and_then(|text| serde_json::from_str(&text).ok());
        findings.extend(of_forward_chains(&listed.unwrap_or_default(), config));
    }
    findings
}

fn of_disturbance(noted: &Noted, now: Timestamp) -> Finding {
    let minutes = (now.0 - noted.last_at).max(0) / 60_000;
    let network = noted.network_id.map(|id| format!(" (the last one was network {id})")).unwrap_or_default();
    let times = if noted.count == 1 { "once".to_owned() } else { format!("{} times", noted.count) };
    Finding {
        error: false,
        what: format!(
            "somebody else changed {} {times}, last {minutes} min ago{network}; it was put back each time",
            noted.kind.what()
        ),
        hint: format!(
            "find out who does it, and have it leave them alone: usually it is {}",
            noted.kind.usual_suspect()
        ),
    }
}

/// Whether the host has an address on a bridge that leads to an external network, so that it may be the way out.
fn has_address(config: &Config) -> bool {
    let on_bridge = |interface: &nix::ifaddrs::InterfaceAddress| {
        let v4 = interface.address.is_some_and(|address| address.as_sockaddr_in().is_some());
        v4 && config.external.values().any(|bridge| *bridge == interface.interface_name)
    };
    nix::ifaddrs::getifaddrs().is_ok_and(|mut interfaces| interfaces.any(|interface| on_bridge(&interface)))
}

/// Chains of others that drop what passes between an uplink and the outside. Where Docker's chain for others' rules is, the agent keeps its own
/// there ([`crate::nft::forward`]).
fn of_forward_chains(listed: &Value, config: &Config) -> Option<Finding> {
    let chains = listed["nftables"].as_array().into_iter().flatten().map(|object| &object["chain"]);
    let chains: Vec<&Value> = chains.collect();
    let ours = |dropping: &Value| {
        let same = |chain: &&&Value| (&chain["family"], &chain["table"]) == (&dropping["family"], &dropping["table"]);
        chains.iter().filter(same).any(|chain| chain["name"] == CHAIN)
    };
    let dropping = chains.iter().filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop");
    let dropping = dropping.filter(|chain| !ours(chain));
    let names: Vec<String> = dropping
        .filter_map(|chain| {
            Some(format!("{} {} {}", chain["family"].as_str()?, chain["table"].as_str()?, chain["name"].as_str()?))
        })
        .collect();
    let bridges: Vec<&str> = config.external.values().map(String::as_str).collect();
    let bridge = *bridges.first()?;
    (!names.is_empty()).then(|| Finding {
        error: true,
        what: format!(
            "the host's packet filter drops what passes the bridge {}: {}",
            bridges.join(", "),
            names.join(", ")
        ),
        hint: format!(
            "let packets of the bridge pass in that chain, as with `iptables -I FORWARD -i {bridge} -j ACCEPT` and \
             `iptables -I FORWARD -o {bridge} -j ACCEPT`; if it only bridges, `sysctl -w net.bridge.bridge-nf-call-iptables=0` will do"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::disturbance::Disturbance;
    use std::collections::BTreeMap;

    #[test]
    fn each_kind_of_disturbance_is_told_with_what_to_do() {
        for kind in Disturbance::ALL {
            let noted = Noted { kind, count: 3, last_at: 0, network_id: None };
            let Finding { error, what, hint } = of_disturbance(&noted, Timestamp(120_000));
            assert!(!error && what.contains(kind.what()) && what.contains("3 times, last 2 min ago"), "{what}");
            assert!(hint.contains(kind.usual_suspect()), "{hint}");
        }
    }

    #[test]
    fn a_policy_that_drops_forwarded_packets_is_named_unless_docker_lets_ours_pass() {
        let config = Config { external: BTreeMap::from([("public".into(), "br-ext".into())]), ..Config::default() };
        let listed = |policy: &str| {
            serde_json::json!({"nftables": [{"metainfo": {}}, {"chain": {"family": "ip", "table": "filter", "name": "FORWARD",
                "hook": "forward", "prio": 0, "policy": policy}}]})
        };
        let found = of_forward_chains(&listed("drop"), &config).expect("found");
        assert!(
            found.error && found.what.contains("ip filter FORWARD") && found.hint.contains("-i br-ext"),
            "{found:?}"
        );
        let mut docker = listed("drop");
        let users = serde_json::json!({"chain": {"family": "ip", "table": "filter", "name": "DOCKER-USER"}});
        docker["nftables"].as_array_mut().expect("an array").push(users);
        assert_eq!(of_forward_chains(&docker, &config), None);
        assert_eq!(of_forward_chains(&listed("accept"), &config), None);
        assert_eq!(of_forward_chains(&listed("drop"), &Config::default()), None);
        assert_eq!(of_forward_chains(&Value::Null, &config), None);
    }
}
