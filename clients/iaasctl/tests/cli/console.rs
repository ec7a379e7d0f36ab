//! The console on a real terminal: bytes both ways, the key that leaves, and the terminal as it was afterwards.

use crate::server::{Home, serve};
use axum::{
    Json, Router,
    extract::{
        WebSocketUpgrade,
        ws::{Message, WebSocket},
    },
    routing::{get, post},
};
use nix::{
    pty::openpty,
    sys::{
        signal::Signal,
        termios::{LocalFlags, tcgetattr},
    },
};
use serde_json::json;
use std::{
    fs::File,
    io::{Read, Write},
    os::fd::{AsFd, OwnedFd},
    process::{Child, Stdio},
    sync::mpsc,
    time::Duration,
};

/// A guest that greets and echoes in upper case; `bye` ends the session from its side.
fn guest() -> String {
    async fn talk(mut socket: WebSocket) {
        let _ = socket.send(Message::Binary("login: ".into())).await;
        while let Some(Ok(Message::Binary(bytes))) = socket.recv().await {
            if bytes.as_ref() == b"bye" {
                let _ = socket.send(Message::Close(None)).await;
                break;
            }
            let _ = socket.send(Message::Binary(bytes.to_ascii_uppercase().into())).await;
        }
    }
    let ticket = json!({ "ticket": "t", "url": "/v1/console?ticket=t", "expires_at": "2026-01-31T00:00:00.000Z" });
    serve(
        Router::new()
            .route("/v1/instances/hello/console-ticket", post(async move || Json(ticket)))
            .route("/v1/console", get(async |upgrade: WebSocketUpgrade| upgrade.on_upgrade(talk))),
    )
}

struct Terminal {
    master: File,
    slave: OwnedFd,
    /// None: it was waited for.
    child: Option<Child>,
    observed: String,
}

impl Terminal {
    fn start(url: &str) -> Self {
        let pty = openpty(None, None).expect("a terminal");
        let side = || Stdio::from(pty.slave.try_clone().expect("a handle"));
        let home = Home::new();
        let mut command = home.command(&["instance", "console", "hello"]);
        command.env("IAAS_URL", url).env("IAAS_TOKEN", "k").stdin(side()).stdout(side()).stderr(side());
        let child = command.spawn().expect("the binary runs");
        Self { master: File::from(pty.master), slave: pty.slave, child: Some(child), observed: String::new() }
    }

    /// Reads until the screen shows `text`; what came behind it stays to be read.
    fn expect(&mut self, text: &str) {
        let mut buffer = [0; 1024];
        loop {
            if let Some((_, rest)) = self.observed.split_once(text) {
                self.observed = rest.to_owned();
                return;
            }
            let n = self.master.read(&mut buffer).expect("the terminal is open");
            self.observed.push_str(&String::from_utf8_lossy(&buffer[..n]));
        }
    }

    fn raw(&self) -> bool {
        let mode = tcgetattr(self.slave.as_fd()).expect("a terminal's mode");
        !mode.local_flags.intersects(LocalFlags::ICANON | LocalFlags::ECHO)
    }

    fn type_in(&mut self, bytes: &[u8]) {
        self.master.write_all(bytes).expect("typed");
    }

    fn ends_with(mut self, code: i32) {
        let mut child = self.child.take().expect("it runs");
        let pid = child.id();
        let (tell, reported) = mpsc::channel();
        std::thread::spawn(move || tell.send(child.wait()));
        let Ok(status) = reported.recv_timeout(Duration::from_secs(20)) else {
            kill(pid, Signal::SIGKILL);
            panic!("it doesn't end");
        };
        assert_eq!(status.expect("a status").code(), Some(code));
        assert!(!self.raw(), "the terminal is as it was");
    }
}

fn kill(pid: u32, with: Signal) {
    let pid = i32::try_from(pid).expect("a pid");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), with).expect("sent");
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

#[test]
fn keys_go_to_the_guest_and_one_key_leaves() {
    let mut terminal = Terminal::start(&guest());
    terminal.expect("press Ctrl-] to disconnect");
    terminal.expect("login: ");
    assert!(terminal.raw(), "every key is the guest's");
    terminal.type_in(b"root");
    terminal.expect("ROOT");
    terminal.type_in(b"\x03z");
    terminal.expect("\x03Z");
    terminal.type_in(b"\x1d");
    terminal.expect("the instance keeps running");
    terminal.ends_with(0);
}

#[test]
fn a_console_that_the_server_closes_ends_well() {
    let mut terminal = Terminal::start(&guest());
    terminal.expect("login: ");
    terminal.type_in(b"bye");
    terminal.expect("was closed");
    terminal.ends_with(0);
}

#[test]
fn a_signal_ends_it_with_the_terminal_restored() {
    let mut terminal = Terminal::start(&guest());
    terminal.expect("login: ");
    assert!(terminal.raw());
    kill(terminal.child.as_ref().expect("it runs").id(), Signal::SIGTERM);
    terminal.expect("disconnected");
    terminal.ends_with(0);
}

#[test]
fn a_script_types_its_stdin() {
    let home = Home::new();
    let mut command = home.command(&["instance", "console", "hello", "--quiet"]);
    command.env("IAAS_URL", guest()).env("IAAS_TOKEN", "k").stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("the binary runs");
    let mut stdin = child.stdin.take().expect("a pipe");
    let mut stdout = child.stdout.take().expect("a pipe");
    stdin.write_all(b"uname").expect("typed");
    let mut observed = String::new();
    let mut buffer = [0; 256];
    while !observed.contains("UNAME") {
        let n = stdout.read(&mut buffer).expect("bytes");
        assert_ne!(n, 0, "it ended early: {observed}");
        observed.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    stdin.write_all(b"\x1d").expect("typed");
    assert_eq!(child.wait().expect("it ends").code(), Some(0));
    assert_eq!(observed, "login: UNAME");
}
