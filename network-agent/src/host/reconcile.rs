//! The loop that makes the host what is wanted: one network at a time in one task each, several networks at once.
//!
//! What a round found and did is remembered, so that the next needs to ask the kernel nothing; every few seconds all is looked at
//! anew (somebody may have changed it), and after any failure too.

use super::{Host, lock};
use crate::{
    announce::announce,
    apply::{self, Applied, Surroundings, namespace},
    link::{
        generation, netns,
        netns::{NetnsError, Worker},
        observe,
    },
    model::{
        Wishes, names,
        object::{Key, Network},
        state::{NsState, desired_state},
    },
    nft::ruleset::Ruleset,
    plan::{Planned, Step, plan},
    report::Observation,
    service::{Services, view::View},
};
use domain::{NetworkId, network::MacAddr};
use proto::network::v1::ObjectState;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Networks worked on at once.
const PARALLEL: usize = 4;
const RETRY: [u64; 5] = [50, 200, 1000, 3000, 10_000];

/// What is remembered of a network between rounds.
#[derive(Default)]
struct Slot {
    inside: Option<Arc<Worker>>,
    services: Option<Services>,
    /// None: unknown, to be asked of the kernel.
    found: Option<NsState>,
    rules: Option<Ruleset>,
    generation: u32,
    failures: usize,
}

/// Runs until `shutdown`. What is programmed stays: the network goes on without its agent.
pub async fn run(host: Arc<Host>, shutdown: CancellationToken) {
    let mut slots: BTreeMap<NetworkId, Slot> = BTreeMap::new();
    let mut busy = BTreeSet::new();
    let mut rounds = JoinSet::new();
    let mut audits = BTreeSet::new();
    let mut ready: Vec<(NetworkId, u64)> = Vec::new();
    let mut tick = tokio::time::interval(Duration::from_secs(host.config.audit_secs));
    tick.tick().await;
    loop {
        ready.extend(host.signal.take(&busy));
        while busy.len() < PARALLEL
            && let Some((id, number)) = ready.pop()
        {
            busy.insert(id);
            let mut slot = slots.remove(&id).unwrap_or_default();
            if audits.remove(&id) {
                slot.found = None;
            }
            let host = Arc::clone(&host);
            rounds.spawn(async move {
                let gone = round(&host, id, &mut slot).await;
                (id, number, slot, gone)
            });
        }
        tokio::select! {
            () = shutdown.cancelled() => break,
            () = host.signal.work() => {}
            _ = tick.tick() => {
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
                    host.bury_done();
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
    let wishes = host.wishes();
    let result = match wishes.networks.get(&id) {
        Some(network) => bring(host, &wishes, network, slot).await,
        None => return remove(host, id, slot).await,
    };
    let failed = match result {
        Ok(failed) => failed,
        Err(error) => BTreeMap::from([(None, chain(&error))]),
    };
    if failed.is_empty() {
        slot.failures = 0;
    } else {
        slot.failures += 1;
        (slot.found, slot.rules) = (None, slot.rules.take().filter(|_| !failed.contains_key(&None)));
        for (subject, reason) in &failed {
            tracing::warn!(network_id = %id, ?subject, reason, attempt = slot.failures, "a network could not be programmed");
        }
    }
    observe_outcome(host, &wishes, id, &failed);
    false
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |e| e.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

async fn bring(
    host: &Arc<Host>,
    wishes: &Wishes,
    network: &Arc<Network>,
    slot: &mut Slot,
) -> Result<BTreeMap<Option<Key>, String>, NetnsError> {
    let inside = match &slot.inside {
        Some(inside) => Arc::clone(inside),
        None => {
            let (worker, made) = namespace::ensure(&host.path_of(network.id)).await?;
            let worker = Arc::new(worker);
            lock(&host.workers).insert(network.id, Arc::clone(&worker));
            tracing::info!(network_id = %network.id, made, "a network is on this host");
            // Links to it can be made now.
            host.signal.mark(wishes.peers_of(network).map(|peer| peer.id).collect::<Vec<_>>());
            slot.inside = Some(Arc::clone(&worker));
            worker
        }
    };
    let desired = desired_state(wishes, network, &host.config.facts());
    let (found, before) = match slot.found.take() {
        Some(found) => (found, None),
        None => {
            let known = slot.generation;
            let looked = inside
                .run(move |inside| -> io::Result<_> {
                    Ok((observe::all(&mut inside.netlink)?.state, generation::read()?))
                })
                .await?;
            match looked {
                Ok((state, generation)) => (state, Some((generation, known))),
                Err(e) => return Ok(BTreeMap::from([(None, format!("the namespace can't be read: {e}"))])),
            }
        }
    };
    if let Some((generation, known)) = before
        && generation != known
        && slot.rules.take().is_some()
    {
        tracing::warn!(network_id = %network.id, "somebody else changed the rules: they are written anew");
    }
    let steps = plan(&desired, &found, slot.rules.as_ref());
    let fresh: Vec<(IpAddr, MacAddr)> = announced(&steps, network);
    let mut applied = Applied::default();
    if !steps.is_empty() {
        let began = Instant::now();
        let had_rules = steps.iter().any(|planned| matches!(planned.step, Step::Rules { .. }));
        let around =
            Surroundings { peers: lock(&host.workers).iter().map(|(id, worker)| (*id, worker.namespace())).collect() };
        applied = apply::apply(&host.worker, &inside, around, steps, found).await?;
        if had_rules {
            slot.rules = applied.rules.then(|| desired.rules.clone());
            slot.generation = inside.run(|_| generation::read()).await?.unwrap_or_default();
        }
        metrics::histogram!("iaas_network_program_seconds").record(began.elapsed().as_secs_f64());
        tracing::debug!(network_id = %network.id, steps = applied.steps, took = ?began.elapsed(), "programmed");
    }
    serve(host, wishes, network, &inside, slot).await?;
    if applied.clean() {
        slot.found = Some(desired);
    }
    if !fresh.is_empty() && applied.clean() {
        let stop = slot.services.as_ref().map(|services| services.stop.clone()).unwrap_or_default();
        tokio::spawn(announce(inside, names::UPLINK.to_owned(), fresh, stop));
    }
    Ok(applied.failed)
}

/// Addresses that come to the uplink with these steps.
fn announced(steps: &[Planned], network: &Network) -> Vec<(IpAddr, MacAddr)> {
    let Some(uplink) = &network.uplink else { return Vec::new() };
    let added = steps.iter().filter_map(|planned| match &planned.step {
        Step::AddAddress { link, addr, .. } if link == names::UPLINK => Some((*addr, uplink.mac)),
        _ => None,
    });
    added.collect()
}

async fn serve(
    host: &Arc<Host>,
    wishes: &Wishes,
    network: &Arc<Network>,
    inside: &Arc<Worker>,
    slot: &mut Slot,
) -> Result<(), NetnsError> {
    let view = Arc::new(View::new(wishes, network));
    match &mut slot.services {
        Some(services) => services.show(inside, view).await,
        none => {
            let services = Services::start(host, inside, view).await?;
            *none = Some(services);
            Ok(())
        }
    }
}

async fn remove(host: &Arc<Host>, id: NetworkId, slot: &mut Slot) -> bool {
    if let Some(services) = slot.services.take() {
        services.end().await;
    }
    lock(&host.workers).remove(&id);
    slot.inside = None;
    slot.found = None;
    match netns::remove(&host.path_of(id)) {
        Ok(()) => {
            slot.failures = 0;
            true
        }
        Err(error) => {
            tracing::warn!(network_id = %id, error = chain(&error), "a network could not be removed");
            slot.failures += 1;
            false
        }
    }
}

fn observe_outcome(host: &Arc<Host>, wishes: &Wishes, id: NetworkId, failed: &BTreeMap<Option<Key>, String>) {
    let whole = failed.get(&None);
    let post = |key: Key, good: ObjectState| {
        // Of what this round worked with: the ledger may know a newer one by now.
        let Some(version) = wishes.versions.get(&key).copied() else { return };
        let observation = match whole.or_else(|| failed.get(&Some(key))) {
            Some(reason) => Observation::failed(key, version, reason.clone()),
            None => Observation {
                key,
                version,
                state: good,
                reason: String::new(),
                program_us: host.learned_us(key, version),
            },
        };
        lock(&host.outbox).post(observation);
    };
    post(Key::Network(id), ObjectState::Ready);
    let mut groups = BTreeSet::new();
    for port in wishes.ports_of(id).filter(|port| port.instance().is_some()) {
        post(Key::Port(port.id), if wishes.in_use(port) { ObjectState::Active } else { ObjectState::Ready });
        groups.extend(port.groups.iter().copied());
    }
    for group in groups {
        post(Key::SecurityGroup(group), ObjectState::Ready);
    }
    for floating in wishes.floating_ips_of(id) {
        let active = wishes.floating_target(floating).is_some();
        post(Key::FloatingIp(floating.id), if active { ObjectState::Active } else { ObjectState::Ready });
    }
}
