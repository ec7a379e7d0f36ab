//! The kernel's end of a namespace's rules: transactions of elements ([`crate::nft::batch`]), and the rules' generation. That number
//! rises with every transaction, whoever makes it, so that a look at it tells whether somebody else changed the rules, without
//! listing them.

use crate::nft::{batch::Batch, fence};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_NETFILTER};
use nix::{errno::Errno, libc};
use std::{io, os::fd::AsRawFd};

const GET_GENERATION: u16 = (10 << 8) | 16;
const GENERATION: u16 = 1;
const REQUEST: u16 = 1;
const ERROR: u16 = 2;
const DONE: u16 = 3;
/// What the kernel says to a batch that was made for another generation.
const ERESTART: i32 = 85;
/// A batch is one datagram.
const SEND_BYTES: libc::c_int = 4 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
pub enum BatchError {
    #[error("somebody else changed the rules")]
    Stale,
    #[error("the kernel refused elements")]
    Refused(#[source] Errno),
    #[error("the kernel's answer on elements was lost")]
    Io(#[source] io::Error),
}

pub struct Nfnetlink {
    socket: Socket,
    /// By which the kernel tells others who requested a change.
    port_number: u32,
}

impl Nfnetlink {
    /// Opens a socket in the calling thread's namespace.
    pub fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_NETFILTER)?;
        let port_number = socket.bind_auto()?.port_number();
        socket.connect(&SocketAddr::new(0, 0))?;
        let bytes = SEND_BYTES;
        // SAFETY: an integer of the given length that outlives the call.
        let set = unsafe {
            libc::setsockopt(
                socket.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_SNDBUFFORCE,
                (&raw const bytes).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        };
        if set < 0 {
            // Without that right the system's limit holds; what doesn't fit is refused by the send.
            tracing::debug!(error = %io::Error::last_os_error(), "the send buffer keeps its size");
        }
        Ok(Self { socket, port_number })
    }

    #[must_use]
    pub fn port_number(&self) -> u32 {
        self.port_number
    }

    /// The generation of the rules in the socket's namespace.
    pub fn generation(&mut self) -> io::Result<u32> {
        let mut request = Vec::with_capacity(20);
        request.extend(20u32.to_ne_bytes());
        request.extend(GET_GENERATION.to_ne_bytes());
        request.extend(REQUEST.to_ne_bytes());
        request.extend([0; 12]);
        self.socket.send(&request, 0)?;
        let (answer, _) = self.socket.recv_from_full()?;
        parse_generation(&answer)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "nftables' generation wasn't answered"))
    }

    /// Makes the fence ([`fence`]) where it isn't yet, and owns one that an earlier agent left; whether anything was done, which is one
    /// more generation.
    pub fn ensure_fence(&mut self) -> Result<bool, BatchError> {
        self.socket.send(&fence::query(), 0).map_err(BatchError::Io)?;
        let (answer, _) = self.socket.recv_from_full().map_err(BatchError::Io)?;
        let mut code = 0;
        each_answer(&answer, |_, said| code = said);
        match -code {
            0 if attribute(&answer, fence::TABLE_FLAGS).is_some_and(fence::owned) => return Ok(false),
            0 => return self.commit(&fence::encode_claim()).map(|()| true),
            libc::ENOENT => {}
            code => return Err(BatchError::Refused(Errno::from_raw(code))),
        }
        self.commit(&fence::encode())?;
        Ok(true)
    }

    /// Sends one request and reads until its acknowledgement or the end of its dump: (type, what follows the header) of each message.
    pub(super) fn exchange(&mut self, request: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        self.socket.send(request, 0)?;
        loop {
            let mut answer = Vec::with_capacity(64 * 1024);
            self.socket.recv_from(&mut answer, 0)?;
            let mut rest = answer.as_slice();
            while rest.len() >= 16 {
                let length = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
                let kind = u16::from_ne_bytes([rest[4], rest[5]]);
                let Some(body) = rest.get(16..length) else { break };
                match kind {
                    DONE => return Ok(()),
                    ERROR => {
                        let code = body.get(..4).map_or(0, |b| i32::from_ne_bytes([b[0], b[1], b[2], b[3]]));
                        return if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(-code)) };
                    }
                    kind => each(kind, body),
                }
                rest = rest.get(length.next_multiple_of(4)..).unwrap_or_default();
            }
        }
    }

    /// All of it or nothing.
    pub fn commit(&mut self, batch: &Batch) -> Result<(), BatchError> {
        self.socket.send(&batch.bytes, 0).map_err(BatchError::Io)?;
        // The kernel does a batch within the send: all its answers wait by now. One error is enough, though each message may say one.
        let (mut done, mut refused) = (false, None);
        loop {
            let mut answer = Vec::with_capacity(64 * 1024);
            match self.socket.recv_from(&mut answer, libc::MSG_DONTWAIT) {
                Ok(_) => each_answer(&answer, |sequence, code| {
                    if code != 0 {
                        refused.get_or_insert(-code);
                    } else if sequence == batch.last {
                        done = true;
                    }
                }),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                Err(e) => return Err(BatchError::Io(e)),
            }
        }
        match refused {
            Some(ERESTART) => Err(BatchError::Stale),
            Some(code) => Err(BatchError::Refused(Errno::from_raw(code))),
            None if done => Ok(()),
            None => Err(BatchError::Io(io::Error::new(io::ErrorKind::InvalidData, "there is none"))),
        }
    }
}

/// (sequence, error code) of each acknowledgement and error.
fn each_answer(bytes: &[u8], mut f: impl FnMut(u32, i32)) {
    let mut rest = bytes;
    while rest.len() >= 20 {
        let u32_at = |at: usize| u32::from_ne_bytes([rest[at], rest[at + 1], rest[at + 2], rest[at + 3]]);
        let length = u32_at(0) as usize;
        if u16::from_ne_bytes([rest[4], rest[5]]) == ERROR {
            f(u32_at(8), u32_at(16) as i32);
        }
        let Some(next) = rest.get(length.max(16).next_multiple_of(4)..) else { return };
        rest = next;
    }
}

fn parse_generation(answer: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(attribute(answer, GENERATION)?.try_into().ok()?))
}

/// The first of that kind. Attributes follow the header (16 bytes) and nfgenmsg (4).
fn attribute(answer: &[u8], kind: u16) -> Option<&[u8]> {
    let mut rest = answer.get(20..)?;
    loop {
        let length = usize::from(u16::from_ne_bytes(rest.get(..2)?.try_into().ok()?));
        let found = u16::from_ne_bytes(rest.get(2..4)?.try_into().ok()?);
        let value = rest.get(4..length)?;
        if found == kind {
            return Some(value);
        }
        rest = rest.get(length.next_multiple_of(4)..)?;
    }
}
