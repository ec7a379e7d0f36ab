//! NICs: how they are requested of the resource-manager, and how one more is attached to an instance that exists. Its port is
//! reserved before the change commits, and released when it certainly didn't.

use crate::manager::Manager;
use domain::{
    ErrorKind, InstanceId, NetworkId, Problem, ProjectId,
    instance::{Instance, Nic, NicRequest, PortRequest, PortReservation},
    network::{FixedIpRequest, MacAddr},
};
use operation::read_problem;
use service_kit::context::CallContext;

/// The request for a NIC that an instance has already: same port, same MAC, same addresses. `existing`: the port stands.
#[must_use]
pub fn request_again(nic: &Nic, existing: bool) -> NicRequest {
    let port = if existing {
        PortRequest::Existing
    } else {
        PortRequest::New {
            network_id: nic.network_id,
            fixed_ips: nic.addresses.iter().copied().map(FixedIpRequest::Address).collect(),
            security_group_ids: nic.security_group_ids.clone(),
            mac: Some(nic.mac),
        }
    };
    NicRequest { port_id: nic.port_id, port }
}

#[must_use]
pub fn port_reservation(
    nic: NicRequest,
    instance_id: InstanceId,
    project_id: ProjectId,
    hostname: &str,
) -> PortReservation {
    PortReservation { nic, instance_id, project_id, hostname: hostname.to_owned() }
}

/// The instance's name as DNS has it.
#[must_use]
pub fn hostname(name: &domain::Name) -> String {
    name.as_str().to_ascii_lowercase()
}

/// The NIC as far as it is known before its port is reserved: enough to decide whether the change is allowed at all.
#[must_use]
pub fn expected_nic(request: &NicRequest) -> Nic {
    let network_id = match &request.port {
        PortRequest::Existing => NetworkId(uuid::Uuid::nil()),
        PortRequest::New { network_id, .. } => *network_id,
    };
    Nic { port_id: request.port_id, network_id, mac: MacAddr([0; 6]), addresses: vec![], security_group_ids: None }
}

/// Reserves the port (in a dry run: checks that it could be) and fills in the new NIC, which is the last of `next`.
pub(super) async fn reserve(
    manager: &Manager,
    context: &CallContext,
    request: &NicRequest,
    next: &mut Instance,
) -> Result<(), Problem> {
    if let Some(port) = manager.store.port_find(request.port_id).await.map_err(read_problem)?
        && port.owner.is_some_and(|o| o.instance_id == next.id)
        && port.expires_at.is_none()
    {
        // The host hasn't proved yet that the NIC is detached; until then the port is about to be freed, not to be taken.
        return Err(Problem::invalid_state(format!("port {} is still being detached from {}", port.id, next.name))
            .with_hint("try again when the instance has settled"));
    }
    let ports = vec![port_reservation(request.clone(), next.id, next.project_id, &hostname(&next.name))];
    let nics = if context.dry_run {
        manager.clients.resource.dry_run(context, ports).await?
    } else {
        manager.clients.resource.reserve(ports).await?
    };
    let (Some(last), Some(nic)) = (next.spec.nics.last_mut(), nics.into_iter().next()) else {
        return Err(Problem::internal());
    };
    *last = nic;
    Ok(())
}

/// Releases the port of a NIC whose change failed. Where it isn't certain that nothing was committed, the reservation expires by itself.
pub(super) async fn release(manager: &Manager, instance_id: InstanceId, request: &NicRequest, problem: &Problem) {
    if matches!(problem.kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Internal) {
        return;
    }
    let port = match manager.store.port_find(request.port_id).await {
        Ok(Some(port)) => port,
        Ok(None) | Err(_) => return,
    };
    let reserved = port.owner.is_some_and(|o| o.instance_id == instance_id) && port.expires_at.is_some();
    let Ok(rows) = manager.store.instance_load_many(&[instance_id]).await else { return };
    let in_use = rows.iter().any(|row| row.spec.nics.iter().any(|nic| nic.port_id == port.id));
    if reserved
        && !in_use
        && let Err(problem) = manager.clients.resource.remove_ports(&[(instance_id, port.id)]).await
    {
        tracing::info!(%instance_id, port_id = %port.id, %problem, "the port of a refused NIC is left to expire");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{PortId, SecurityGroupId};

    #[test]
    fn what_is_requested_again_is_what_was_promised() {
        let nic = Nic {
            port_id: PortId::new(),
            network_id: NetworkId::new(),
            mac: MacAddr::local([1, 2, 3, 4, 5]),
            addresses: vec![[10, 0, 0, 5].into()],
            security_group_ids: Some(vec![SecurityGroupId::new()]),
        };
        let again = request_again(&nic, false);
        let port = PortRequest::New {
            network_id: nic.network_id,
            fixed_ips: vec![FixedIpRequest::Address([10, 0, 0, 5].into())],
            security_group_ids: nic.security_group_ids.clone(),
            mac: Some(nic.mac),
        };
        assert_eq!(again, NicRequest { port_id: nic.port_id, port });
        assert_eq!(request_again(&nic, true).port, PortRequest::Existing);
    }
}
