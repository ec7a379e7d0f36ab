//! The network cards that are asked for with an instance, or later. What they mean is settled here; new ports' ids are minted with the
//! request's other ids, so that a repeat means the same ports.

use crate::{
    app::{
        App,
        instance_check::check_key,
        network::{
            check,
            find::{self, in_field},
        },
    },
    failure::ApiError,
    v1::view::nic::NicRequest,
};
use domain::{Problem, ProjectId, Violations, limits::NICS_PER_INSTANCE, network::PortState, validate};
use proto::cluster::v1 as pb;
use std::net::IpAddr;
use uuid::Uuid;

/// The network that an instance gets a card of when none is said.
const USUAL: &str = "default";

/// The form of the cards in a create. `count`: of the instances.
pub fn check_all(violations: &mut Violations, networks: Option<&Vec<NicRequest>>, count: usize) {
    let networks = networks.map_or(&[][..], Vec::as_slice);
    validate::instance::nic_count(violations, "/networks", networks.len());
    for (at, nic) in networks.iter().enumerate().take(NICS_PER_INSTANCE) {
        let at = format!("/networks/{at}");
        check_one(violations, &at, nic);
        if count > 1 {
            violations.unless(nic.port.is_none(), &format!("{at}/port"), || {
                "one port can't be the card of several instances: name a network".to_owned()
            });
            let own = nic.fixed_ips.iter().position(|text| text.parse::<IpAddr>().is_ok());
            if let Some(place) = own {
                violations.add(
                    format!("{at}/fixed_ips/{place}"),
                    "one address can't be had by several instances: name a subnet, or nothing",
                );
            }
        }
    }
}

/// The form of one card. `at`: the pointer to it.
pub fn check_one(violations: &mut Violations, at: &str, nic: &NicRequest) {
    match (&nic.network, &nic.port) {
        (Some(network), None) => check_key(violations, &format!("{at}/network"), network),
        (None, Some(port)) => {
            check_key(violations, &format!("{at}/port"), port);
            let plain = nic.fixed_ips.is_empty() && nic.security_groups.is_none();
            violations.unless(plain, &format!("{at}/port"), || {
                "a port has its addresses and security groups already: give them with a network alone".to_owned()
            });
        }
        (Some(_), Some(_)) => violations.add(format!("{at}/port"), "give a network or a port, not both"),
        (None, None) => violations.add(format!("{at}/network"), "give a network or a port"),
    }
    check::fixed_ips(violations, &format!("{at}/fixed_ips"), &nic.fixed_ips);
    check::security_groups(violations, &format!("{at}/security_groups"), nic.security_groups.as_ref());
}

/// The form of a card that is attached later.
pub fn check(nic: &NicRequest) -> Result<(), Problem> {
    let mut violations = Violations::default();
    check_one(&mut violations, "", nic);
    violations.finish()
}

/// Ports to mint for each instance: one a card. Without a word about networks it may get one.
#[must_use]
pub fn ports_each(networks: Option<&Vec<NicRequest>>) -> usize {
    networks.map_or(1, Vec::len)
}

/// The cards of a new instance; the ports' ids are still to be filled in (`with_ports`).
pub async fn resolve_all(
    app: &App,
    project_id: ProjectId,
    networks: Option<&Vec<NicRequest>>,
) -> Result<Vec<pb::NicRequest>, ApiError> {
    let Some(networks) = networks else {
        let usual = app.store().network_find_by_name(project_id, USUAL).await?;
        return Ok(usual
            .map(|network| pb::NicRequest { network_id: network.id.to_string(), ..pb::NicRequest::default() })
            .into_iter()
            .collect());
    };
    let mut nics = Vec::with_capacity(networks.len());
    for (at, nic) in networks.iter().enumerate() {
        nics.push(resolve(app, project_id, &format!("/networks/{at}"), nic).await?);
    }
    let mut taken: Vec<&str> = nics.iter().filter(|nic| nic.existing).map(|nic| nic.port_id.as_str()).collect();
    taken.sort_unstable();
    if taken.windows(2).any(|pair| pair[0] == pair[1]) {
        return Err(Problem::invalid("/networks", "the same port is named twice").into());
    }
    Ok(nics)
}

/// One card. A port that exists is named; a new one's id is still to be filled in.
pub async fn resolve(app: &App, project_id: ProjectId, at: &str, nic: &NicRequest) -> Result<pb::NicRequest, ApiError> {
    if let Some(key) = &nic.port {
        let field = format!("{at}/port");
        let port = in_field(&field, find::port(app, project_id, key)).await?;
        if port.owner.is_some() || port.state != PortState::Active {
            let problem = Problem::new(
                domain::ErrorKind::InvalidState,
                "port_attached",
                format!("port {key} is the card of an instance already"),
            );
            let problem = problem.with_field(field, "the card of an instance already");
            return Err(problem.with_hint("detach it first, or name its network to get a new port").into());
        }
        return Ok(pb::NicRequest {
            port_id: port.id.to_string(),
            existing: true,
            network_id: port.network_id.to_string(),
            ..pb::NicRequest::default()
        });
    }
    let key = nic.network.as_deref().unwrap_or_default();
    let network = in_field(&format!("{at}/network"), find::network(app, project_id, key)).await?;
    let asked = find::fixed_ips(app, network.id, &format!("{at}/fixed_ips"), &nic.fixed_ips).await?;
    let groups = nic.security_groups.as_deref().unwrap_or_default();
    let groups = find::security_groups(app, project_id, &format!("{at}/security_groups"), groups).await?;
    let fixed_ip_request_json = asked
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::internal("an address doesn't serialise", &error))?;
    Ok(pb::NicRequest {
        port_id: String::new(),
        existing: false,
        network_id: network.id.to_string(),
        fixed_ip_request_json,
        security_groups_given: nic.security_groups.is_some(),
        security_group_ids: groups.iter().map(ToString::to_string).collect(),
    })
}

/// The cards of one instance, with these ids for the new ports.
#[must_use]
pub fn with_ports(nics: &[pb::NicRequest], ids: &[Uuid]) -> Vec<pb::NicRequest> {
    let filled = nics.iter().zip(ids).map(|(nic, id)| match nic.existing {
        true => nic.clone(),
        false => pb::NicRequest { port_id: id.to_string(), ..nic.clone() },
    });
    filled.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wrong_fields(networks: serde_json::Value, count: usize) -> Vec<String> {
        let networks: Vec<NicRequest> = serde_json::from_value(networks).expect("of the right shape");
        let mut violations = Violations::default();
        check_all(&mut violations, Some(&networks), count);
        violations.finish().err().map(|p| p.errors.into_iter().map(|e| e.field).collect()).unwrap_or_default()
    }

    #[test]
    fn cards_that_make_no_sense_are_named() {
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

    #[test]
    fn new_ports_get_the_ids_of_the_request() {
        let taken = pb::NicRequest { existing: true, port_id: "mine".to_owned(), ..pb::NicRequest::default() };
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let filled = with_ports(&[pb::NicRequest::default(), taken], &ids);
        assert_eq!((filled[0].port_id.as_str(), filled[1].port_id.as_str()), (ids[0].to_string().as_str(), "mine"));
    }
}
