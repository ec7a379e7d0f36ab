//! A blocking route-netlink socket that sends many requests in one system call.
//!
//! One request per call and its answer cost two system calls and, in an async client, two wake-ups; programming a port takes about
//! eight. The kernel handles a buffer of messages one after the other and acknowledges each, so a thousand ports are a few dozen
//! calls. The socket belongs to the namespace of the thread that opened it.

use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP, NLM_F_REQUEST, NetlinkHeader, NetlinkMessage, NetlinkPayload};
use netlink_packet_route::RouteNetlinkMessage;
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};
use nix::errno::Errno;
use std::io;

/// Requests per call: their acknowledgements must fit the receive buffer.
const BATCH: usize = 128;
const RECEIVE_BYTES: usize = 4 * 1024 * 1024;

#[derive(Debug, Clone)]
pub struct Request {
    /// The flags beside `NLM_F_REQUEST` and `NLM_F_ACK`.
    pub flags: u16,
    pub message: RouteNetlinkMessage,
}

pub struct Netlink {
    socket: Socket,
    sequence: u32,
    buffer: Vec<u8>,
    /// By which the kernel tells others who requested a change.
    port_number: u32,
}

impl Netlink {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        let port_number = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        socket.set_cap_ack(true)?;
        // Up to the system's limit; what it grants is enough for a batch's acknowledgements.
        let _ = socket.set_rx_buf_sz(RECEIVE_BYTES as nix::libc::c_int);
        Ok(Self { socket, sequence: 0, buffer: Vec::with_capacity(64 * 1024), port_number })
    }

    #[must_use]
    pub fn port_number(&self) -> u32 {
        self.port_number
    }

    /// Sends all and waits for all; one answer each, in order.
    pub fn send(&mut self, requests: &[Request]) -> io::Result<Vec<Result<(), Errno>>> {
        let mut answers = Vec::with_capacity(requests.len());
        for some in requests.chunks(BATCH) {
            let first = self.sequence.wrapping_add(1);
            self.buffer.clear();
            for request in some {
                self.push(request.message.clone(), NLM_F_REQUEST | NLM_F_ACK | request.flags);
            }
            self.socket.send(&self.buffer, 0)?;
            let mut waiting: Vec<Option<Result<(), Errno>>> = vec![None; some.len()];
            let mut left = some.len();
            while left > 0 {
                let (bytes, _) = self.socket.recv_from_full()?;
                each_message(&bytes, |message| {
                    if let NetlinkPayload::Error(error) = message.payload {
                        let at = message.header.sequence_number.wrapping_sub(first) as usize;
                        if let Some(slot @ None) = waiting.get_mut(at) {
                            let code = error.code.map_or(0, |code| code.get());
                            *slot = Some(if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) });
                            left -= 1;
                        }
                    }
                })?;
            }
            answers.extend(waiting.into_iter().flatten());
        }
        Ok(answers)
    }

    /// Everything of a kind.
    #[expect(clippy::wildcard_enum_match_arm, reason = "what else the kernel sends is passed over")]
    pub fn dump(&mut self, message: RouteNetlinkMessage) -> io::Result<Vec<RouteNetlinkMessage>> {
        self.buffer.clear();
        self.push(message, NLM_F_REQUEST | NLM_F_DUMP);
        let sequence = self.sequence;
        self.socket.send(&self.buffer, 0)?;
        let (mut found, mut done) = (Vec::new(), false);
        while !done {
            let (bytes, _) = self.socket.recv_from_full()?;
            let mut failed = None;
            each_message(&bytes, |message| {
                if message.header.sequence_number != sequence {
                    return;
                }
                match message.payload {
                    NetlinkPayload::InnerMessage(inner) => found.push(inner),
                    NetlinkPayload::Done(_) => done = true,
                    NetlinkPayload::Error(error) => {
                        failed = Some(error.code.map_or(0, |code| code.get()));
                        done = true;
                    }
                    _ => {}
                }
            })?;
            if let Some(code @ ..0) = failed {
                return Err(io::Error::from_raw_os_error(-code));
            }
        }
        Ok(found)
    }

    fn push(&mut self, message: RouteNetlinkMessage, flags: u16) {
        self.sequence = self.sequence.wrapping_add(1);
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        header.sequence_number = self.sequence;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let at = self.buffer.len();
        let length = message.buffer_len();
        self.buffer.resize(at + length.next_multiple_of(4), 0);
        message.serialize(&mut self.buffer[at..at + length]);
    }
}

fn each_message(bytes: &[u8], mut f: impl FnMut(NetlinkMessage<RouteNetlinkMessage>)) -> io::Result<()> {
    let mut at = 0;
    while at + 16 <= bytes.len() {
        let length = u32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as usize;
        if length < 16 || at + length > bytes.len() {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "a netlink message of impossible length"));
        }
        // A message that the crate doesn't understand (a newer kernel's attribute) is one we didn't ask about.
        match NetlinkMessage::deserialize(&bytes[at..at + length]) {
            Ok(message) => f(message),
            Err(error) => tracing::debug!(%error, "a netlink message was not understood"),
        }
        at += length.next_multiple_of(4);
    }
    Ok(())
}
