//! Uplinks follow routers, bound ports and what hosts are wired to.

use super::StepError;
use crate::{
    Manager,
    network::plan::uplink::{Step, steps},
};
use futures::future::join_all;
use store::{CommitError, Constraint};

/// Commits that run at the same time.
const BATCH: usize = 64;

pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let steps = steps(&manager.topology());
    let mut without_address = 0;
    for chunk in steps.chunks(BATCH) {
        for outcome in join_all(chunk.iter().map(|step| take(manager, step))).await {
            if !outcome? {
                without_address += 1;
            }
        }
    }
    metrics::gauge!("iaas_network_uplinks_missing").set(f64::from(without_address));
    Ok(())
}

/// False: there was no address for it.
async fn take(manager: &Manager, step: &Step) -> Result<bool, StepError> {
    let Some(plan) = manager.decide(manager.context(None), |planner| planner.uplink(step)) else {
        if let Step::Add { network_id, host_id } = step {
            tracing::debug!(%network_id, %host_id, "an external network has no address left for a network's way out");
        }
        return Ok(false);
    };
    let (claimed, unit) = (plan.claimed.clone(), plan.unit());
    match manager.commit(plan, unit).await {
        Ok(()) => Ok(true),
        // An address was taken that memory thought free: the next look knows.
        Err(CommitError::Guard(_)) => {
            manager.refresh_addresses(&claimed).await.map_err(StepError::Read)?;
            Ok(true)
        }
        // The network, the external network or the router ended at this moment, or the MAC is another uplink's: the next look knows.
        Err(CommitError::Constraint(Constraint::ForeignKey(_) | Constraint::UplinkMac)) => Ok(true),
        Err(error) => Err(StepError::Commit(error)),
    }
}
