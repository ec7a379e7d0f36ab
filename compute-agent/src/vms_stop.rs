//! Stops every VM of this host without the control plane: `iaasd vms stop`, for a shutdown of the machine or the end of an
//! installation.
//!
//! The desired state in the ledger stays as it is, so the next start of the agent starts the instances that must run. The ledger is opened as
//! the agent opens it, so this is refused while an agent runs, which would start again what is stopped here.

use crate::{
    adopt::{Found, running_qemus},
    config::Config,
    host::cgroup::Cgroups,
    ledger::{Held, Ledger, LedgerError},
    qemu::{leftover, socket::QemuSocket},
    qmp::{QmpClient, RunState},
    reconcile::layout::Paths,
};
use domain::InstanceId;
use service_kit::error_chain;
use std::{fmt, time::Duration};

/// The longest time that a guest gets to shut down, whatever its own timeout.
const GRACE_MAX: Duration = Duration::from_secs(60);
/// The shortest time that a guest gets to shut down, because a timeout of 0 may only be left from one hard stop.
const GRACE_MIN: Duration = Duration::from_secs(10);
const QMP_TIMEOUT: Duration = Duration::from_secs(3);
const QUIT_TIMEOUT: Duration = Duration::from_secs(5);
/// The power button is pressed again after this time.
const POWERDOWN_AGAIN: Duration = Duration::from_secs(3);

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stopped {
    /// The guest shut down when its power button was pressed.
    Gracefully,
    /// The guest didn't shut down in time, or its QEMU couldn't be reached, and QEMU was killed.
    Hard,
    /// It still runs.
    Failed { reason: String },
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    pub instance_id: InstanceId,
    /// The instance's name; empty if it isn't in the ledger.
    pub name: String,
    pub stopped: Stopped,
}

/// What was done, with an entry for each VM that ran.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Report {
    pub vms: Vec<Outcome>,
}

/// Prints a line for each VM and one for all.
impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for Outcome { instance_id, name, stopped } in &self.vms {
            let name = if name.is_empty() { "not in the ledger" } else { name };
            match stopped {
                Stopped::Gracefully => writeln!(f, "{instance_id} ({name}): shut down")?,
                Stopped::Hard => writeln!(f, "{instance_id} ({name}): killed, because it didn't shut down in time")?,
                Stopped::Failed { reason } => writeln!(f, "{instance_id} ({name}): STILL RUNS: {reason}")?,
            }
        }
        let failed = self.vms.iter().filter(|vm| matches!(vm.stopped, Stopped::Failed { .. })).count();
        write!(f, "{} of {} instances stopped", self.vms.len() - failed, self.vms.len())
    }
}

impl Report {
    /// Whether no VM runs any more.
    #[must_use]
    pub fn complete(&self) -> bool {
        self.vms.iter().all(|vm| !matches!(vm.stopped, Stopped::Failed { .. }))
    }
}

/// Stops all VMs at the same time: gracefully within their own `stop_timeout_secs` (10 s to a minute), then hard.
pub async fn stop_all(config: &Config) -> Result<Report, LedgerError> {
    leftover::end_probes(&config.run_dir);
    let (found, state_dir, host_id) = (running_qemus(&config.run_dir), config.state_dir.clone(), config.host_id);
    if found.is_empty() && !state_dir.join("ledger").exists() {
        return Ok(Report::default());
    }
    let opened = tokio::task::spawn_blocking(move || Ledger::open(&state_dir, host_id)).await;
    let (ledger, _) = opened.map_err(|_| LedgerError::Closed)??;
    let stops = found.into_iter().map(|found| stop_vm(config, &ledger, found));
    let vms = futures::future::join_all(stops).await;
    for held in ledger.all() {
        // This end was intended, so the next start of the agent must not count it as a crash.
        if let Held::Live(entry) = &*held
            && entry.done.process.as_ref().is_some_and(|running| !running.process.alive())
        {
            ledger
                .record(entry.desired.instance_id, |done| {
                    done.process = None;
                    done.guest_up_at = None;
                })
                .await?;
        }
    }
    Ok(Report { vms })
}

async fn stop_vm(config: &Config, ledger: &Ledger, found: Found) -> Outcome {
    let instance_id = found.instance_id;
    let held = ledger.held(instance_id);
    let (name, grace) = match held.as_deref() {
        Some(Held::Live(entry)) => {
            let own = Duration::from_secs(entry.desired.spec.stop_timeout_secs.into());
            (entry.desired.name.clone(), own.clamp(GRACE_MIN, GRACE_MAX))
        }
        Some(Held::Tombstone(_)) | None => (String::new(), GRACE_MIN),
    };
    let paths = Paths::new(&config.state_dir, &config.run_dir, instance_id);
    let socket = QemuSocket::new(paths.qmp_socket(), found.uid);
    let graceful = match QmpClient::connect(&socket, QMP_TIMEOUT).await {
        Ok(qmp) => shut_down(&found, &qmp, grace).await,
        Err(_) => false,
    };
    let end = async {
        found.process.kill().await.map_err(|e| error_chain(&e))?;
        if let Ok(cgroups) = Cgroups::detect(&config.cgroup_parent) {
            cgroups.group(&instance_id.to_string()).kill_all().await.map_err(|e| error_chain(&e))?;
        }
        Ok(())
    };
    let stopped = match end.await {
        Err(reason) => Stopped::Failed { reason },
        Ok(()) if graceful => Stopped::Gracefully,
        Ok(()) => Stopped::Hard,
    };
    Outcome { instance_id, name, stopped }
}

/// Presses the guest's power button; true if the guest shut down in time. QEMU is told to quit in any case, so that it writes out its data.
async fn shut_down(found: &Found, qmp: &QmpClient, grace: Duration) -> bool {
    let guest_ended = async {
        let mut events = qmp.events();
        // A paused guest doesn't notice its power button.
        let _ = qmp.cont().await;
        loop {
            match qmp.query_status().await {
                Ok(RunState::Shutdown) => return,
                Ok(_) => {}
                Err(_) => return,
            }
            let _ = qmp.system_powerdown().await;
            let shutdown = async { while events.recv().await.is_ok_and(|event| event.name != "SHUTDOWN") {} };
            let _ = tokio::time::timeout(POWERDOWN_AGAIN, shutdown).await;
        }
    };
    let graceful = tokio::time::timeout(grace, guest_ended).await.is_ok();
    if qmp.quit().await.is_ok() {
        let _ = tokio::time::timeout(QUIT_TIMEOUT, found.process.wait_exit()).await;
    }
    graceful
}
