//! Network cards: what is asked for, checked and worded for the resource-manager. Pure.

use domain::{
    InstanceId, NetworkId, PortId, Problem, ProjectId, SecurityGroupId, instance::Nic, network::FixedIpRequest,
};
use proto::{cluster::v1 as pb, convert::parse, resource::v1 as resource};

/// A card that is asked for, well-formed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Card {
    pub port_id: PortId,
    pub what: CardPort,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CardPort {
    /// A port of its own is taken.
    Existing,
    /// A port is made with its instance.
    New {
        network_id: NetworkId,
        /// Empty: as the network has subnets.
        fixed_ips: Vec<FixedIpRequest>,
        /// None: the project's default group.
        security_group_ids: Option<Vec<SecurityGroupId>>,
        /// None: chosen.
        mac: Option<domain::network::MacAddr>,
    },
}

pub fn parse_card(nic: &pb::NicRequest) -> Result<Card, Problem> {
    let port_id = parse("nic.port_id", &nic.port_id)?;
    if nic.existing {
        return Ok(Card { port_id, what: CardPort::Existing });
    }
    let asked = |json: &String| {
        serde_json::from_str::<FixedIpRequest>(json).map_err(|e| Problem::invalid("nic.fixed_ips", e.to_string()))
    };
    let groups = nic.security_group_ids.iter().map(|id| Ok(parse("nic.security_group_ids", id)?));
    let groups = groups.collect::<Result<Vec<SecurityGroupId>, Problem>>()?;
    Ok(Card {
        port_id,
        what: CardPort::New {
            network_id: parse("nic.network_id", &nic.network_id)?,
            fixed_ips: nic.fixed_ip_request_json.iter().map(asked).collect::<Result<_, _>>()?,
            security_group_ids: nic.security_groups_given.then_some(groups),
            mac: None,
        },
    })
}

/// The card that a row's [`Nic`] stands for, asked for anew: same port, same MAC, same addresses.
#[must_use]
pub fn card_again(nic: &Nic, existing: bool) -> Card {
    let what = if existing {
        CardPort::Existing
    } else {
        CardPort::New {
            network_id: nic.network_id,
            fixed_ips: nic.addresses.iter().copied().map(FixedIpRequest::Address).collect(),
            security_group_ids: nic.security_group_ids.clone(),
            mac: Some(nic.mac),
        }
    };
    Card { port_id: nic.port_id, what }
}

#[must_use]
pub fn reservation(
    card: &Card,
    instance_id: InstanceId,
    project_id: ProjectId,
    hostname: &str,
) -> resource::PortReservation {
    let base = resource::PortReservation {
        port_id: card.port_id.to_string(),
        instance_id: instance_id.to_string(),
        project_id: project_id.to_string(),
        hostname: hostname.to_owned(),
        ..resource::PortReservation::default()
    };
    match &card.what {
        CardPort::Existing => resource::PortReservation { existing: true, ..base },
        CardPort::New { network_id, fixed_ips, security_group_ids, mac } => resource::PortReservation {
            network_id: network_id.to_string(),
            // Plain data with text keys is always JSON.
            fixed_ip_request_json: fixed_ips.iter().filter_map(|asked| serde_json::to_string(asked).ok()).collect(),
            security_groups_given: security_group_ids.is_some(),
            security_group_ids: security_group_ids.iter().flatten().map(ToString::to_string).collect(),
            mac: mac.map(|m| m.to_string()).unwrap_or_default(),
            ..base
        },
    }
}

/// As DNS has it.
#[must_use]
pub fn hostname(name: &domain::Name) -> String {
    name.as_str().to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{SubnetId, network::MacAddr};

    #[test]
    fn a_card_is_understood_whole_or_says_what_is_wrong() {
        let (port, network, group) = (PortId::new(), NetworkId::new(), SecurityGroupId::new());
        let subnet = SubnetId::new();
        let asked = FixedIpRequest::AnyOf(subnet);
        let nic = pb::NicRequest {
            port_id: port.to_string(),
            existing: false,
            network_id: network.to_string(),
            fixed_ip_request_json: vec![serde_json::to_string(&asked).expect("JSON")],
            security_groups_given: true,
            security_group_ids: vec![group.to_string()],
        };
        let card = parse_card(&nic).expect("well-formed");
        let wanted = CardPort::New {
            network_id: network,
            fixed_ips: vec![asked],
            security_group_ids: Some(vec![group]),
            mac: None,
        };
        assert_eq!(card, Card { port_id: port, what: wanted });
        let (id, project) = (InstanceId::new(), ProjectId::new());
        let sent = reservation(&card, id, project, "web");
        assert_eq!(
            (sent.fixed_ip_request_json, sent.security_group_ids),
            (nic.fixed_ip_request_json.clone(), nic.security_group_ids.clone())
        );
        assert!(sent.security_groups_given && !sent.existing && sent.mac.is_empty());

        let existing = pb::NicRequest { existing: true, port_id: port.to_string(), ..pb::NicRequest::default() };
        assert_eq!(parse_card(&existing).expect("well-formed").what, CardPort::Existing);
        for bad in [
            pb::NicRequest { port_id: "x".into(), ..nic.clone() },
            pb::NicRequest { network_id: String::new(), ..nic.clone() },
            pb::NicRequest { fixed_ip_request_json: vec!["{}".into()], ..nic.clone() },
            pb::NicRequest { security_group_ids: vec!["x".into()], ..nic.clone() },
        ] {
            parse_card(&bad).expect_err("malformed");
        }
    }

    #[test]
    fn what_is_asked_for_anew_is_what_was_promised() {
        let group = SecurityGroupId::new();
        let nic = Nic {
            port_id: PortId::new(),
            network_id: NetworkId::new(),
            mac: MacAddr::local([1, 2, 3, 4, 5]),
            addresses: vec![[10, 0, 0, 5].into()],
            security_group_ids: Some(vec![group]),
        };
        let sent = reservation(&card_again(&nic, false), InstanceId::new(), ProjectId::new(), "web");
        assert_eq!((sent.mac, sent.port_id), (nic.mac.to_string(), nic.port_id.to_string()));
        assert_eq!(sent.security_group_ids, [group.to_string()]);
        assert_eq!(
            sent.fixed_ip_request_json,
            [serde_json::to_string(&FixedIpRequest::Address([10, 0, 0, 5].into())).expect("JSON")]
        );
        assert!(reservation(&card_again(&nic, true), InstanceId::new(), ProjectId::new(), "web").existing);
    }
}
