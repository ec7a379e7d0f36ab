//! Moves that would free hosts or even out load, planned on a copy of the inventory that is made from the rows.

use crate::{
    manager::Manager,
    placement::constraints::GroupCache,
    scheduler::{
        Inventory, Placed,
        balance::plan_balance,
        consolidate::plan_consolidation,
        resident::{MoveLimits, Resident},
    },
};
use domain::{Problem, capacity::RebalancePlan, cpu::CpuBaseline, instance::InstanceState};
use operation::read_problem;
use std::{collections::HashMap, sync::Arc};
use store::InstanceFilter;

const PAGE: u32 = 1000;

/// What the moves are for.
#[derive(Debug, Clone, Copy)]
pub enum RebalanceGoal {
    FreeHosts,
    /// `tolerance_permille`: the difference in load between two hosts that is no reason to move.
    EvenLoad {
        tolerance_permille: u32,
    },
}

pub async fn plan_rebalance(
    manager: &Manager,
    goal: RebalanceGoal,
    limits: MoveLimits,
) -> Result<RebalancePlan, Problem> {
    let mut rows = residents(manager).await?;
    let hosts = manager.store.host_list().await.map_err(read_problem)?;
    let planned = tokio::task::spawn_blocking(move || {
        let mut inventory = Inventory::new(&hosts);
        for row in &mut rows {
            let node = row.numa_id.and_then(|id| inventory.find(row.resident.host_id)?.node_at(id));
            row.resident.numa_node = node;
            let Resident { id, host_id, claim, request, .. } = &row.resident;
            inventory.add_instance(*id, &Placed { numa_node: node, ..Placed::of(*host_id, *claim) }, request);
        }
        let residents: Vec<Resident> = rows.into_iter().map(|row| row.resident).collect();
        match goal {
            RebalanceGoal::FreeHosts => plan_consolidation(inventory, &residents, limits),
            RebalanceGoal::EvenLoad { tolerance_permille } => {
                plan_balance(&mut inventory, &residents, limits, tolerance_permille)
            }
        }
    });
    planned.await.map_err(|error| {
        tracing::error!(%error, "the planning of moves died");
        Problem::internal()
    })
}

/// A resident as its row has it: NUMA nodes by the hosts' own numbers.
struct ResidentRow {
    resident: Resident,
    numa_id: Option<u32>,
}

async fn residents(manager: &Manager) -> Result<Vec<ResidentRow>, Problem> {
    let (mut residents, mut groups) = (Vec::new(), GroupCache::default());
    let baselines = manager.store.cpu_baseline_list().await.map_err(read_problem)?;
    let baselines: HashMap<String, Arc<CpuBaseline>> =
        baselines.into_iter().map(|row| (row.id, Arc::new(row.document))).collect();
    let mut filter = InstanceFilter { limit: PAGE, ..InstanceFilter::default() };
    loop {
        let rows = manager.store.instance_list(&filter).await.map_err(read_problem)?;
        filter.after = rows.last().map(|row| row.instance.id);
        for row in &rows {
            let Some(host_id) = row.instance.host_id else { continue };
            let request = groups.request(&manager.store, row.instance.project_id, &row.instance.spec).await;
            let mut request = request.map_err(read_problem)?;
            // Moved while it runs, it must find the CPU that it booted on. One from before baselines were kept goes anywhere.
            request.baseline = row.binding.cpu_baseline.as_ref().and_then(|id| baselines.get(id)).cloned();
            let resident = Resident {
                id: row.instance.id,
                host_id,
                claim: row.claim,
                numa_node: None,
                // Only its host knows which threads are a pinned instance's.
                movable: !request.pinned
                    && matches!(
                        row.instance.status.state,
                        InstanceState::Running | InstanceState::Stopped | InstanceState::Paused
                    ),
                request,
            };
            residents.push(ResidentRow { resident, numa_id: row.binding.numa_node });
        }
        if rows.len() < PAGE as usize {
            return Ok(residents);
        }
    }
}
