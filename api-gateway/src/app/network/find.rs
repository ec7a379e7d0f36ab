//! The object behind an id or a name. An object of another project doesn't exist for the caller.

use crate::{
    app::{App, catalog::shown},
    failure::ApiError,
};
use domain::{
    ExternalNetworkId, FloatingIpId, NetworkId, PeeringId, PortId, Problem, ProjectId, RouterId, SecurityGroupId,
    SubnetId,
    network::{ExternalNetwork, FixedIpRequest, FloatingIp, Network, Peering, Port, Router, SecurityGroup, Subnet},
};
use std::net::IpAddr;
use store::Page;

macro_rules! finders {
    ($($kind:literal: fn $name:ident -> $object:ident by $id:ident: $by_id:ident, $by_name:ident;)+) => {$(
        pub async fn $name(app: &App, project_id: ProjectId, key: &str) -> Result<$object, ApiError> {
            let found = match key.parse::<$id>() {
                Ok(id) => app.store().$by_id(id).await?.filter(|found| found.project_id == project_id),
                Err(_) => app.store().$by_name(project_id, key).await?,
            };
            found.ok_or_else(|| Problem::not_found($kind, shown(key)).into())
        }
    )+};
}
finders! {
    "network": fn network -> Network by NetworkId: network_find, network_find_by_name;
    "port": fn port -> Port by PortId: port_find, port_find_by_name;
    "router": fn router -> Router by RouterId: router_find, router_find_by_name;
    "security group": fn security_group -> SecurityGroup by SecurityGroupId:
        security_group_find, security_group_find_by_name;
    "peering": fn peering -> Peering by PeeringId: peering_find, peering_find_by_name;
}

/// The subnet behind an id, or behind a name that only one subnet of the project has: names of subnets are unique only in their network.
pub async fn subnet(app: &App, project_id: ProjectId, key: &str) -> Result<Subnet, ApiError> {
    let mut found: Vec<Subnet> = match key.parse::<SubnetId>() {
        Ok(id) => app.store().subnet_find(id).await?.into_iter().filter(|s| s.project_id == project_id).collect(),
        Err(_) => app.store().subnet_list_by_name(project_id, key).await?,
    };
    match (found.len(), found.pop()) {
        (1, Some(only)) => Ok(only),
        (0, _) | (_, None) => Err(Problem::not_found("subnet", shown(key)).into()),
        (several, Some(_)) => {
            let detail = format!("{several} subnets of the project are named `{}`", shown(key));
            let problem = Problem::new(domain::ErrorKind::InvalidArgument, "ambiguous_name", detail);
            Err(problem.with_hint("use the id instead: `iaasctl subnet list` shows the ids").into())
        }
    }
}

/// The floating IP behind an id or an address.
pub async fn floating_ip(app: &App, project_id: ProjectId, key: &str) -> Result<FloatingIp, ApiError> {
    let found = match (key.parse::<FloatingIpId>(), key.parse::<IpAddr>()) {
        (Ok(id), _) => app.store().floating_ip_find(id).await?.filter(|found| found.project_id == project_id),
        (Err(_), Ok(address)) => app.store().floating_ip_find_by_address(project_id, address).await?,
        (Err(_), Err(_)) => None,
    };
    found.ok_or_else(|| Problem::not_found("floating ip", shown(key)).into())
}

/// The external network behind an id or a name. Every project sees them.
pub async fn external_network(app: &App, key: &str) -> Result<ExternalNetwork, ApiError> {
    let found = match key.parse::<ExternalNetworkId>() {
        Ok(id) => app.store().external_network_find(id).await?,
        Err(_) => app.store().external_network_find_by_name(key).await?,
    };
    found.ok_or_else(|| Problem::not_found("external network", shown(key)).into())
}

/// The external network that is meant when none is named: the only one, else the one named `public`.
const DEFAULT_NAME: &str = "public";

pub async fn external_network_or_default(app: &App, key: Option<&str>) -> Result<ExternalNetwork, ApiError> {
    if let Some(key) = key {
        return in_field("/external_network", external_network(app, key)).await;
    }
    let mut all = app.store().external_network_list(Page::first(2)).await?;
    match (all.pop(), all.is_empty()) {
        (Some(only), true) => Ok(only),
        (Some(_), false) => match app.store().external_network_find_by_name(DEFAULT_NAME).await? {
            Some(default) => Ok(default),
            None => {
                let detail = "there are several external networks and none is named public: name one";
                let problem = Problem::invalid("/external_network", detail);
                Err(problem.with_hint("`iaasctl external-network list` shows them").into())
            }
        },
        (None, _) => {
            let problem =
                Problem::invalid_state("this cloud has no external network, so its networks can't reach the outside");
            Err(problem.with_hint("an administrator can create one: `iaasctl external-network create`").into())
        }
    }
}

/// The security groups that these keys mean.
pub async fn security_groups(
    app: &App,
    project_id: ProjectId,
    field: &str,
    keys: &[String],
) -> Result<Vec<SecurityGroupId>, ApiError> {
    let mut ids = Vec::with_capacity(keys.len());
    for (at, key) in keys.iter().enumerate() {
        let group = in_field(&format!("{field}/{at}"), security_group(app, project_id, key)).await?;
        if !ids.contains(&group.id) {
            ids.push(group.id);
        }
    }
    Ok(ids)
}

/// Addresses, or subnets of this network (names of subnets are unique only in their network).
pub async fn fixed_ips(
    app: &App,
    network_id: NetworkId,
    field: &str,
    requested: &[String],
) -> Result<Vec<FixedIpRequest>, ApiError> {
    let named = requested.iter().any(|text| text.parse::<IpAddr>().is_err());
    let subnets = if named { app.store().subnet_list_of_network(network_id).await? } else { Vec::new() };
    let one = |(at, text): (usize, &String)| match text.parse::<IpAddr>() {
        Ok(address) => Ok(FixedIpRequest::Address(address)),
        Err(_) => {
            let id = text.parse::<SubnetId>();
            let found = subnets.iter().find(|s| id.as_ref().map_or(s.name.as_str() == text, |id| s.id == *id));
            let missing = || {
                Problem::not_found("subnet", shown(text))
                    .with_field(format!("{field}/{at}"), "neither an address nor a subnet of the network")
            };
            found.map(|subnet| FixedIpRequest::AnyOf(subnet.id)).ok_or_else(missing)
        }
    };
    Ok(requested.iter().enumerate().map(one).collect::<Result<_, _>>()?)
}

/// Adds to a refusal which field of the request named what doesn't exist.
pub async fn in_field<T>(field: &str, found: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    found.await.map_err(|error| {
        let problem = error.into_problem();
        if problem.kind != domain::ErrorKind::NotFound || !problem.errors.is_empty() {
            return problem.into();
        }
        let detail = problem.detail.clone();
        problem.with_field(field, detail).into()
    })
}
