//! What a floating IP shall stand for: a port, or an instance by the card that the outside can reach.

use super::find::{self, in_field};
use crate::{
    app::{App, instance},
    http::problem::ApiError,
    v1::view::floating_ip::{FloatingIpChange, FloatingIpCreate},
};
use domain::{ErrorKind, ExternalNetworkId, PortId, Problem, ProjectId, instance::Instance, network::FloatingTarget};
use std::net::IpAddr;

/// What the body names; none: it says nothing of a target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TargetAsked {
    Nothing,
    Port { key: String, fixed_ip: Option<IpAddr> },
    Instance { key: String, fixed_ip: Option<IpAddr> },
}

impl TargetAsked {
    #[must_use]
    pub fn of_create(body: &FloatingIpCreate, fixed_ip: Option<IpAddr>) -> Self {
        match (&body.port, &body.instance) {
            (Some(key), _) => Self::Port { key: key.clone(), fixed_ip },
            (None, Some(key)) => Self::Instance { key: key.clone(), fixed_ip },
            (None, None) => Self::Nothing,
        }
    }

    #[must_use]
    pub fn of_change(body: &FloatingIpChange, fixed_ip: Option<IpAddr>) -> Option<Self> {
        match (&body.port, &body.instance) {
            (Some(Some(key)), _) => Some(Self::Port { key: key.clone(), fixed_ip }),
            (_, Some(key)) => Some(Self::Instance { key: key.clone(), fixed_ip }),
            (Some(None), None) => Some(Self::Nothing),
            (None, None) => None,
        }
    }
}

pub async fn target(
    app: &App,
    project_id: ProjectId,
    external_network_id: ExternalNetworkId,
    asked: TargetAsked,
) -> Result<FloatingTarget, ApiError> {
    match asked {
        TargetAsked::Nothing => Ok(FloatingTarget::Nothing),
        TargetAsked::Port { key, fixed_ip } => {
            let port = in_field("/port", find::port(app, project_id, &key)).await?;
            Ok(FloatingTarget::Port { port_id: port.id, fixed_ip })
        }
        TargetAsked::Instance { key, fixed_ip } => {
            let instance = in_field("/instance", instance::find(app, project_id, &key)).await?;
            let port_id = reachable(app, &instance, external_network_id, fixed_ip).await?;
            Ok(FloatingTarget::Port { port_id, fixed_ip })
        }
    }
}

/// The first card with an IPv4 address (or with this address) whose network has a router to the external network; without one, the first
/// card with such an address: the resource-manager says what is missing.
async fn reachable(
    app: &App,
    instance: &Instance,
    external_network_id: ExternalNetworkId,
    fixed_ip: Option<IpAddr>,
) -> Result<PortId, ApiError> {
    let fits = |address: &IpAddr| fixed_ip.map_or(address.is_ipv4(), |wanted| *address == wanted);
    let cards: Vec<_> = instance.spec.nics.iter().filter(|nic| nic.addresses.iter().any(fits)).collect();
    let Some(first) = cards.first() else {
        let name = &instance.name;
        let (detail, hint) = if instance.spec.nics.is_empty() {
            (
                format!("instance {name} has no network card, so no address can stand for it"),
                format!("give it one: `iaasctl instance nic add {name} --network NETWORK`"),
            )
        } else {
            let which = fixed_ip.map_or_else(|| "IPv4 address".to_owned(), |ip| format!("card with the address {ip}"));
            (format!("instance {name} has no {which}"), format!("`iaasctl instance show {name}` shows its addresses"))
        };
        return Err(Problem::new(ErrorKind::InvalidState, "no_address", detail).with_hint(hint).into());
    };
    if cards.len() == 1 {
        return Ok(first.port_id);
    }
    let networks: Vec<_> = cards.iter().map(|nic| nic.network_id).collect();
    let routers = app.store().router_load_many_of_networks(&networks).await?;
    let leads_out = |nic: &&&domain::instance::Nic| {
        routers.iter().any(|r| r.network_id == nic.network_id && r.external_network_id == external_network_id)
    };
    Ok(cards.iter().find(leads_out).unwrap_or(first).port_id)
}
