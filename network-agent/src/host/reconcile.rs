//! The loop that makes the host what is tracked: one network at a time in one task each, several networks at once.
//!
//! What a round made is remembered as a model that follows changes port by port, so that the next needs to ask the kernel nothing
//! and to derive only what changed. Every few seconds all is looked at anew (somebody may have changed it), and after any failure
//! too: then the kernel is compared with the whole, derived from nothing but the desired_state.

use super::{
    Host,
    disturbance::{Disturbance, note},
    drift, firewall,
    flows::FlowsToEnd,
    lock, recovery,
    report::report,
    tracked::Affected,
};
use crate::{
    announce::{announce, announced},
    apply::{self, Applied, ApplyContext, Failure, namespace},
    link::{
        netns,
        netns::{NetnsError, Worker},
        observe,
        watch::{Changed, LinkNow},
    },
    model::{
        DesiredState,
        incremental::{Change, Model, Scope},
        names,
        object::Network,
        state::{LinkKind, NsState, namespace_state},
    },
    plan::{Step, plan},
    service::Services,
};
use domain::{NetworkId, network::MacAddr};
use service_kit::error_chain;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Networks worked on at once.
const PARALLEL: usize = 4;
const RETRY: [u64; 5] = [50, 200, 1000, 3000, 10_000];

/// What is remembered of a network between rounds.
#[derive(Default)]
struct Slot {
    inside: Option<Arc<Worker>>,
    services: Option<Services>,
    /// What the network should be, as of the last round.
    model: Model,
    /// The kernel is as the model says; else it is to be asked.
    in_sync: bool,
    /// The last round left it so: what differs by now, somebody else changed.
    settled: bool,
    /// The kernel's rules are the model's, as long as their generation is this.
    rules: bool,
    generation: u32,
    failures: usize,
    flows: FlowsToEnd,
    /// Ends the watch over the namespace when the slot goes.
    watching: Option<DropGuard>,
}

/// Runs until `shutdown`. What is programmed stays: the network goes on without its agent.
pub async fn run(host: Arc<Host>, shutdown: CancellationToken) {
    let mut slots: BTreeMap<NetworkId, Slot> = BTreeMap::new();
    let mut busy = BTreeSet::new();
    let mut rounds = JoinSet::new();
    let mut audits = BTreeSet::new();
    let mut tick = tokio::time::interval(Duration::from_secs(host.config.audit_secs));
    tick.tick().await;
    if let Err(error) = host.worker.run(|_| namespace::raise_neighbour_limits()).await {
        tracing::warn!(%error, "the limits on neighbours can't be raised");
    }
    host.refresh_own_addresses().await;
    host.underlay.follow(&host).await;
    let _watching = drift::watch_host(&host, &shutdown);
    firewall::ensure(&host).await;
    tokio::spawn(shutdown.child_token().run_until_cancelled_owned(recovery::run(Arc::clone(&host), shutdown.clone())));
    loop {
        let held = host.recovery.held();
        let excluded = if held.is_empty() { busy.clone() } else { busy.union(&held).copied().collect() };
        for (id, number) in host.signal.take(&excluded, PARALLEL - busy.len()) {
            busy.insert(id);
            let mut slot = slots.remove(&id).unwrap_or_default();
            if audits.remove(&id) {
                slot.in_sync = false;
            }
            let host = Arc::clone(&host);
            rounds.spawn(async move {
                // The slot goes first: its thread ends before the host, and with it the ledger, is free.
                let (host, mut slot) = (host, slot);
                let gone = round(&host, id, &mut slot).await;
                (id, number, slot, gone)
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = host.signal.work() => {}
            _ = tick.tick() => {
                host.refresh_own_addresses().await;
                host.underlay.audit(&host).await;
                firewall::ensure(&host).await;
                audits.extend(slots.keys().copied());
                host.signal.mark(slots.keys().copied().collect::<Vec<_>>());
            }
            Some(ended) = rounds.join_next() => {
                let (id, number, slot, gone) = match ended {
                    Ok(ended) => ended,
                    Err(error) => std::panic::resume_unwind(error.into_panic()),
                };
                busy.remove(&id);
                if slot.failures > 0 {
                    retry(&host, id, slot.failures, &shutdown);
                }
                let clean = slot.failures == 0;
                if !gone {
                    slots.insert(id, slot);
                }
                host.signal.finish(id, number);
                if clean {
                    host.report_deletions();
                }
            }
        }
    }
    rounds.shutdown().await;
}

fn retry(host: &Arc<Host>, id: NetworkId, failures: usize, shutdown: &CancellationToken) {
    let delay = Duration::from_millis(RETRY[failures.min(RETRY.len()) - 1]);
    let (host, shutdown) = (Arc::clone(host), shutdown.clone());
    tokio::spawn(async move {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = tokio::time::sleep(delay) => { host.signal.mark([id]); }
        }
    });
}

/// One look and, where needed, one change; true when the network is gone from this host.
async fn round(host: &Arc<Host>, id: NetworkId, slot: &mut Slot) -> bool {
    let (desired_state, mut affected) = lock(&host.tracked).take(id);
    let Some(network) = desired_state.networks.get(&id) else { return remove(host, id, slot).await };
    let changed = lock(&host.changed_by_others).remove(&id).unwrap_or_default();
    if slot.in_sync {
        slot.in_sync = !is_suspect(&changed, slot).await;
        // Only ours was told of.
        if slot.in_sync && !changed.is_empty() && !affected.all && affected.keys.is_empty() {
            return false;
        }
    }
    // Out of sync, everything is looked at, and reported on.
    affected.all |= !slot.in_sync;
    // What this round reports as ready, other hosts can reach.
    let (mut result, ()) =
        tokio::join!(bring(host, &desired_state, network, &affected, slot), host.underlay.follow(host));
    if result.as_ref().is_ok_and(|applied| applied.stale) {
        tracing::warn!(network_id = %id, "somebody else changed the rules: all is looked at anew");
        affected.all = true;
        result = bring(host, &desired_state, network, &affected, slot).await;
    }
    let failed = match result {
        Ok(applied) => applied.failed,
        Err(error) => BTreeMap::from([(None, Failure::new("enter the network's namespace", error_chain(&error)))]),
    };
    if failed.is_empty() {
        slot.failures = 0;
    } else {
        slot.failures += 1;
        slot.in_sync = false;
        for (owner, Failure { detail, .. }) in &failed {
            tracing::warn!(network_id = %id, ?owner, detail, attempt = slot.failures, "a network could not be programmed");
        }
    }
    report(host, &desired_state, id, &affected, &failed);
    false
}

/// Whether what the kernel told of this namespace may be somebody else's doing, and not as it should be.
async fn is_suspect(changed: &Changed, slot: &Slot) -> bool {
    if changed.is_empty() {
        return false;
    }
    let Some(inside) = slot.inside.as_ref().filter(|_| !changed.all && !changed.addresses) else { return true };
    let as_it_should_be = |(name, now): (&String, &LinkNow)| {
        slot.model.link(name).is_some_and(|link| (Some(link.mac), link.mtu, true) == (now.mac, now.mtu, now.up))
    };
    if !changed.links.iter().all(as_it_should_be) {
        return true;
    }
    let generation = inside.run(|inside| inside.rules.generation()).await;
    !generation.is_ok_and(|found| found.is_ok_and(|found| found == slot.generation))
}

async fn bring(
    host: &Arc<Host>,
    desired_state: &DesiredState,
    network: &Arc<Network>,
    affected: &Affected,
    slot: &mut Slot,
) -> Result<Applied, NetnsError> {
    let inside = enter(host, desired_state, network, slot).await?;
    let facts = host.facts();
    let ports = affected.ports();
    let scope = if affected.all { Scope::All } else { Scope::Ports(&ports) };
    let mut just_made = false;
    // Whatever ends this round early leaves the network out of sync.
    let (found, steps) = if std::mem::take(&mut slot.in_sync) {
        let Change { before, after } = slot.model.update(desired_state, network, &facts, scope);
        let steps = plan(&after, &before, Some(&before.rules));
        (before, steps)
    } else {
        let looked = inside
            .run(|inside| -> io::Result<_> {
                Ok((observe::all(&mut inside.netlink)?.state, inside.rules.generation()?))
            })
            .await?;
        let (found, generation) = match looked {
            Ok(looked) => looked,
            Err(e) => {
                let failed = BTreeMap::from([(None, Failure::new("read the network's namespace", error_chain(&e)))]);
                return Ok(Applied { failed, ..Applied::default() });
            }
        };
        just_made = found.links.is_empty();
        if generation != slot.generation && std::mem::take(&mut slot.rules) && slot.settled {
            note(host, Disturbance::Rules, Some(network.id));
        }
        let last = slot.model.whole();
        if std::mem::take(&mut slot.settled) {
            for kind in drift::kinds_of(&plan(&last, &found, Some(&last.rules))) {
                note(host, kind, Some(network.id));
            }
        }
        let known = slot.rules.then_some(last.rules);
        slot.model = Model::new(desired_state, network, &facts);
        // The kernel is compared with the reference, not with what the increments came to.
        let desired = namespace_state(desired_state, network, &facts);
        let steps = plan(&desired, &found, known.as_ref());
        if let Some((host_end, bridge)) = uplink_of(&desired, &found)
            && let Err(failure) = apply::attach_uplink(&host.worker, host_end, bridge).await?
        {
            return Ok(Applied { failed: BTreeMap::from([(None, failure)]), ..Applied::default() });
        }
        (found, steps)
    };
    let fresh: Vec<(IpAddr, MacAddr)> = announced(&steps, network);
    let mut applied = Applied::default();
    // Nothing flows in a namespace that was just made, and all tracked flows of the host would be looked through to find that out.
    let refuses_more = !just_made && steps.iter().any(|planned| planned.step.refuses_more());
    if !steps.is_empty() {
        let began = Instant::now();
        let had_rules = steps.iter().any(|planned| matches!(planned.step, Step::Rules(_)));
        slot.rules &= !had_rules;
        applied = apply::apply(
            &host.worker,
            &inside,
            apply_context(host, desired_state, network),
            steps,
            found,
            slot.generation,
        )
        .await?;
        if let Some(generation) = applied.generation {
            (slot.rules, slot.generation) = (true, generation);
        }
        metrics::histogram!("iaas_network_program_seconds").record(began.elapsed().as_secs_f64());
        tracing::debug!(network_id = %network.id, steps = applied.steps, took = ?began.elapsed(), "programmed");
    }
    if refuses_more && applied.clean() {
        slot.flows.rules_shrank();
    }
    slot.flows.look(host, &inside, desired_state, network).await?;
    match &mut slot.services {
        Some(services) => services.show(&inside, desired_state, network, scope).await?,
        none => *none = Some(Services::start(host, &inside, desired_state, network).await?),
    }
    slot.in_sync = applied.clean() && slot.rules;
    slot.settled = slot.in_sync;
    if !fresh.is_empty() && applied.clean() {
        let stop = slot.services.as_ref().map(|services| services.stop.clone()).unwrap_or_default();
        tokio::spawn(announce(inside, names::UPLINK.to_owned(), fresh, stop));
    }
    Ok(applied)
}

/// The network's namespace, made if it isn't there.
async fn enter(
    host: &Arc<Host>,
    desired_state: &DesiredState,
    network: &Arc<Network>,
    slot: &mut Slot,
) -> Result<Arc<Worker>, NetnsError> {
    if let Some(inside) = &slot.inside {
        return Ok(Arc::clone(inside));
    }
    let (worker, made) = namespace::ensure(&host.path_of(network.id)).await?;
    let worker = Arc::new(worker);
    lock(&host.workers).insert(network.id, Arc::clone(&worker));
    tracing::info!(network_id = %network.id, made, "a network is on this host");
    // Links to it can be made now.
    host.signal.mark(desired_state.peers_of(network).map(|peer| peer.id).collect::<Vec<_>>());
    slot.inside = Some(Arc::clone(&worker));
    slot.watching = drift::watch_network(host, network.id, &worker).await;
    Ok(worker)
}

/// The host's end of the network's uplink and the bridge that it belongs on, where the uplink is there.
fn uplink_of(desired: &NsState, found: &NsState) -> Option<(String, String)> {
    let link = desired.links.get(names::UPLINK).filter(|_| found.links.contains_key(names::UPLINK))?;
    let LinkKind::Uplink { host_end, bridge } = &link.kind else { return None };
    Some((host_end.clone(), bridge.clone()))
}

fn apply_context(host: &Host, desired_state: &DesiredState, network: &Network) -> ApplyContext {
    let workers = lock(&host.workers);
    let namespace = |id: NetworkId| Some((id, workers.get(&id)?.namespace()));
    ApplyContext { peers: desired_state.peers_of(network).filter_map(|peer| namespace(peer.id)).collect() }
}

async fn remove(host: &Arc<Host>, id: NetworkId, slot: &mut Slot) -> bool {
    if let Some(services) = slot.services.take() {
        services.end().await;
    }
    lock(&host.workers).remove(&id);
    (slot.inside, slot.watching) = (None, None);
    (slot.in_sync, slot.rules) = (false, false);
    match netns::remove(&host.path_of(id)) {
        Ok(()) => {
            slot.failures = 0;
            true
        }
        Err(error) => {
            tracing::warn!(network_id = %id, error = error_chain(&error), "a network could not be removed");
            slot.failures += 1;
            false
        }
    }
}
