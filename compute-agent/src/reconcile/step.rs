//! What [`super::plan`] decides: the closed list of steps, and what is shown of the instance meanwhile. Pure.

use super::{layout::DiskFile, observed::ObservedNic};
use crate::ledger::{HaltCause, Nic};
use domain::instance::InstanceState;

/// A QEMU that ended sooner than this after its start crashed quickly.
pub const QUICK_CRASH_MS: i64 = 60_000;
/// This many quick crashes in a row are a crash loop.
pub const CRASH_LOOP: u32 = 5;

/// A QEMU doesn't answer after this many failed attempts to connect to its monitor.
pub const SILENT_ATTEMPTS: u32 = 3;

/// The steps that the agent takes for an instance. Each of them may be repeated, and may be cut off at any point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Do nothing until something happens, or until `Plan::wake_at`.
    Wait,
    /// The recorded QEMU is gone: record how it ended.
    Settle(Exit),
    /// Record that the instance stays down.
    Halt {
        cause: HaltCause,
        reason: String,
    },
    /// Record that it no longer stays down.
    LiftHalt,
    /// Connect to QEMU's monitor and serial port.
    Attach,
    FetchImage,
    /// Make what is missing, all of it at the same time.
    Prepare {
        disks: Vec<DiskFile>,
        config_drive: bool,
    },
    GrowDisk {
        file: DiskFile,
        size_gib: u64,
    },
    /// Acquire the ports of all NICs for the start that follows.
    AcquirePorts,
    Launch,
    /// Plug a NIC into the running QEMU.
    PlugNic {
        nic: Nic,
        slot: u8,
    },
    /// Ask the guest to release a NIC.
    UnplugNic(ObservedNic),
    /// Release ports, and remove what QEMU still holds of them.
    ReleaseNics(Vec<Nic>),
    Cont,
    /// Let the guest go on after a disk error.
    RetryIo,
    Pause,
    /// Press the power button.
    Powerdown,
    /// Press the reset button.
    Reset,
    /// Record that this `boot_seq` is done.
    Booted,
    /// End QEMU.
    Kill(Cause),
    /// Destroy a disk that is no longer desired, so that nobody can read it.
    DestroyDisk(DiskFile),
    /// Remove everything else that is left: directories, console log, control group.
    RemoveLeftovers,
    /// Replace the ledger entry by its tombstone.
    WriteTombstone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepKind {
    Ledger,
    Attach,
    FetchImage,
    Prepare,
    GrowDisk,
    AcquirePorts,
    Launch,
    Nics,
    Control,
    Kill,
    Remove,
}

impl Step {
    /// The kind under which a failure of the step is remembered.
    #[must_use]
    pub fn kind(&self) -> StepKind {
        match self {
            Self::Wait | Self::Settle(_) | Self::Halt { .. } | Self::LiftHalt | Self::Booted | Self::WriteTombstone => {
                StepKind::Ledger
            }
            Self::Attach => StepKind::Attach,
            Self::FetchImage => StepKind::FetchImage,
            Self::Prepare { .. } => StepKind::Prepare,
            Self::GrowDisk { .. } => StepKind::GrowDisk,
            Self::AcquirePorts => StepKind::AcquirePorts,
            Self::Launch => StepKind::Launch,
            Self::PlugNic { .. } | Self::UnplugNic(_) | Self::ReleaseNics(_) => StepKind::Nics,
            Self::Cont | Self::RetryIo | Self::Pause | Self::Powerdown | Self::Reset => StepKind::Control,
            Self::Kill(_) => StepKind::Kill,
            Self::DestroyDisk(_) | Self::RemoveLeftovers => StepKind::Remove,
        }
    }
}

/// Why the agent ends a QEMU.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// The instance must be off.
    Off,
    Delete,
    Rebuild,
    Reboot,
    Resize,
    /// The guest has ended, and QEMU only holds still.
    Ended,
    /// The guest or QEMU broke, which counts as a crash.
    Broken(&'static str),
}

/// How a QEMU ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// The desired state or the agent's own command ended it.
    Expected,
    /// The host was restarted.
    HostRestarted,
    /// It ended before its monitor answered.
    FailedStart,
    Crashed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub step: Step,
    pub shown: Shown,
    /// The latest time at which to plan again; only for [`Step::Wait`].
    pub wake_at: Option<u64>,
}

/// What is reported of the instance while the step is taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    pub state: InstanceState,
    pub step: String,
    pub reason: String,
    pub converged: bool,
}

/// How long a start waits after the n-th quick crash in a row, ms.
#[must_use]
pub fn crash_backoff_ms(quick_crashes: u32) -> u64 {
    match quick_crashes {
        0 | 1 => 0,
        n => 500 << (n - 2).min(6),
    }
}

/// How long a failed step waits before its n-th repetition, ms: 0.5 s to 30 s, and at most 5 s where only the host's own
/// network-agent is waited for.
#[must_use]
pub fn retry_backoff_ms(kind: StepKind, count: u32) -> u64 {
    let most = match kind {
        StepKind::AcquirePorts | StepKind::Nics => 5_000,
        StepKind::Ledger
        | StepKind::Attach
        | StepKind::FetchImage
        | StepKind::Prepare
        | StepKind::GrowDisk
        | StepKind::Launch
        | StepKind::Control
        | StepKind::Kill
        | StepKind::Remove => 30_000,
    };
    (250_u64 << count.min(8)).min(most)
}
