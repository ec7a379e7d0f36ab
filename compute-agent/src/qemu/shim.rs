//! Takes the few steps between the agent and QEMU's exec in a process of its own: `iaasd vm-launch`.
//!
//! Joining a PID namespace takes a fork after `setns`, and between fork and exec only async-signal-safe calls are sound
//! while other threads exist: the agent has many. `pre_exec` hooks in the agent were rejected for that, and because a
//! hook that fails reports nothing but an errno. So the agent starts this program, single-threaded and without a runtime,
//! with a JSON [`LaunchSpec`] on stdin (a socket, so that open taps can come with it). It joins the cgroups, enters the namespace, forks a process that
//! keeps the program's output ([`keeper`]), and forks again. That child becomes its own session, enters namespaces of its own ([`isolate`]), drops every privilege and execs. The parent waits for the exec's outcome, writes a [`LaunchReply`] to
//! stdout and ends. The child is then a child of init alone.
//!
//! Order matters:
//! - cgroups first, as root, so that nothing of QEMU ever runs outside its limits (or its freezer);
//! - files beyond 0 to 2 are marked close-on-exec: nothing leaks in, and the status pipe closes by itself at exec; the ones that were
//!   handed over get the numbers that the command line names, in the child;
//! - groups, then gid, then uid, then `no_new_privs`; a failing step ends the launch, none is skipped.

use std::convert::Infallible;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{ForkResult, Gid, Uid, fork, setgroups, setresgid, setresuid, setsid};
use rustix::event::{PollFd, PollFlags};
use rustix::process::{Resource, Rlimit, setrlimit};
use serde::{Deserialize, Serialize};

use super::handover;
use super::isolate::{self, Isolation};
use super::keeper::{self, ConsoleBound};
use super::process::ProcessRef;

/// What the shim must start. Paths are absolute.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LaunchSpec {
    pub program: PathBuf,
    pub args: Vec<String>,
    /// The user and group. Neither may be 0: QEMU never runs as root.
    pub uid: u32,
    pub gid: u32,
    /// Further groups, such as the one that may open `/dev/kvm`.
    pub supplementary_gids: Vec<u32>,
    /// The `cgroup.procs` files to join, one per hierarchy.
    pub cgroup_procs: Vec<PathBuf>,
    /// The PID namespace to start in, such as `/proc/N/ns/pid` or a bind mount of one.
    pub pid_namespace: Option<PathBuf>,
    /// Its own mount, network and IPC namespaces, and what it sees in them. `None`: the host's.
    #[serde(default)]
    pub isolation: Option<Isolation>,
    /// The file for the end of stdout and stderr; it is created with mode 0600, or emptied.
    pub stderr: PathBuf,
    /// The console's log, if it is to be kept small.
    #[serde(default)]
    pub console: Option<ConsoleBound>,
    /// Both values of RLIMIT_NOFILE.
    pub open_files_max: u64,
    /// The file descriptors that the files which come with this text get in the program, in their order.
    #[serde(default)]
    pub fds: Vec<u32>,
    /// Whether the last of the files is a pipe whose other end the program's owner holds: the program ends when that is closed.
    #[serde(default)]
    pub lifeline: bool,
}

/// What the shim answers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LaunchReply {
    /// The exec succeeded.
    Started(ProcessRef),
    /// A step failed, and nothing runs.
    Failed { step: Step, subject: String, errno: i32 },
}

/// The steps of a launch, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// EBADF here means that other files came than were announced.
    ReadSpec,
    CloseFiles,
    JoinCgroup,
    /// ENOMEM here means that the namespace's init has ended.
    EnterPidNamespace,
    OpenStderr,
    Fork,
    NewSession,
    /// EPERM here means that the agent itself may make no namespaces.
    Isolate,
    Limits,
    DropPrivileges,
    PlaceFiles,
    Exec,
    Identify,
    Watch,
}

struct Failure {
    step: Step,
    subject: String,
    source: io::Error,
}

/// Makes the error of one step.
fn failed(step: Step, subject: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Failure {
    let subject = subject.as_ref().display().to_string();
    move |source| Failure { step, subject, source }
}

/// The whole program. It must be called before any thread is started.
pub fn shim_main() -> ExitCode {
    let reply = match launch() {
        Ok(process) => LaunchReply::Started(process),
        Err(Failure { step, subject, source }) => {
            LaunchReply::Failed { step, subject, errno: source.raw_os_error().unwrap_or(nix::libc::EIO) }
        }
    };
    let text = serde_json::to_vec(&reply).unwrap_or_default();
    match io::stdout().write_all(&text).and_then(|()| io::stdout().flush()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

fn launch() -> Result<ProcessRef, Failure> {
    let (spec, mut files) = read_spec().map_err(failed(Step::ReadSpec, "stdin"))?;
    let lifeline = if spec.lifeline { files.pop() } else { None };
    close_files_on_exec().map_err(failed(Step::CloseFiles, "/proc/self/fd"))?;
    for procs in &spec.cgroup_procs {
        // "0" stands for the writer, whatever its number is in this namespace.
        let join = || OpenOptions::new().write(true).open(procs)?.write_all(b"0");
        join().map_err(failed(Step::JoinCgroup, procs))?;
    }
    // Before the namespace: what it holds may end with it, and the keeper ends with the program alone.
    let stderr = start_keeper(&spec).map_err(failed(Step::OpenStderr, &spec.stderr))?;
    if let Some(path) = &spec.pid_namespace {
        let enter = || Ok(setns(File::open(path)?, CloneFlags::CLONE_NEWPID)?);
        enter().map_err(failed(Step::EnterPidNamespace, path))?;
    }
    let (mut status, status_writer) = io::pipe().map_err(failed(Step::Fork, "pipe"))?;

    // SAFETY: this process has one thread (it is called before any is started), so the child may do whatever the parent
    // could.
    let forked = unsafe { fork() };
    let forked = forked.map_err(|errno| match (&spec.pid_namespace, errno) {
        // This is the kernel's answer to a fork into a namespace whose init has ended.
        (Some(path), nix::errno::Errno::ENOMEM) => failed(Step::EnterPidNamespace, path)(errno.into()),
        _ => failed(Step::Fork, "fork")(errno.into()),
    });
    match forked? {
        ForkResult::Child => {
            drop(status);
            let failure = become_qemu(&spec, &files, stderr);
            let errno = failure.source.raw_os_error().unwrap_or(nix::libc::EIO);
            let reply = LaunchReply::Failed { step: failure.step, subject: failure.subject, errno };
            let mut status_writer = status_writer;
            let written = status_writer.write_all(&serde_json::to_vec(&reply).unwrap_or_default());
            #[expect(clippy::disallowed_methods, reason = "the forked child must not run on as a second shim")]
            std::process::exit(if written.is_ok() { 126 } else { 127 });
        }
        ForkResult::Parent { child } => {
            drop(status_writer);
            // The child is identified before the outcome is known, because a QEMU that execs and ends at once is a zombie by then.
            let identified = ProcessRef::of_pid(child.as_raw());
            let mut outcome = Vec::new();
            status.read_to_end(&mut outcome).map_err(failed(Step::Exec, &spec.program))?;
            if outcome.is_empty() {
                let process = identified.map_err(failed(Step::Identify, &spec.program))?;
                if let Some(lifeline) = lifeline {
                    start_watcher(&process, &lifeline).map_err(failed(Step::Watch, &spec.program))?;
                }
                return Ok(process);
            }
            match serde_json::from_slice(&outcome) {
                Ok(LaunchReply::Failed { step, subject, errno }) => {
                    Err(Failure { step, subject, source: io::Error::from_raw_os_error(errno) })
                }
                Ok(LaunchReply::Started(_)) | Err(_) => {
                    Err(failed(Step::Exec, &spec.program)(io::ErrorKind::InvalidData.into()))
                }
            }
        }
    }
}

/// Forks the process that keeps the program's output ([`keeper`]), and answers the program's end of it. The keeper is forked first, so that
/// it holds nothing of what the program opens, and closes what the program was handed.
fn start_keeper(spec: &LaunchSpec) -> io::Result<UnixStream> {
    let mut file = OpenOptions::new()
        .create(true)
        .read(true)
        .write(true)
        .truncate(false)
        .mode(0o600)
        .custom_flags(nix::libc::O_NOFOLLOW)
        .open(&spec.stderr)?;
    // The keeper of the program before may still be writing its last words.
    rustix::fs::flock(&file, rustix::fs::FlockOperation::LockExclusive)?;
    file.set_len(0)?;
    let (program, ours) = UnixStream::pair()?;
    // SAFETY: this process has one thread (it is called before any is started), so the child may do whatever the parent
    // could.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        return Ok(program);
    }
    drop(program);
    let become_keeper = || -> io::Result<()> {
        close_all_but(&[ours.as_raw_fd(), file.as_raw_fd()])?;
        setsid()?;
        silence_standard_streams()?;
        if let Some(isolation) = &spec.isolation {
            isolate::enter(isolation)?;
        }
        drop_privileges(spec)
    };
    let ready = become_keeper();
    if ready.is_ok() {
        keeper::keep(&ours, &mut file, spec.console.as_ref());
    }
    #[expect(clippy::disallowed_methods, reason = "the forked child must not run on as a second shim")]
    std::process::exit(i32::from(ready.is_err()));
}

/// Closes all files but the standard streams and those that are named. What the program was handed (its taps above all) would otherwise stay open
/// in the keeper after the program has closed it.
fn close_all_but(kept: &[i32]) -> io::Result<()> {
    let mut open = Vec::new();
    for entry in std::fs::read_dir("/proc/self/fd")? {
        open.extend(entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()));
    }
    for fd in open.into_iter().filter(|fd| *fd > 2 && !kept.contains(fd)) {
        // SAFETY: this process ends by `exit` from where it is, so whoever owns the file in it never uses or closes it. The number of the
        // listing itself is closed already.
        unsafe { nix::libc::close(fd) };
    }
    Ok(())
}

/// Forks the process that ends the program when the other end of `lifeline` is closed, and that ends with the program itself.
fn start_watcher(process: &ProcessRef, lifeline: &OwnedFd) -> io::Result<()> {
    let pid = rustix::process::Pid::from_raw(process.pid).ok_or(io::ErrorKind::NotFound)?;
    let program = match rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()) {
        // One that has ended already needs nobody to end it.
        Err(rustix::io::Errno::SRCH) => return Ok(()),
        opened => opened?,
    };
    // SAFETY: this process has one thread (it is called before any is started), so the child may do whatever the parent
    // could.
    if let ForkResult::Parent { .. } = unsafe { fork() }? {
        return Ok(());
    }
    let watch = || -> io::Result<()> {
        close_all_but(&[program.as_raw_fd(), lifeline.as_raw_fd()])?;
        setsid()?;
        silence_standard_streams()?;
        let mut ends = [PollFd::new(&program, PollFlags::IN), PollFd::new(lifeline, PollFlags::empty())];
        while let Err(rustix::io::Errno::INTR) = rustix::event::poll(&mut ends, None) {}
        // An error means that it has just ended.
        let _ = rustix::process::pidfd_send_signal(&program, rustix::process::Signal::KILL);
        Ok(())
    };
    let watched = watch();
    #[expect(clippy::disallowed_methods, reason = "the forked child must not run on as a second shim")]
    std::process::exit(i32::from(watched.is_err()));
}

/// Whoever waits for the shim's answer reads to the end of these.
fn silence_standard_streams() -> io::Result<()> {
    let null = OpenOptions::new().read(true).write(true).open("/dev/null")?;
    for number in 0..=2 {
        // SAFETY: both are open, and what the number meant before is used by nobody here.
        if unsafe { nix::libc::dup2(null.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn read_spec() -> io::Result<(LaunchSpec, Vec<OwnedFd>)> {
    let (text, files) = handover::receive(io::stdin().as_fd())?;
    let spec: LaunchSpec =
        serde_json::from_slice(&text).map_err(|_| io::Error::from_raw_os_error(nix::libc::EINVAL))?;
    if spec.fds.len() + usize::from(spec.lifeline) != files.len() {
        return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
    }
    if spec.uid == 0 || spec.gid == 0 || spec.supplementary_gids.contains(&0) {
        return Err(io::Error::from_raw_os_error(nix::libc::EPERM));
    }
    Ok((spec, files))
}

fn close_files_on_exec() -> io::Result<()> {
    for entry in std::fs::read_dir("/proc/self/fd")? {
        let Some(fd) = entry?.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else { continue };
        if fd <= 2 {
            continue;
        }
        // SAFETY: the number was just listed as open; that of the listing itself may be closed again by the time the
        // loop ends, but not while it runs, and only a flag is set.
        let fd = unsafe { BorrowedFd::borrow_raw(fd) };
        rustix::io::fcntl_setfd(fd, rustix::io::FdFlags::CLOEXEC)?;
    }
    Ok(())
}

/// Runs in the child; returns only when a step failed.
fn become_qemu(spec: &LaunchSpec, files: &[OwnedFd], stderr: UnixStream) -> Failure {
    let prepare = || -> Result<Infallible, Failure> {
        setsid().map_err(|errno| failed(Step::NewSession, "setsid")(errno.into()))?;
        if let Some(isolation) = &spec.isolation {
            isolate::enter(isolation).map_err(failed(Step::Isolate, "namespaces"))?;
        }
        let limit = |value| Rlimit { current: Some(value), maximum: Some(value) };
        setrlimit(Resource::Nofile, limit(spec.open_files_max))
            .and_then(|()| setrlimit(Resource::Core, limit(0)))
            .map_err(|errno| failed(Step::Limits, "setrlimit")(errno.into()))?;
        rustix::process::umask(rustix::fs::Mode::from_raw_mode(0o077));
        drop_privileges(spec).map_err(failed(Step::DropPrivileges, format!("uid {}", spec.uid)))?;
        place_files(&spec.fds, files).map_err(failed(Step::PlaceFiles, "files"))?;
        let stderr = OwnedFd::from(stderr);
        let out = stderr.try_clone().map_err(failed(Step::OpenStderr, &spec.stderr))?;
        let source = Command::new(&spec.program)
            .args(&spec.args)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(out)
            .stderr(stderr)
            .exec();
        Err(failed(Step::Exec, &spec.program)(source))
    };
    let Err(failure) = prepare();
    failure
}

/// Gives the files their descriptors, which exec leaves open.
fn place_files(numbers: &[u32], files: &[OwnedFd]) -> io::Result<()> {
    let highest_used = files.iter().map(AsRawFd::as_raw_fd).max().unwrap_or_default();
    for (number, file) in numbers.iter().zip(files) {
        let number = i32::try_from(*number).map_err(|_| io::Error::from_raw_os_error(nix::libc::EBADF))?;
        // The files that are still to be placed must not be overwritten.
        if number <= highest_used {
            return Err(io::Error::from_raw_os_error(nix::libc::EBADF));
        }
        // SAFETY: both are plain numbers to the kernel; what `number` may have meant before is no file of ours that is used again.
        if unsafe { nix::libc::dup2(file.as_raw_fd(), number) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

fn drop_privileges(spec: &LaunchSpec) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    let groups: Vec<Gid> = spec.supplementary_gids.iter().copied().map(Gid::from_raw).collect();
    setgroups(&groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}
