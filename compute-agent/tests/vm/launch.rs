//! Tests of how QEMU is started: unprivileged, alone in its session, sandboxed, in a given PID namespace; and what a failure reports.

use std::collections::BTreeSet;
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use compute_agent::qemu::keeper::{ConsoleBound, OUTPUT_KEPT, final_output};
use compute_agent::qemu::launch::{LaunchError, ReadyError, wait_ready};
use compute_agent::qemu::shim::{LaunchSpec, Step};
use compute_agent::qemu::socket::QemuSocket;

use crate::rig::{GID, Scratch, TIMEOUT, UID, Vm, guest, launcher, qemu, status_field};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn qemu_runs_unprivileged_sandboxed_and_alone() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    spec.paused = true;
    // A file that the agent left inheritable must not reach QEMU.
    let (leak, _other) = nix::unistd::pipe().expect("a pipe");
    let vm = Vm::start(&qemu, &spec, &scratch.confinement()).await;
    drop(leak);
    let pid = vm.process.pid;
    assert_eq!(status_field(pid, "Uid"), vec![UID.to_string(); 4]);
    assert_eq!(status_field(pid, "Gid"), vec![GID.to_string(); 4]);
    assert_eq!(status_field(pid, "Groups"), Vec::<String>::new());
    for set in ["CapInh", "CapPrm", "CapEff", "CapAmb"] {
        assert_eq!(u64::from_str_radix(&status_field(pid, set)[0], 16), Ok(0), "{set}");
    }
    assert_eq!(status_field(pid, "NoNewPrivs"), ["1"]);
    assert_eq!(status_field(pid, "Seccomp"), ["2"], "the sandbox filters");
    assert_eq!(status_field(pid, "Umask"), ["0077"]);

    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
    let fields: Vec<&str> = stat[stat.rfind(')').expect("a name") + 2..].split(' ').collect();
    assert_eq!(
        (fields[2], fields[3]),
        (pid.to_string().as_str(), pid.to_string().as_str()),
        "its own group and session"
    );
    assert_ne!(fields[1], std::process::id().to_string(), "not the agent's child");

    let limits = std::fs::read_to_string(format!("/proc/{pid}/limits")).expect("it runs");
    let limit = |name: &str| limits.lines().find(|line| line.starts_with(name)).expect("listed").to_owned();
    assert!(limit("Max core file size").contains(" 0 "), "{limits}");
    assert!(limit("Max open files").contains(" 4096 "), "{limits}");

    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("it runs");
    assert!(environment.is_empty(), "{}", String::from_utf8_lossy(&environment));
    let targets: BTreeSet<String> = std::fs::read_dir(format!("/proc/{pid}/fd"))
        .expect("it runs")
        .filter_map(|entry| Some(std::fs::read_link(entry.ok()?.path()).ok()?.display().to_string()))
        .collect();
    // QEMU's own: sockets, eventfds, its log and its stderr; an inherited pipe or file would stand out.
    let own = |target: &String| {
        ["socket:", "anon_inode:", "/dev/null", "/memfd:"].iter().any(|kind| target.starts_with(kind))
            || target.starts_with(&scratch.dir.path().display().to_string())
    };
    assert!(targets.iter().all(own), "{targets:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_left_inheritable_stops_at_the_shim() {
    let Some(_) = qemu() else { return };
    let scratch = Scratch::make().await;
    let list = scratch.dir.path().join("list");
    let spec = serde_json::json!({
        "program": "/bin/ls", "args": ["-l", "/proc/self/fd"], "uid": UID, "gid": GID, "supplementary_gids": [],
        "cgroup_procs": [], "pid_namespace": null, "stderr": list, "open_files_max": 64,
    });
    // A pipe at 9, not close-on-exec, as a careless library would leave it.
    let (ours, theirs) = std::os::unix::net::UnixStream::pair().expect("a pair");
    let mut shim = Command::new("/bin/sh")
        .args(["-c", "exec 9</etc/hostname; exec \"$0\""])
        .arg(env!("CARGO_BIN_EXE_vm_launch"))
        .stdin(Stdio::from(std::os::fd::OwnedFd::from(theirs)))
        .stdout(Stdio::piped())
        .spawn()
        .expect("runs");
    std::io::Write::write_all(&mut &ours, spec.to_string().as_bytes()).expect("written");
    ours.shutdown(std::net::Shutdown::Write).expect("ended");
    let mut answer = String::new();
    shim.stdout.take().expect("piped").read_to_string(&mut answer).expect("readable");
    assert!(shim.wait().expect("ends").success() && answer.contains("started"), "{answer}");
    let process: serde_json::Value = serde_json::from_str(&answer).expect("JSON");
    let process = serde_json::from_value::<compute_agent::qemu::process::ProcessRef>(process["started"].clone());
    tokio::time::timeout(TIMEOUT, process.expect("a process").wait_exit()).await.expect("in time").expect("observed");
    let listed = compute_agent::qemu::keeper::final_output(&list).await;
    assert!(listed.contains("/dev/null") && !listed.contains("/etc/hostname"), "{listed}");
}

/// A PID namespace with an init that does nothing; it ends with the test.
struct Namespace(Child);

impl Namespace {
    fn make() -> Option<(Self, i32)> {
        // The inner shell says its host pid through the outer one's child list.
        let mut command = Command::new("unshare");
        command.args(["--pid", "--fork", "--kill-child", "sleep", "600"]).stdin(Stdio::null()).process_group(0);
        let child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                println!("not run: unshare is missing ({error})");
                return None;
            }
        };
        let children = format!("/proc/{0}/task/{0}/children", child.id());
        let started = std::time::Instant::now();
        let init = loop {
            let init = std::fs::read_to_string(&children).ok().and_then(|text| text.trim().parse::<i32>().ok());
            let execed = |pid: &i32| std::fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|c| c == "sleep\n");
            if let Some(init) = init.filter(execed) {
                break init;
            }
            assert!(started.elapsed() < TIMEOUT, "the namespace's init didn't come up");
            std::thread::yield_now();
        };
        Some((Self(child), init))
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_given_pid_namespace_holds_qemu_and_takes_it_along_when_it_ends() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let Some((namespace, init)) = Namespace::make() else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    spec.paused = true;
    let mut confinement = scratch.confinement();
    confinement.pid_namespace = Some(format!("/proc/{init}/ns/pid").into());
    let vm = Vm::start(&qemu, &spec, &confinement).await;
    let namespace_of = |pid: i32| std::fs::read_link(format!("/proc/{pid}/ns/pid")).expect("it runs");
    assert_eq!(namespace_of(vm.process.pid), namespace_of(init));
    assert_ne!(namespace_of(vm.process.pid), namespace_of(std::process::id() as i32));
    assert_eq!(status_field(vm.process.pid, "NSpid").len(), 2, "a number in each");
    drop(namespace);
    vm.gone().await;

    // What is dead can't be entered, and the caller is told at which step.
    let error = launcher(&qemu).launch(&spec, &confinement, vec![]).await.expect_err("no namespace");
    assert!(matches!(error, LaunchError::Step { step: Step::EnterPidNamespace, .. }), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_name_the_step_the_subject_and_the_cause() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let spec = scratch.spec(&guest);
    let failure = async |change: &dyn Fn(&mut compute_agent::qemu::launch::Confinement), qemu: &str| {
        let mut confinement = scratch.confinement();
        change(&mut confinement);
        let error = launcher(qemu.as_ref()).launch(&spec, &confinement, vec![]).await.expect_err("must fail");
        let LaunchError::Step { step, subject, source } = error else { panic!("{error:?}") };
        (step, subject, source.kind())
    };
    let qemu_path = qemu.to_str().expect("UTF-8");
    let not_found = std::io::ErrorKind::NotFound;
    let (step, subject, kind) = failure(&|_| (), "/nonexistent/qemu").await;
    assert_eq!((step, subject.as_str(), kind), (Step::Exec, "/nonexistent/qemu", not_found));
    let (step, _, kind) = failure(&|p| p.cgroup_procs = vec!["/nonexistent/cgroup.procs".into()], qemu_path).await;
    assert_eq!((step, kind), (Step::JoinCgroup, not_found));
    let (step, ..) = failure(&|p| p.stderr = "/nonexistent/stderr".into(), qemu_path).await;
    assert_eq!(step, Step::OpenStderr);
    let (step, ..) = failure(&|p| p.uid = 0, qemu_path).await;
    assert_eq!(step, Step::ReadSpec, "root is refused");

    let missing = compute_agent::qemu::launch::Launcher::new(&qemu, "/nonexistent/shim", &[]);
    assert!(matches!(missing.launch(&spec, &scratch.confinement(), vec![]).await, Err(LaunchError::Shim { .. })));
    let silent = compute_agent::qemu::launch::Launcher::new(&qemu, "/bin/true", &[]);
    assert!(matches!(
        silent.launch(&spec, &scratch.confinement(), vec![]).await,
        Err(LaunchError::ShimAnswer { .. } | LaunchError::Shim { .. })
    ));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_qemu_itself_refuses_is_reported_in_its_words() {
    let (Some(qemu), Some(guest)) = (qemu(), guest()) else { return };
    let scratch = Scratch::make().await;
    let mut spec = scratch.spec(&guest);
    if let compute_agent::qemu::argv::Boot::Kernel { kernel, .. } = &mut spec.boot {
        *kernel = "/nonexistent/kernel".into();
    }
    let process = launcher(&qemu).launch(&spec, &scratch.confinement(), vec![]).await.expect("the exec succeeds");
    let stderr = scratch.confinement().stderr;
    let error = wait_ready(&process, &QemuSocket::new(scratch.run.join("never"), UID), &stderr, TIMEOUT)
        .await
        .expect_err("it ended");
    assert!(matches!(&error, ReadyError::Ended { stderr } if stderr.contains("/nonexistent/kernel")), "{error:?}");

    let sleeper = scratch.confinement();
    let idle = compute_agent::qemu::process::ProcessRef::of_pid(std::process::id() as i32).expect("we run");
    let waited =
        wait_ready(&idle, &QemuSocket::new(scratch.run.join("never"), UID), &sleeper.stderr, Duration::from_millis(20))
            .await;
    assert!(matches!(waited, Err(ReadyError::Timeout { .. })));
}

/// A program that prints without end, and a log that grows without end, while no agent looks.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_output_stays_small_without_a_reader_and_its_end_is_kept() {
    let Some(_) = qemu() else { return };
    let scratch = Scratch::make().await;
    let confinement = scratch.confinement();
    let log = scratch.run.join("console.log");
    let flood = format!(
        "yes flood | head -c 30000000 >&2; yes console | head -c 30000000 > {0}; echo the end >&2",
        log.display()
    );
    let spec = LaunchSpec {
        program: "/bin/sh".into(),
        args: vec!["-c".into(), flood],
        uid: UID,
        gid: GID,
        supplementary_gids: vec![],
        cgroup_procs: vec![],
        pid_namespace: None,
        isolation: None,
        stderr: confinement.stderr.clone(),
        console: Some(ConsoleBound { path: log.clone(), max_bytes: 1 << 20 }),
        open_files_max: 64,
        fds: vec![],
        lifeline: false,
    };
    let process = launcher("/bin/sh".as_ref()).start(&spec, vec![]).await.expect("started");
    tokio::time::timeout(TIMEOUT, process.wait_exit()).await.expect("it is never held up").expect("observed");
    assert!(final_output(&confinement.stderr).await.ends_with("the end"));
    let meta = |path: &std::path::Path| std::fs::metadata(path).expect("there");
    assert!(meta(&confinement.stderr).len() <= 2 * OUTPUT_KEPT, "{:?}", meta(&confinement.stderr));
    assert_eq!(meta(&log).len(), 30_000_000);
    assert!(std::os::unix::fs::MetadataExt::blocks(&meta(&log)) * 512 <= 1 << 20, "{:?}", meta(&log));
}

/// A program that is bound to its owner, here to a pipe, as a probe's QEMU is to its agent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_bound_to_a_lifeline_ends_with_it_and_leaves_nobody_watching() {
    let Some(_) = qemu() else { return };
    let scratch = Scratch::make().await;
    let sleeper = |seconds: &str| LaunchSpec {
        program: "/bin/sleep".into(),
        args: vec![seconds.into()],
        uid: UID,
        gid: GID,
        supplementary_gids: vec![],
        cgroup_procs: vec![],
        pid_namespace: None,
        isolation: None,
        stderr: scratch.dir.path().join(format!("stderr-{seconds}")),
        console: None,
        open_files_max: 64,
        fds: vec![],
        lifeline: true,
    };
    let start = async |seconds| {
        let (reader, writer) = std::io::pipe().expect("a pipe");
        let files = vec![std::sync::Arc::new(std::os::fd::OwnedFd::from(reader))];
        let process = launcher("/bin/sleep".as_ref()).start(&sleeper(seconds), files).await.expect("started");
        (process, writer)
    };
    let (long, lifeline) = start("600").await;
    let (short, other) = start("0.01").await;
    let ended = tokio::time::timeout(TIMEOUT, short.wait_exit()).await;
    ended.expect("by itself").expect("observed");
    assert!(long.alive(), "another's end isn't its own");
    drop(lifeline);
    tokio::time::timeout(TIMEOUT, long.wait_exit()).await.expect("with its owner").expect("observed");
    // Whoever watched it has closed its end of the pipe: nobody is left.
    let closed = async {
        while nix::unistd::write(&other, b"x") != Err(nix::errno::Errno::EPIPE) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(TIMEOUT, closed).await.expect("the watcher has ended, too");
}
