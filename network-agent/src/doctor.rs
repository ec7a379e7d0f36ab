//! What on this host keeps its networks from working, or disturbs them, and what to do about it. It changes nothing.

use crate::{
    apply::rules::run_nft,
    config::Config,
    host::disturbance::{self, Noted},
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
    let filtered = fs::read_to_string(BRIDGE_FILTER).is_ok_and(|text| text.trim() == "1");
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

/// Chains of others that drop what is bridged between an uplink and the external network.
fn of_forward_chains(listed: &Value, config: &Config) -> Option<Finding> {
    let chains = listed["nftables"].as_array().into_iter().flatten().map(|object| &object["chain"]);
    let dropping = chains.filter(|chain| chain["hook"] == "forward" && chain["policy"] == "drop");
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
            "the host's packet filter drops what passes the bridge {}: {} (Docker sets that policy)",
            bridges.join(", "),
            names.join(", ")
        ),
        hint: format!(
            "let bridged packets pass: `sysctl -w net.bridge.bridge-nf-call-iptables=0`, or with Docker \
             `iptables -I DOCKER-USER -i {bridge} -o {bridge} -j ACCEPT`"
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
    fn a_policy_that_drops_bridged_packets_is_named() {
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
        assert_eq!(of_forward_chains(&listed("accept"), &config), None);
        assert_eq!(of_forward_chains(&listed("drop"), &Config::default()), None);
        assert_eq!(of_forward_chains(&Value::Null, &config), None);
    }
}
