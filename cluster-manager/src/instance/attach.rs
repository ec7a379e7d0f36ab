//! A card more for an instance that exists: its port is reserved before the change commits, and given back when it certainly didn't.

use super::nic::{Card, CardPort, hostname, reservation};
use crate::manager::{Manager, read_problem};
use domain::{
    ErrorKind, InstanceId, NetworkId, Problem,
    instance::{Instance, Nic},
    network::MacAddr,
};
use service_kit::context::CallContext;

/// The card as far as it is known before its port is reserved: enough to decide whether the change may be at all.
pub(super) fn expected(card: &Card) -> Nic {
    let network_id = match &card.what {
        CardPort::Existing => NetworkId(uuid::Uuid::nil()),
        CardPort::New { network_id, .. } => *network_id,
    };
    Nic { port_id: card.port_id, network_id, mac: MacAddr([0; 6]), addresses: vec![], security_group_ids: None }
}

/// Reserves the port (in a dry run: checks that it could be) and fills the new card in.
pub(super) async fn reserve(
    manager: &Manager,
    context: &CallContext,
    card: &Card,
    next: &mut Instance,
) -> Result<(), Problem> {
    if let Some(port) = manager.store.port_find(card.port_id).await.map_err(|e| read_problem(&e))?
        && port.owner.is_some_and(|o| o.instance_id == next.id)
        && port.expires_at.is_none()
    {
        // The host hasn't proved yet that the card is out; until then the port is about to be freed, not to be taken.
        return Err(Problem::invalid_state(format!("port {} is still being taken out of {}", port.id, next.name))
            .with_hint("try again when the instance has settled"));
    }
    let asked = vec![reservation(card, next.id, next.project_id, &hostname(&next.name))];
    let nics = if context.dry_run {
        manager.resource.rehearse(context, asked).await?
    } else {
        manager.resource.reserve(asked).await?
    };
    let (Some(last), Some(nic)) = (next.spec.nics.last_mut(), nics.into_iter().next()) else {
        return Err(Problem::internal());
    };
    *last = nic;
    Ok(())
}

/// After a change that failed. Where it is not certain that nothing was committed, the reservation expires by itself.
pub(super) async fn give_back(manager: &Manager, instance_id: InstanceId, card: &Card, problem: &Problem) {
    if matches!(problem.kind, ErrorKind::Unavailable | ErrorKind::DeadlineExceeded | ErrorKind::Internal) {
        return;
    }
    let port = match manager.store.port_find(card.port_id).await {
        Ok(Some(port)) => port,
        Ok(None) | Err(_) => return,
    };
    let reserved = port.owner.is_some_and(|o| o.instance_id == instance_id) && port.expires_at.is_some();
    let Ok(rows) = manager.store.instance_load_many(&[instance_id]).await else { return };
    let in_use = rows.iter().any(|row| row.spec.nics.iter().any(|nic| nic.port_id == port.id));
    if reserved
        && !in_use
        && let Err(problem) = manager.resource.forget_cards(&[(instance_id, port.id)]).await
    {
        tracing::info!(%instance_id, port_id = %port.id, %problem, "the port of a refused card is left to expire");
    }
}
