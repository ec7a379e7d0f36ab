//! The compute-agent: one per host, owner of the host's virtual machines.
//!
//! It keeps a [`ledger`] of what the host must be, reconciles the host to it alone ([`reconcile`]), takes over what still runs after
//! a restart ([`adopt`]), caches images ([`images`]), and reports to the cluster-manager what it observes ([`link`]). Below that lies the VM
//! layer: QEMU's command line and launch ([`qemu`]), its monitor ([`qmp`]), disks ([`disk`]), the serial console ([`console`]) and
//! the machine itself ([`host`]).
//!
//! ```text
//! cluster-manager ⇄ link ──► ledger (durable) ──► reconcile: observe · plan (pure) · one step ──► qemu · disk · cgroup
//!                    ▲                                 ▲        │
//!                    └──── outbox ◄── observations ────┘        └──► images ⇄ storage-manager
//! ```

pub mod adopt;
pub mod config;
pub mod console;
pub mod disk;
pub mod doctor;
pub mod host;
pub mod images;
pub mod ledger;
pub mod link;
mod ports;
pub mod qemu;
pub mod qmp;
pub mod reconcile;
pub mod vms_stop;

pub use config::Config;

use crate::{
    adopt::Findings,
    host::cgroup::Cgroups,
    images::ImageCache,
    ledger::{Held, Ledger},
    link::ComputeAgent,
    reconcile::{
        Reconciler,
        context::{Context, Parts},
        layout,
        users::Users,
    },
};
use agent_kit::{follow_manager, send_beats};
use anyhow::Context as _;
use futures::future::BoxFuture;
use service_kit::transport::GrpcTarget;
use std::{sync::Arc, time::Duration};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// How long a shutdown waits for steps that are under way.
const DRAIN: Duration = Duration::from_secs(15);

/// The services that the agent calls.
pub struct Deps {
    pub cluster: GrpcTarget,
    pub storage: GrpcTarget,
}

/// Runs the agent until `shutdown`. Instances keep running, and the next start adopts them.
///
/// The future is boxed here, so that its code is made in this crate alone and not again in the binary that awaits it.
pub fn serve(config: Config, deps: Deps, shutdown: CancellationToken) -> BoxFuture<'static, anyhow::Result<()>> {
    Box::pin(run_until(config, deps, shutdown))
}

async fn run_until(config: Config, deps: Deps, shutdown: CancellationToken) -> anyhow::Result<()> {
    let context = start(config, &deps, shutdown.clone()).await?;
    let tasks = context.0.tasks.clone();
    let (context, orphans) = context;
    tasks.spawn(ports::follow_network_agent(Arc::clone(&context)));
    let reconciler = Arc::new(Reconciler::start(Arc::clone(&context)));
    let (host_id, manager) = (context.ledger.host_id(), deps.cluster.channel()?);
    let agent = Arc::new(ComputeAgent::new(context, reconciler, orphans, manager.clone()));
    tasks.spawn(send_beats(host_id, deps.cluster.channel()?, agent.requested_beats(), shutdown.clone()));
    tasks.spawn(follow_manager(agent, manager, shutdown.clone()));
    shutdown.cancelled().await;
    tasks.close();
    if tokio::time::timeout(DRAIN, tasks.wait()).await.is_err() {
        tracing::warn!("some steps are still under way; the next start continues them");
    }
    tracing::info!("the compute-agent has stopped; instances keep running");
    Ok(())
}

/// Opens the ledger, finds what an earlier agent left on the host, and makes what all tasks share.
async fn start(
    config: Config,
    deps: &Deps,
    shutdown: CancellationToken,
) -> anyhow::Result<(Arc<Context>, Vec<adopt::Orphan>)> {
    let storage = deps.storage.channel()?;
    let tasks = TaskTracker::new();
    let opening = config.clone();
    let opened = tokio::task::spawn_blocking(move || {
        Context::ensure_dirs(&opening).with_context(|| {
            let (state, run) = (opening.state_dir.display(), opening.run_dir.display());
            format!("the compute-agent's directories {state} and {run} can't be made")
        })?;
        let (ledger, quarantined) = Ledger::open(&opening.state_dir, opening.host_id)?;
        for file in quarantined {
            tracing::error!(path = %file.path.display(), reason = file.reason, "a damaged ledger file was moved to quarantine; its instance continues unmanaged");
        }
        let findings = adopt::find_leftovers(&ledger, &opening.state_dir, &opening.run_dir);
        let instances = layout::instances_dir(&opening.state_dir);
        let direct = disk::overlay::supports_direct(&instances).context("the state directory can't be written")?;
        let cgroups = Cgroups::detect(&opening.cgroup_parent)?;
        let users = Users::open(&opening.state_dir, opening.uid_first, opening.uid_count)?;
        let boot_id = qemu::process::boot_id().context("the boot's id can't be read")?;
        anyhow::Ok((ledger, findings, direct, cgroups, users, boot_id))
    });
    let (ledger, findings, direct, cgroups, users, boot_id) = opened.await??;
    let Findings { found, orphans } = findings;
    for warning in cgroups.warnings() {
        tracing::warn!("{warning}");
    }
    let ledger = Arc::new(ledger);
    let entries = Arc::clone(&ledger);
    let in_use = move || {
        let held = entries.all();
        let live = held.iter().filter_map(|held| match &**held {
            Held::Live(entry) => Some(entry.desired.image.parts.iter().map(|part| part.sha256.clone())),
            Held::Tombstone(_) => None,
        });
        live.flatten().collect()
    };
    let images = ImageCache::open(
        layout::images_dir(&config.state_dir),
        config.image_cache_gib << 30,
        config.reserve_disk_gib << 30,
        storage,
        in_use,
        tasks.clone(),
        shutdown.clone(),
    )
    .context("the image cache can't be opened")?;
    tracing::info!(host_id = %ledger.host_id(), start = ledger.host().start, adopted = found.len(), "the compute-agent starts");
    let images = Arc::new(images);
    let context =
        Context::new(Parts { config, ledger, images, cgroups, users, direct, boot_id, found, tasks, shutdown });
    Ok((Arc::new(context), orphans))
}
