//! A stand-in for the host's network-agent: it passes real taps of a network namespace of its own, with the real protocol.

use crate::stand_in::TIMEOUT;
use domain::{InstanceId, PortId, network::MacAddr};
use nix::libc;
use parking_lot::{Condvar, Mutex};
use proto::{
    agent::v1::DesiredPort,
    port_socket::{PortReply, PortRequest, RefusedReason, body_len, decode, encode, send_with_fd},
};
use std::{
    collections::HashMap,
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    os::{
        fd::{AsFd, AsRawFd},
        unix::net::{UnixListener, UnixStream},
    },
    path::Path,
    process::Command,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

pub const MTU: u32 = 1400;

/// A port as the stand-in knows it.
#[derive(Debug, Clone)]
pub struct Port {
    pub id: PortId,
    pub mac: MacAddr,
    pub epoch: i64,
    tap: String,
}

impl Port {
    pub fn desired(&self) -> DesiredPort {
        DesiredPort { port_id: self.id.to_string(), epoch: self.epoch, mac: self.mac.to_string() }
    }
}

#[derive(Default)]
struct State {
    ports: HashMap<PortId, Port>,
    holders: HashMap<PortId, InstanceId>,
    /// Acquisitions that were granted, and releases, in order.
    acquired: Vec<PortId>,
    released: Vec<PortId>,
    /// Ports that the agent confirmed, in order.
    confirmed: Vec<PortId>,
    /// Connections that end when the stand-in does.
    attending: Vec<UnixStream>,
    /// This many of the next answers are lost, after the request was carried out.
    lost: u32,
}

type Shared = Arc<(Mutex<State>, Condvar)>;
type Work = Box<dyn FnOnce() + Send>;

/// The stand-in, which ends with the test: the namespace disappears with its last thread and tap.
pub struct Ports {
    shared: Shared,
    inside: mpsc::Sender<Work>,
}

impl Ports {
    /// Starts the stand-in, which listens on `socket`.
    pub fn start(socket: &Path) -> Self {
        std::fs::create_dir_all(socket.parent().expect("a directory")).expect("made");
        let listener = UnixListener::bind(socket).expect("bound");
        let (inside, works) = mpsc::channel::<Work>();
        let shared = Shared::default();
        let server = Arc::clone(&shared);
        let (ready_tx, ready) = mpsc::channel();
        std::thread::spawn(move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a network namespace");
            run("ip", &["link", "set", "lo", "up"]).expect("up");
            // Threads are born into their parent's namespace.
            std::thread::spawn(move || serve(&listener, &server));
            ready_tx.send(()).expect("awaited");
            for work in works {
                work();
            }
        });
        ready.recv().expect("ready");
        Self { shared, inside }
    }

    fn within<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> T {
        let (tx, rx) = mpsc::channel();
        self.inside.send(Box::new(move || drop(tx.send(work())))).expect("it lives");
        rx.recv().expect("done")
    }

    /// A port that isn't known to the agent yet.
    pub fn port(&self, number: u8) -> Port {
        Port { id: PortId::new(), mac: MacAddr::local([0, 0, 0, 7, number]), epoch: 3, tap: format!("tap{number}") }
    }

    /// Makes a port known to the agent, as if its ledger had caught up.
    pub fn add(&self, port: &Port) {
        let tap = port.tap.clone();
        self.within(move || {
            run("ip", &["tuntap", "add", &tap, "mode", "tap", "vnet_hdr"]).expect("made");
            run("ip", &["link", "set", &tap, "up"]).expect("up");
        });
        let (state, news) = &*self.shared;
        state.lock().ports.insert(port.id, port.clone());
        news.notify_all();
    }

    /// Waits until the guest behind a port answers.
    pub async fn answers(&self, port: &Port) {
        let until = Instant::now() + TIMEOUT;
        while !self.ping(port) {
            assert!(Instant::now() < until, "{} never answered", port.tap);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn ping(&self, port: &Port) -> bool {
        let to = format!("{}%{}", port.mac.link_local(), port.tap);
        self.within(move || run("ping", &["-6", "-n", "-c1", "-W1", &to]).is_ok())
    }

    pub fn acquired(&self) -> Vec<PortId> {
        self.shared.0.lock().acquired.clone()
    }

    pub fn released(&self) -> Vec<PortId> {
        self.shared.0.lock().released.clone()
    }

    /// Is another life of the network-agent, one that has forgotten who holds which port.
    pub fn restart_without_memory(&self) {
        let mut state = self.shared.0.lock();
        state.holders.clear();
        state.confirmed.clear();
        for stream in state.attending.drain(..) {
            let _ = stream.shutdown(std::net::Shutdown::Both);
        }
    }

    /// Which ports were confirmed since the last restart, and who holds them.
    pub fn confirmed(&self) -> Vec<(PortId, Option<InstanceId>)> {
        let state = self.shared.0.lock();
        state.confirmed.iter().map(|id| (*id, state.holders.get(id).copied())).collect()
    }

    pub fn attended(&self) -> bool {
        !self.shared.0.lock().attending.is_empty()
    }

    /// Loses the next answers, after the requests were carried out.
    pub fn lose_answers(&self, count: u32) {
        self.shared.0.lock().lost = count;
    }

    pub fn all_lost(&self) -> bool {
        self.shared.0.lock().lost == 0
    }

    /// Whether nobody has a port's tap open.
    pub fn free(&self, port: &Port) -> bool {
        let tap = port.tap.clone();
        self.within(move || open_tap(&tap).is_ok())
    }
}

fn run(program: &str, args: &[&str]) -> io::Result<()> {
    let output = Command::new(program).args(args).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(format!("{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr))))
}

/// Opens a tap; this is refused while another process holds it.
fn open_tap(name: &str) -> io::Result<File> {
    const TUNSETIFF: libc::c_ulong = 0x4004_54ca;
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: all of it is plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI | libc::IFF_VNET_HDR) as libc::c_short;
    // SAFETY: the request outlives the call, and TUNSETIFF reads an ifreq.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}

fn serve(listener: &UnixListener, shared: &Shared) {
    for stream in listener.incoming() {
        let (Ok(stream), shared) = (stream, Arc::clone(shared)) else { return };
        std::thread::spawn(move || while turn(&stream, &shared).is_ok() {});
    }
}

fn turn(mut stream: &UnixStream, shared: &Shared) -> io::Result<()> {
    let mut head = [0; 4];
    stream.read_exact(&mut head)?;
    let mut body = vec![0; body_len(head)?];
    stream.read_exact(&mut body)?;
    let request = decode(&body)?;
    if matches!(request, PortRequest::Attend) {
        let ours = stream.try_clone()?;
        shared.0.lock().attending.push(ours);
    }
    let (reply, tap) = answer(request, shared);
    {
        let mut state = shared.0.lock();
        if state.lost > 0 {
            state.lost -= 1;
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
    }
    let bytes = encode(&reply);
    let sent = match &tap {
        Some(tap) => send_with_fd(stream.as_fd(), &bytes, tap.as_fd())?,
        None => 0,
    };
    stream.write_all(&bytes[sent..])
}

fn answer(request: PortRequest, shared: &Shared) -> (PortReply, Option<File>) {
    let (state, news) = &**shared;
    let refused = |reason, detail: &str| (PortReply::Refused { reason, detail: detail.into() }, None);
    match request {
        PortRequest::Acquire { port_id, instance_id, epoch, timeout_ms } => {
            let mut state = state.lock();
            let unknown = |state: &mut State| !state.ports.contains_key(&port_id);
            news.wait_while_for(&mut state, unknown, Duration::from_millis(timeout_ms));
            let Some(port) = state.ports.get(&port_id).cloned() else {
                return refused(RefusedReason::NotYet, "the ledger is behind");
            };
            if port.epoch != epoch {
                return refused(RefusedReason::Stale, "of another epoch");
            }
            match open_tap(&port.tap) {
                Ok(tap) => {
                    state.holders.insert(port_id, instance_id);
                    state.acquired.push(port_id);
                    (PortReply::Acquired { mac: port.mac, mtu: MTU }, Some(tap))
                }
                Err(error) => refused(RefusedReason::Failed, &error.to_string()),
            }
        }
        PortRequest::Attend => (PortReply::Attending, None),
        PortRequest::Confirm { port_id, instance_id, .. } => {
            let mut state = state.lock();
            state.holders.insert(port_id, instance_id);
            state.confirmed.push(port_id);
            (PortReply::Confirmed, None)
        }
        PortRequest::Release { port_id, instance_id, .. } => {
            let mut state = state.lock();
            if state.holders.get(&port_id).is_some_and(|holder| *holder != instance_id) {
                return refused(RefusedReason::NotYours, "of another instance");
            }
            state.holders.remove(&port_id);
            state.released.push(port_id);
            (PortReply::Released, None)
        }
    }
}
