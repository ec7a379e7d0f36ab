//! What a request may say of an instance's NICs. Pure. Every violation is named at once.

use super::{check_key, network};
use crate::app::instance_nic;
use api_types::NicRequest;
use domain::{Problem, Violations, limits::NICS_PER_INSTANCE, validate};
use std::net::IpAddr;

/// Checks the NICs of a create for `count` instances.
pub fn check_all(
    violations: &mut Violations,
    networks: Option<Vec<NicRequest>>,
    count: usize,
) -> Option<Vec<instance_nic::NicRequest>> {
    let networks = networks?;
    validate::instance::nic_count(violations, "/networks", networks.len());
    for (at, nic) in networks.iter().enumerate().take(NICS_PER_INSTANCE) {
        let at = format!("/networks/{at}");
        check_one(violations, &at, nic);
        if count > 1 {
            violations.unless(nic.port.is_none(), &format!("{at}/port"), || {
                "one port can't be the NIC of several instances: name a network".to_owned()
            });
            let own = nic.fixed_ips.iter().position(|text| text.parse::<IpAddr>().is_ok());
            if let Some(place) = own {
                violations.add(
                    format!("{at}/fixed_ips/{place}"),
                    "several instances can't have the same address: name a subnet, or nothing",
                );
            }
        }
    }
    Some(networks.into_iter().map(request).collect())
}

/// Checks one NIC. `at` is the pointer to it.
fn check_one(violations: &mut Violations, at: &str, nic: &NicRequest) {
    match (&nic.network, &nic.port) {
        (Some(network), None) => check_key(violations, &format!("{at}/network"), network),
        (None, Some(port)) => {
            check_key(violations, &format!("{at}/port"), port);
            let plain = nic.fixed_ips.is_empty() && nic.security_groups.is_none();
            violations.unless(plain, &format!("{at}/port"), || {
                "a port already has its addresses and security groups: give them only with a network".to_owned()
            });
        }
        (Some(_), Some(_)) => violations.add(format!("{at}/port"), "give a network or a port, not both"),
        (None, None) => violations.add(format!("{at}/network"), "give a network or a port"),
    }
    network::fixed_ips(violations, &format!("{at}/fixed_ips"), &nic.fixed_ips);
    network::security_groups(violations, &format!("{at}/security_groups"), nic.security_groups.as_ref());
}

/// Checks a NIC that is attached later.
pub fn check(nic: NicRequest) -> Result<instance_nic::NicRequest, Problem> {
    let mut violations = Violations::default();
    check_one(&mut violations, "", &nic);
    violations.finish()?;
    Ok(request(nic))
}

/// What a NIC means whose form was checked.
fn request(nic: NicRequest) -> instance_nic::NicRequest {
    let NicRequest { network, fixed_ips, security_groups, port } = nic;
    match port {
        Some(port) => instance_nic::NicRequest::Port(port),
        None => instance_nic::NicRequest::Network { network: network.unwrap_or_default(), fixed_ips, security_groups },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_fields(networks: serde_json::Value, count: usize) -> Vec<String> {
        let networks: Vec<NicRequest> = serde_json::from_value(networks).expect("of the right shape");
        let mut violations = Violations::default();
        check_all(&mut violations, Some(networks), count);
        violations.finish().err().map(|p| p.errors.into_iter().map(|e| e.field).collect()).unwrap_or_default()
    }

    #[test]
    fn nics_that_make_no_sense_are_named() {
        use serde_json::json;
        let many: Vec<_> = (0..17).map(|_| json!({"network": "blue"})).collect();
        for (networks, count, fields) in [
            (json!([{"network": "blue", "fixed_ips": ["10.0.0.5", "inside"]}, {"port": "p"}]), 1, vec![]),
            (json!([]), 5, vec![]),
            (json!([{}]), 1, vec!["/networks/0/network"]),
            (json!([{"network": "blue", "port": "p"}]), 1, vec!["/networks/0/port"]),
            (json!([{"network": "blue"}, {"port": "p", "fixed_ips": ["10.0.0.5"]}]), 1, vec!["/networks/1/port"]),
            (json!([{"port": "p", "security_groups": []}]), 1, vec!["/networks/0/port"]),
            (json!([{"port": "p"}]), 2, vec!["/networks/0/port"]),
            (json!([{"network": "blue", "fixed_ips": ["inside", "fd00::5"]}]), 2, vec!["/networks/0/fixed_ips/1"]),
            (json!([{"network": "", "fixed_ips": [""]}]), 1, vec!["/networks/0/network", "/networks/0/fixed_ips/0"]),
            (json!(many), 1, vec!["/networks"]),
        ] {
            assert_eq!(wrong_fields(networks.clone(), count), fields, "{networks}");
        }
    }
}
