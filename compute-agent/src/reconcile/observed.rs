//! The words of [`super::plan`]: what is seen, what was tried, what can be done, what is shown. Pure.

use crate::ledger::{HaltCause, Nic};
use domain::{PortId, instance::InstanceState};

/// A QEMU that ended sooner than this after its start crashed quickly.
pub const QUICK_CRASH_MS: i64 = 60_000;
/// So many quick crashes in a row are a loop.
pub const CRASH_LOOP: u32 = 5;
/// What is really there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Observed {
    pub process: ObservedProcess,
    /// Root disks on the host, by ascending root_seq; more than one in the middle of a rebuild.
    pub disks: Vec<ObservedDisk>,
    /// All parts of the desired image are in the cache.
    pub image: bool,
    /// A config drive with the desired content exists.
    pub config_drive: bool,
    /// Network cards that QEMU has.
    pub nics: Vec<ObservedNic>,
    /// Nics whose taps are held open for the next start.
    pub taps: Vec<Nic>,
    /// A directory, a cgroup or a file of it exists.
    pub anything: bool,
    /// This boot of the host.
    pub boot_id: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedNic {
    pub slot: u8,
    pub port_id: PortId,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ObservedDisk {
    pub root_seq: u64,
    pub size_gib: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ObservedProcess {
    /// None that the ledger names, nor one in the instance's own cgroup.
    None,
    /// It runs, and we aren't connected to its monitor.
    Silent,
    Speaking(Machine),
}

/// What QMP says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// Made, and no instruction run yet.
    Prelaunch,
    Running,
    Paused,
    PoweredOff,
    Panicked,
    /// A disk of the host failed or is full.
    IoError,
    /// QEMU or KVM gave up.
    Broken,
    /// Something between, that passes by itself.
    Between,
}

/// What the task has tried, forgotten at a restart of the agent. Times are milliseconds of a monotonic clock.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Attempts {
    pub failure: Option<Failure>,
    /// The power button was pressed in this life of QEMU: first, and last.
    pub asked: Option<(u64, u64)>,
    /// We ended this QEMU ourselves.
    pub ending: bool,
    /// This QEMU was started by this agent and hasn't answered yet.
    pub fresh: bool,
    /// After a crash: not before this.
    pub start_not_before: u64,
    /// When the guest was last let go on after a disk error.
    pub io_retried: Option<u64>,
    /// The guest was asked to let a NIC go.
    pub unplug: Option<Unplugging>,
    /// What was shown last.
    pub shown: Option<InstanceState>,
    /// "41 %", of the running fetch.
    pub fetched: Option<String>,
    /// Why the last QEMU ended, when somebody knows.
    pub broken: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Unplugging {
    pub port_id: PortId,
    pub first: u64,
    pub last: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub step: StepKind,
    pub reason: String,
    /// A fault shows as `error`; otherwise it passes by itself (a service is away).
    pub fault: bool,
    pub count: u32,
    pub retry_at: u64,
}

/// The closed list of things that are done about an instance. Each may be repeated and cut off anywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Nothing, until something happens or `Plan::wake_at`.
    Wait,
    /// The recorded QEMU is gone: write down what that was.
    Settle(Exit),
    /// Write that it stays down.
    Halt {
        cause: HaltCause,
        reason: String,
    },
    /// Write that it no longer does.
    LiftHalt,
    /// Connect to QEMU's monitor and serial port.
    Attach,
    FetchImage,
    /// Make what is missing, at once.
    Prepare {
        disk: bool,
        config_drive: bool,
    },
    GrowDisk,
    /// Acquire the ports of all NICs for the start that follows.
    AcquirePorts,
    Launch,
    /// Plug a NIC into the running QEMU.
    PlugNic {
        nic: Nic,
        slot: u8,
    },
    /// Ask the guest to let a NIC go.
    UnplugNic(ObservedNic),
    /// Give ports back, and remove what QEMU still holds of them.
    FreeNics(Vec<Nic>),
    Cont,
    Pause,
    /// Press the power button.
    Powerdown,
    /// Press the reset button.
    Reset,
    /// Write that this boot_seq is done with.
    Booted,
    /// End QEMU, for a reason that is no fault of its own.
    Kill(Cause),
    /// Destroy a root disk that is no longer wanted, unreadably.
    DestroyDisk {
        root_seq: u64,
    },
    /// Remove whatever else is left: directories, console log, cgroup.
    RemoveLeftovers,
    /// Replace the entry by its tombstone.
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
    /// What a failure is remembered under.
    #[must_use]
    pub fn kind(&self) -> StepKind {
        match self {
            Self::Wait | Self::Settle(_) | Self::Halt { .. } | Self::LiftHalt | Self::Booted | Self::WriteTombstone => {
                StepKind::Ledger
            }
            Self::Attach => StepKind::Attach,
            Self::FetchImage => StepKind::FetchImage,
            Self::Prepare { .. } => StepKind::Prepare,
            Self::GrowDisk => StepKind::GrowDisk,
            Self::AcquirePorts => StepKind::AcquirePorts,
            Self::Launch => StepKind::Launch,
            Self::PlugNic { .. } | Self::UnplugNic(_) | Self::FreeNics(_) => StepKind::Nics,
            Self::Cont | Self::Pause | Self::Powerdown | Self::Reset => StepKind::Control,
            Self::Kill(_) => StepKind::Kill,
            Self::DestroyDisk { .. } | Self::RemoveLeftovers => StepKind::Remove,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cause {
    /// It should be off.
    Off,
    Delete,
    Rebuild,
    Reboot,
    Resize,
    /// The guest ended, and QEMU only holds still.
    Ended,
    /// The guest or QEMU broke: this is a crash.
    Broken(&'static str),
}

/// What the end of a QEMU was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exit {
    /// Something wanted it.
    Expected,
    /// The host was started anew.
    HostRestarted,
    /// It ended before its monitor answered.
    FailedStart,
    Crashed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Plan {
    pub step: Step,
    pub shown: Shown,
    /// For [`Step::Wait`]: ask again then, at the latest.
    pub wake_at: Option<u64>,
}

/// What is said of the instance while the step is done.
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

/// How long a failed step waits before its n-th repetition, ms: 0.5 s to 30 s; what waits for the host's own network-agent, 5 s.
#[must_use]
pub fn retry_backoff_ms(kind: StepKind, attempts: u32) -> u64 {
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
    (250_u64 << attempts.min(8)).min(most)
}
