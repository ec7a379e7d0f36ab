//! Moves that would free hosts or even out load, planned on a copy of the inventory made from the rows.

use crate::{
    manager::{Manager, read_problem},
    placement::constraints::GroupCache,
    scheduler::{
        Inventory, Placed,
        level::plan_balance,
        rebalance::{Limits, Resident, plan_consolidation},
    },
};
use domain::{Problem, cpu::CpuBaseline, instance::InstanceState, limits, validate};
use proto::cluster::v1 as pb;
use service_kit::context::CallContext;
use std::{collections::HashMap, sync::Arc};
use store::InstanceFilter;

const PAGE: u32 = 1000;

pub async fn plan(
    manager: &Manager,
    _: &CallContext,
    request: pb::PlanRebalanceRequest,
) -> Result<pb::PlanRebalanceResponse, Problem> {
    validate::check(|v| {
        v.within("moves_max", request.moves_max, &(1..=limits::REBALANCE_MOVES));
        v.within("moves_per_host_max", request.moves_per_host_max, &(1..=limits::REBALANCE_MOVES));
        v.within("tolerance_permille", request.tolerance_permille, &(0..=1000));
    })?;
    let limits = Limits { moves: request.moves_max as usize, moves_per_host: request.moves_per_host_max as usize };
    let (goal, tolerance_permille) = (request.goal(), request.tolerance_permille);
    let mut residents = residents(manager).await?;
    let hosts = manager.store.host_list().await.map_err(|e| read_problem(&e))?;
    let planned = tokio::task::spawn_blocking(move || {
        let mut inventory = Inventory::new(&hosts);
        for resident in &mut residents {
            let node = resident.numa_id.and_then(|id| inventory.find(resident.of.host_id)?.node_at(id));
            resident.of.numa_node = node;
            let Resident { id, host_id, claim, request, .. } = &resident.of;
            inventory.add_instance(*id, &Placed { numa_node: node, ..Placed::of(*host_id, *claim) }, request);
        }
        let residents: Vec<Resident> = residents.into_iter().map(|known| known.of).collect();
        match goal {
            pb::RebalanceGoal::Unspecified | pb::RebalanceGoal::FreeHosts => {
                plan_consolidation(inventory, &residents, limits)
            }
            pb::RebalanceGoal::EvenLoad => plan_balance(&mut inventory, &residents, limits, tolerance_permille),
        }
    });
    let plan = planned.await.map_err(|error| {
        tracing::error!(%error, "the planning of moves died");
        Problem::internal()
    })?;
    let plan_json = serde_json::to_string(&plan).map_err(|error| {
        tracing::error!(%error, "a plan of moves can't be said");
        Problem::internal()
    })?;
    Ok(pb::PlanRebalanceResponse { plan_json })
}

/// As the row says it: nodes by the hosts' numbers.
struct Known {
    of: Resident,
    numa_id: Option<u32>,
}

async fn residents(manager: &Manager) -> Result<Vec<Known>, Problem> {
    let (mut residents, mut groups) = (Vec::new(), GroupCache::default());
    let baselines = manager.store.cpu_baseline_list().await.map_err(|e| read_problem(&e))?;
    let baselines: HashMap<String, Arc<CpuBaseline>> =
        baselines.into_iter().map(|row| (row.id, Arc::new(row.document))).collect();
    let mut filter = InstanceFilter { limit: PAGE, ..InstanceFilter::default() };
    loop {
        let rows = manager.store.instance_list(&filter).await.map_err(|e| read_problem(&e))?;
        filter.after = rows.last().map(|row| row.instance.id);
        for row in &rows {
            let Some(host_id) = row.instance.host_id else { continue };
            let request = groups.request(&manager.store, row.instance.project_id, &row.instance.spec).await;
            let mut request = request.map_err(|e| read_problem(&e))?;
            // Moved while it runs, it must find the CPU that it booted on. One from before baselines were kept goes anywhere.
            request.baseline = row.binding.cpu_baseline.as_ref().and_then(|id| baselines.get(id)).cloned();
            let of = Resident {
                id: row.instance.id,
                host_id,
                claim: row.claim,
                numa_node: None,
                // Which threads are a pinned instance's only its host knows.
                movable: !request.pinned
                    && matches!(
                        row.instance.status.state,
                        InstanceState::Running | InstanceState::Stopped | InstanceState::Paused
                    ),
                request,
            };
            residents.push(Known { of, numa_id: row.binding.numa_node });
        }
        if rows.len() < PAGE as usize {
            return Ok(residents);
        }
    }
}
