//! Sees within a second what others change of ours ([`crate::link::watch`]), and has it put back.
//!
//! A change marks its network, with what the kernel said of it; the round that follows decides whether anything isn't as it should be. So
//! a burst of changes, also of our own, costs a network one look in half a second, whoever makes them.

use super::{
    Host,
    disturbance::{Disturbance, note},
    firewall, lock,
};
use crate::{
    link::{
        netns::{self, Worker},
        observe,
        watch::{Changed, Interest, Links, Sockets, Watch},
    },
    model::names,
    plan::{Planned, Step},
};
use domain::NetworkId;
use std::{
    collections::BTreeSet,
    fs::File,
    io,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::io::unix::AsyncFd;
use tokio_util::sync::{CancellationToken, DropGuard};

/// What comes within it is one change.
const BURST: Duration = Duration::from_millis(100);
/// Between two looks at the same.
const PAUSE: Duration = Duration::from_millis(400);

/// Which kinds of things those steps put back.
pub(super) fn kinds_of(steps: &[Planned]) -> BTreeSet<Disturbance> {
    let kind = |planned: &Planned| match planned.step {
        Step::AddLink { .. } | Step::SetLink { .. } | Step::DeleteLink { .. } => Disturbance::Links,
        Step::Rules(_) => Disturbance::Rules,
        Step::AddAddress { .. }
        | Step::DeleteAddress { .. }
        | Step::SetNeighbour { .. }
        | Step::DeleteNeighbour { .. }
        | Step::SetForwarding { .. }
        | Step::DeleteForwarding { .. }
        | Step::SetRoute { .. }
        | Step::DeleteRoute { .. } => Disturbance::Ways,
    };
    steps.iter().map(kind).collect()
}

/// Watches a network's namespace until the guard is dropped. Without a watch, the audit alone sees what others change.
pub(super) async fn watch_network(host: &Arc<Host>, id: NetworkId, inside: &Worker) -> Option<DropGuard> {
    let opened = inside.run(|inside| -> io::Result<_> {
        let own = BTreeSet::from([inside.netlink.port_number(), inside.rules.port_number()]);
        Ok((Sockets::of_network()?, own))
    });
    let host_netlink = host.worker.run(|inside| inside.netlink.port_number()).await.ok()?;
    let links: Links = Box::new(|name| if observe::ours(name) { Interest::Everything } else { Interest::Nothing });
    let watch = opened.await.ok()?.and_then(|(sockets, mut own)| {
        own.insert(host_netlink);
        Watch::new(sockets, own, links)
    });
    let watch =
        watch.inspect_err(|error| tracing::warn!(network_id = %id, %error, "a network can't be watched")).ok()?;
    let stop = CancellationToken::new();
    let notify = move |host: &Host, changed: Changed| {
        lock(&host.changed_by_others).entry(id).or_default().merge(changed);
        host.signal.mark([id]);
        std::future::ready(())
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(follow(watch, Arc::downgrade(host), notify)));
    Some(stop.drop_guard())
}

/// Tells of each burst of changes, until the host is gone.
async fn follow<F: Future<Output = ()>>(mut watch: Watch, host: Weak<Host>, notify: impl Fn(&Host, Changed) -> F) {
    loop {
        let mut changed = match watch.changed().await {
            Ok(changed) => changed,
            Err(error) => return tracing::warn!(%error, "what others change is seen by the audit alone from now on"),
        };
        let burst = tokio::time::sleep(BURST);
        tokio::pin!(burst);
        loop {
            tokio::select! {
                () = &mut burst => break,
                more = watch.changed() => match more {
                    Ok(more) => changed.merge(more),
                    Err(_) => break,
                },
            }
        }
        let Some(host) = host.upgrade() else { return };
        notify(&host, changed).await;
        drop(host);
        tokio::time::sleep(PAUSE).await;
    }
}

/// Watches the host's own namespace and its mounts until the guard is dropped.
pub(super) fn watch_host(host: &Arc<Host>, shutdown: &CancellationToken) -> DropGuard {
    let stop = shutdown.child_token();
    tokio::spawn(stop.clone().run_until_cancelled_owned(watch_mounts(Arc::downgrade(host))));
    let bridges: BTreeSet<String> = host.config.external.values().cloned().collect();
    let links: Links = Box::new(move |name| {
        if bridges.contains(name) {
            Interest::Loss
        } else if names::is_uplink_host_end(name) {
            Interest::Everything
        } else {
            Interest::Nothing
        }
    });
    let weak = Arc::downgrade(host);
    let watching = async move {
        let opened = match weak.upgrade() {
            Some(host) => host.worker.run(|inside| Ok((Sockets::of_host()?, inside.netlink.port_number()))).await,
            None => return,
        };
        let watch = opened.unwrap_or_else(|gone| Err(io::Error::other(gone)));
        let watch = watch.and_then(|(sockets, own)| Watch::new(sockets, BTreeSet::from([own]), links));
        match watch {
            Ok(watch) => follow(watch, weak.clone(), move |_, changed| host_changed(weak.clone(), changed)).await,
            Err(error) => tracing::warn!(%error, "the host's own network can't be watched"),
        }
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(watching));
    stop.drop_guard()
}

async fn host_changed(host: Weak<Host>, changed: Changed) {
    let Some(host) = host.upgrade() else { return };
    if changed.tables.contains(&names::underlay_table(&host.config.prefix)) || changed.tables.contains("") {
        host.underlay.audit(&host).await;
    }
    if changed.tables.contains(firewall::TABLE) || changed.tables.contains("") {
        firewall::ensure(&host).await;
    }
    let desired_state = host.desired_state();
    let uplinks = desired_state.networks.values().filter(|network| network.uplink.is_some()).map(|network| network.id);
    let mut affected: BTreeSet<NetworkId> =
        uplinks.filter(|id| changed.all || changed.links.contains_key(&names::uplink_host_end(*id))).collect();
    if changed.addresses && host.refresh_own_addresses().await {
        affected.extend(desired_state.networks.keys().copied());
    }
    for id in &affected {
        lock(&host.changed_by_others).entry(*id).or_default().all = true;
    }
    if !affected.is_empty() {
        host.signal.mark(affected);
    }
}

/// Names of namespaces that somebody unmounted, or mounted over, are mounted again.
async fn watch_mounts(host: Weak<Host>) {
    // The kernel raises the descriptor's priority bit at each change of the mounts.
    let watched = File::open("/proc/self/mountinfo").and_then(|file| {
        // SAFETY: a file's descriptor stays open and the same for as long as it is owned, which is by the AsyncFd.
        unsafe { AsyncFd::register_with_interest(file, tokio::io::Interest::PRIORITY) }.map_err(io::Error::from)
    });
    let mounts = match watched {
        Ok(mounts) => mounts,
        Err(error) => return tracing::warn!(%error, "the mounts of namespaces can't be watched"),
    };
    loop {
        match mounts.ready(tokio::io::Interest::PRIORITY).await {
            Ok(mut ready) => ready.clear_ready(),
            Err(error) => return tracing::warn!(%error, "the mounts of namespaces can't be watched any more"),
        }
        tokio::time::sleep(BURST).await;
        let Some(host) = host.upgrade() else { return };
        remount(&host).await;
    }
}

async fn remount(host: &Host) {
    let workers: Vec<(NetworkId, Arc<Worker>)> =
        lock(&host.workers).iter().map(|(id, worker)| (*id, Arc::clone(worker))).collect();
    for (id, worker) in workers {
        let path = host.path_of(id);
        if netns::names(&path, &worker.namespace()) {
            continue;
        }
        let here = path.clone();
        let mounted = worker.run(move |_| netns::mount_here(&here)).await;
        if !lock(&host.workers).contains_key(&id) {
            // It was removed at the same moment.
            let _ = netns::remove(&path);
            continue;
        }
        note(host, Disturbance::Mounts, Some(id));
        match mounted {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(network_id = %id, %error, "a network's namespace has lost its name"),
            Err(error) => tracing::error!(network_id = %id, %error, "a network's namespace has lost its name"),
        }
    }
}
