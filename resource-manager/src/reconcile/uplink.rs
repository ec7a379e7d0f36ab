//! Uplinks follow routers, bound ports and what hosts are wired to.

use super::StepError;
use crate::{
    Manager,
    network::plan::uplink::{Scope, Step, steps},
};
use domain::NetworkId;
use futures::future::join_all;
use std::collections::BTreeSet;
use store::{CommitError, Constraint};

/// Commits that run at the same time.
const BATCH: usize = 64;

/// Only networks that changes have put into question are looked at, and those that an address was missing for.
pub(super) async fn step(manager: &Manager) -> Result<(), StepError> {
    let scope = manager.take_uplinks_to_recheck();
    let done = take_steps(manager, &scope).await;
    match &done {
        Ok(without_address) => {
            metrics::gauge!("iaas_network_uplinks_missing").set(without_address.len() as f64);
            manager.recheck_uplinks(Scope::Networks(without_address.iter().copied().collect()));
        }
        Err(_) => manager.recheck_uplinks(scope),
    }
    done.map(drop)
}

/// Answers the networks for whose uplinks there was no address, one for each that is missing.
async fn take_steps(manager: &Manager, scope: &Scope) -> Result<Vec<NetworkId>, StepError> {
    let steps = steps(&manager.topology(), scope);
    let mut without_address = Vec::new();
    for chunk in steps.chunks(BATCH) {
        let outcomes = join_all(chunk.iter().map(|step| take(manager, step))).await;
        for (step, outcome) in chunk.iter().zip(outcomes) {
            let (Step::Add { network_id, .. } | Step::Remove { network_id, .. }) = step;
            match outcome? {
                Taken::Done => {}
                Taken::NoAddress => without_address.push(*network_id),
                Taken::LookAgain => manager.recheck_uplinks(Scope::Networks(BTreeSet::from([*network_id]))),
            }
        }
    }
    Ok(without_address)
}

enum Taken {
    Done,
    /// There is no address for it now.
    NoAddress,
    /// Memory was behind: the next look knows more.
    LookAgain,
}

async fn take(manager: &Manager, step: &Step) -> Result<Taken, StepError> {
    let Some(plan) = manager.decide(manager.context(None), |planner| planner.uplink(step)) else {
        if let Step::Add { network_id, host_id } = step {
            tracing::debug!(%network_id, %host_id, "an external network has no address left for a network's way out");
        }
        return Ok(Taken::NoAddress);
    };
    let (claimed, unit) = (plan.claimed.clone(), plan.unit());
    match manager.commit(plan, unit).await {
        Ok(()) => Ok(Taken::Done),
        // An address was taken that memory thought free: the next look knows.
        Err(CommitError::Guard(_)) => {
            manager.refresh_addresses(&claimed).await.map_err(StepError::Read)?;
            Ok(Taken::LookAgain)
        }
        // The network, the external network or the router ended at this moment, or the MAC is another uplink's: the next look knows.
        Err(CommitError::Constraint(Constraint::ForeignKey(_) | Constraint::UplinkMac)) => Ok(Taken::LookAgain),
        Err(error) => Err(StepError::Commit(error)),
    }
}
