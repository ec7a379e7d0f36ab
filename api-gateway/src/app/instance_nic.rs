//! The NICs that are requested with an instance, or later. What they mean is settled here; new ports' ids are minted with the request's other
//! ids, so that a repeat means the same ports.

use crate::{
    app::{
        App,
        network::find::{self, in_field},
    },
    failure::ApiError,
};
use domain::{Problem, ProjectId, network::PortState};
use proto::cluster::v1 as pb;
use uuid::Uuid;

/// The network that an instance gets a NIC on when the request names none.
const DEFAULT_NETWORK: &str = "default";

/// A NIC whose form was checked. Its keys (ids or names) are still to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NicRequest {
    /// The NIC gets this existing port.
    Port(String),
    /// The NIC gets a new port of the network, which is deleted with the instance.
    Network {
        network: String,
        /// Addresses, or subnets of which any free address is taken.
        fixed_ips: Vec<String>,
        /// None: the project's group `default`.
        security_groups: Option<Vec<String>>,
    },
}

/// How many ports to mint for each instance: one for each NIC. A request that says nothing of networks may get one.
#[must_use]
pub fn ports_each(networks: Option<&Vec<NicRequest>>) -> usize {
    networks.map_or(1, Vec::len)
}

/// The NICs of a new instance; the ports' ids are still to be filled in (`with_ports`).
pub async fn resolve_all(
    app: &App,
    project_id: ProjectId,
    networks: Option<&Vec<NicRequest>>,
) -> Result<Vec<pb::NicRequest>, ApiError> {
    let Some(networks) = networks else {
        let default = app.store().network_find_by_name(project_id, DEFAULT_NETWORK).await?;
        return Ok(default
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

/// Looks one NIC up. A port that exists is named; a new one's id is still to be filled in.
pub async fn resolve(app: &App, project_id: ProjectId, at: &str, nic: &NicRequest) -> Result<pb::NicRequest, ApiError> {
    let (key, fixed_ips, security_groups) = match nic {
        NicRequest::Port(key) => return resolve_port(app, project_id, &format!("{at}/port"), key).await,
        NicRequest::Network { network, fixed_ips, security_groups } => (network, fixed_ips, security_groups),
    };
    let network = in_field(&format!("{at}/network"), find::network(app, project_id, key)).await?;
    let requested = find::fixed_ips(app, network.id, &format!("{at}/fixed_ips"), fixed_ips).await?;
    let groups = security_groups.as_deref().unwrap_or_default();
    let groups = find::security_groups(app, project_id, &format!("{at}/security_groups"), groups).await?;
    let fixed_ip_request_json = requested
        .iter()
        .map(serde_json::to_string)
        .collect::<Result<_, _>>()
        .map_err(|error| ApiError::internal("an address doesn't serialise", &error))?;
    Ok(pb::NicRequest {
        port_id: String::new(),
        existing: false,
        network_id: network.id.to_string(),
        fixed_ip_request_json,
        security_groups_given: security_groups.is_some(),
        security_group_ids: groups.iter().map(ToString::to_string).collect(),
        mac: String::new(),
    })
}

/// A NIC with a port that exists.
async fn resolve_port(app: &App, project_id: ProjectId, field: &str, key: &str) -> Result<pb::NicRequest, ApiError> {
    let port = in_field(field, find::port(app, project_id, key)).await?;
    if port.owner.is_some() || port.state != PortState::Active {
        let problem = Problem::new(
            domain::ErrorKind::InvalidState,
            "port_attached",
            format!("port {key} is already the NIC of an instance"),
        );
        let problem = problem.with_field(field, "already the NIC of an instance");
        return Err(problem.with_hint("detach it first, or name its network to get a new port").into());
    }
    Ok(pb::NicRequest {
        port_id: port.id.to_string(),
        existing: true,
        network_id: port.network_id.to_string(),
        ..pb::NicRequest::default()
    })
}

/// The NICs of one instance, with these ids for the new ports.
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

    #[test]
    fn new_ports_get_the_ids_of_the_request() {
        let taken = pb::NicRequest { existing: true, port_id: "mine".to_owned(), ..pb::NicRequest::default() };
        let ids = [Uuid::from_u128(1), Uuid::from_u128(2)];
        let filled = with_ports(&[pb::NicRequest::default(), taken], &ids);
        assert_eq!((filled[0].port_id.as_str(), filled[1].port_id.as_str()), (ids[0].to_string().as_str(), "mine"));
    }
}
