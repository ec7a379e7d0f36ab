//! Starts QEMU so that it outlives the agent: limited, unprivileged, in its own session, observed from the first moment.
//!
//! The work is done by the [`super::shim`]; this module starts it, limits its time and interprets its reply. A caller gets either a
//! [`ProcessRef`] of a QEMU whose exec succeeded, or an error that says which step failed on what. If QEMU itself then gives up (a locked
//! disk, a missing CPU feature), [`wait_ready`] finds the process gone instead of a QMP socket, and its error contains QEMU's own output.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use thiserror::Error;
use tokio::io::AsyncReadExt;
use tokio::process::Command;

use super::argv::{SpecError, VmSpec, nic_fd, render_argv};
use super::handover;
use super::isolate::Isolation;
use super::keeper::{self, ConsoleBound};
use super::process::{ProcessError, ProcessRef};
use super::shim::{LaunchReply, LaunchSpec, Step};
use super::socket::QemuSocket;
use crate::qmp::{QmpClient, QmpError};

/// How long the steps from fork to exec may take. They never end if the control group is frozen.
const SHIM_TIMEOUT: Duration = Duration::from_secs(10);
/// How many files one QEMU may have open: disks, sockets, eventfds of its queues, and more for hotplug.
const OPEN_FILES_MAX: u64 = 4096;

/// The user, control groups and namespace that one QEMU runs in.
#[derive(Debug, Clone, PartialEq)]
pub struct Confinement {
    pub uid: u32,
    pub gid: u32,
    pub supplementary_gids: Vec<u32>,
    /// The `cgroup.procs` files, from [`crate::host::cgroup::Group::procs_files`].
    pub cgroup_procs: Vec<PathBuf>,
    pub pid_namespace: Option<PathBuf>,
    pub isolation: Option<Isolation>,
    /// The file for the end of QEMU's stdout and stderr.
    pub stderr: PathBuf,
    /// How large the console's log may grow.
    pub console_max_bytes: u64,
}

/// How the shim is run: a program and its arguments; the rest comes through its stdin.
#[derive(Debug, Clone)]
pub struct Launcher {
    qemu: PathBuf,
    shim: PathBuf,
    shim_args: Vec<String>,
}

#[derive(Debug, Error)]
pub enum LaunchError {
    #[error("the machine can't be described to QEMU")]
    Spec(#[source] SpecError),
    #[error("the socket {path} of an earlier run can't be removed")]
    StaleSocket {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{taps} taps for {nics} NICs")]
    Taps { nics: usize, taps: usize },
    #[error("the launch program {shim} can't be run")]
    Shim {
        shim: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the launch program ended without a usable answer: {output:?}")]
    ShimAnswer { output: String },
    #[error("starting QEMU failed at {step:?} ({subject})")]
    Step {
        step: Step,
        subject: String,
        #[source]
        source: io::Error,
    },
    #[error("QEMU was not started within {} s; is its cgroup frozen?", SHIM_TIMEOUT.as_secs())]
    Timeout,
}

#[derive(Debug, Error)]
pub enum ReadyError {
    #[error("QEMU ended before its monitor answered; its last output: {stderr}")]
    Ended { stderr: String },
    #[error("QEMU didn't open {socket} within {after:?}; its last output: {stderr}")]
    Timeout { socket: PathBuf, after: Duration, stderr: String },
    #[error("QEMU runs, but its monitor can't be used")]
    Qmp(#[source] QmpError),
    #[error("QEMU can't be observed")]
    Process(#[source] ProcessError),
}

impl Launcher {
    /// A launcher that runs `shim shim_args…`.
    pub fn new(qemu: impl Into<PathBuf>, shim: impl Into<PathBuf>, shim_args: &[&str]) -> Self {
        let shim_args = shim_args.iter().map(|arg| (*arg).to_owned()).collect();
        Self { qemu: qemu.into(), shim: shim.into(), shim_args }
    }

    /// A launcher that runs this very binary with the argument `vm-launch`, even if its file has been replaced by an upgrade.
    pub fn this_binary(qemu: impl Into<PathBuf>) -> Self {
        Self::new(qemu, "/proc/self/exe", &["vm-launch"])
    }

    /// Starts QEMU and returns when its exec has succeeded. Stale sockets of an earlier run are removed first.
    ///
    /// When the future is dropped, or ends in a timeout, a QEMU may still have started in the instant before: what is
    /// in the instance's control group is the truth, and [`crate::host::cgroup::Group::kill_all`] ends it.
    ///
    /// `taps` are those of the spec's NICs, in the NICs' order.
    pub async fn launch(
        &self,
        spec: &VmSpec,
        confinement: &Confinement,
        taps: Vec<Arc<OwnedFd>>,
    ) -> Result<ProcessRef, LaunchError> {
        let launch = self.describe(spec, confinement, &taps)?;
        self.start(&launch, taps).await
    }

    /// Starts a QEMU without NICs that ends when the other end of `lifeline`, a pipe, is closed: with the process that holds it.
    pub async fn launch_bound(
        &self,
        spec: &VmSpec,
        confinement: &Confinement,
        lifeline: Arc<OwnedFd>,
    ) -> Result<ProcessRef, LaunchError> {
        let launch = LaunchSpec { lifeline: true, ..self.describe(spec, confinement, &[])? };
        self.start(&launch, vec![lifeline]).await
    }

    /// What the shim must start; stale sockets of an earlier run are removed.
    fn describe(
        &self,
        spec: &VmSpec,
        confinement: &Confinement,
        taps: &[Arc<OwnedFd>],
    ) -> Result<LaunchSpec, LaunchError> {
        spec.check().map_err(LaunchError::Spec)?;
        if taps.len() != spec.nics.len() {
            return Err(LaunchError::Taps { nics: spec.nics.len(), taps: taps.len() });
        }
        for socket in [&spec.qmp_socket, &spec.serial_socket] {
            match std::fs::remove_file(socket) {
                Err(source) if source.kind() != io::ErrorKind::NotFound => {
                    return Err(LaunchError::StaleSocket { path: socket.clone(), source });
                }
                Ok(()) | Err(_) => {}
            }
        }
        // `check` made sure that every path is UTF-8, and the rest is text anyway.
        let args = render_argv(spec).into_iter().map(|arg| arg.to_string_lossy().into_owned()).collect();
        Ok(LaunchSpec {
            program: self.qemu.clone(),
            args,
            uid: confinement.uid,
            gid: confinement.gid,
            supplementary_gids: confinement.supplementary_gids.clone(),
            cgroup_procs: confinement.cgroup_procs.clone(),
            pid_namespace: confinement.pid_namespace.clone(),
            isolation: confinement.isolation.clone(),
            stderr: confinement.stderr.clone(),
            console: Some(ConsoleBound { path: spec.console_log.clone(), max_bytes: confinement.console_max_bytes }),
            open_files_max: OPEN_FILES_MAX,
            fds: spec.nics.iter().map(|nic| nic_fd(nic.slot)).collect(),
            lifeline: false,
        })
    }

    /// Starts any program; `files` are those of [`LaunchSpec::fds`], and the lifeline if there is one.
    pub async fn start(&self, spec: &LaunchSpec, files: Vec<Arc<OwnedFd>>) -> Result<ProcessRef, LaunchError> {
        let shim_error = |source| LaunchError::Shim { shim: self.shim.clone(), source };
        let (ours, theirs) = StdUnixStream::pair().map_err(shim_error)?;
        let mut shim = Command::new(&self.shim)
            .args(&self.shim_args)
            .env_clear()
            .stdin(Stdio::from(OwnedFd::from(theirs)))
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .map_err(shim_error)?;
        let exchange = async {
            let text = serde_json::to_vec(spec).map_err(io::Error::from)?;
            let hand_over = move || {
                let files: Vec<_> = files.iter().map(|file| file.as_fd()).collect();
                handover::send(&ours, &text, &files)
            };
            tokio::task::spawn_blocking(hand_over).await.map_err(io::Error::other)??;
            let mut output = Vec::new();
            shim.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?.read_to_end(&mut output).await?;
            shim.wait().await?;
            Ok(output)
        };
        let output = match tokio::time::timeout(SHIM_TIMEOUT, exchange).await {
            Ok(result) => result.map_err(shim_error)?,
            Err(_) => return Err(LaunchError::Timeout),
        };
        match serde_json::from_slice(&output) {
            Ok(LaunchReply::Started(process)) => Ok(process),
            Ok(LaunchReply::Failed { step, subject, errno }) => {
                Err(LaunchError::Step { step, subject, source: io::Error::from_raw_os_error(errno) })
            }
            Err(_) => Err(LaunchError::ShimAnswer { output: String::from_utf8_lossy(&output).into_owned() }),
        }
    }
}

/// Connects to the monitor that QEMU is about to open, or has open (adoption). Returns early, with QEMU's own output, when
/// the process ends. QEMU opens the monitor before its disks, so only the answered handshake counts.
pub async fn wait_ready(
    process: &ProcessRef,
    qmp_socket: &QemuSocket,
    stderr: &Path,
    timeout: Duration,
) -> Result<QmpClient, ReadyError> {
    let ended = async || ReadyError::Ended { stderr: keeper::final_output(stderr).await };
    let Some(handle) = process.open().map_err(ReadyError::Process)? else { return Err(ended().await) };
    let connected = tokio::select! {
        connected = tokio::time::timeout(timeout, connect(qmp_socket, timeout)) => connected,
        exit = handle.wait_exit() => return Err(match exit {
            Ok(()) => ended().await,
            Err(error) => ReadyError::Process(error),
        }),
    };
    match connected {
        Ok(Ok(client)) => Ok(client),
        Ok(Err(QmpError::Closed)) => {
            // QEMU is about to end, and its output is complete when it is gone.
            let exit = tokio::time::timeout(timeout, handle.wait_exit()).await;
            Err(if exit.is_ok() { ended().await } else { ReadyError::Qmp(QmpError::Closed) })
        }
        Ok(Err(error)) => Err(ReadyError::Qmp(error)),
        Err(_) => {
            let stderr = keeper::tail(stderr);
            Err(ReadyError::Timeout { socket: qmp_socket.path.clone(), after: timeout, stderr })
        }
    }
}

/// Tries until the socket exists. A failed connect costs microseconds; a watch on the directory would cost more code than it saves time.
async fn connect(socket: &QemuSocket, timeout: Duration) -> Result<QmpClient, QmpError> {
    const RETRY: Duration = Duration::from_millis(2);
    loop {
        match socket.connect().await {
            Ok(stream) => return QmpClient::over(stream, timeout).await,
            Err(_) => tokio::time::sleep(RETRY).await,
        }
    }
}
