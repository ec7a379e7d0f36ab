//! ICMP echo, with a raw socket: the kernel's unprivileged kind is switched off in new namespaces, for root as well.

use super::{NotTried, Target, made_inside};
use crate::link::netns::Worker;
use nix::sys::socket::{MsgFlags, SockProtocol, SockType, SockaddrStorage, connect, recv, send};
use std::{
    io,
    net::SocketAddr,
    os::fd::{AsRawFd, OwnedFd},
};
use tokio::io::unix::AsyncFd;

const REQUEST_V4: u8 = 8;
const REPLY_V4: u8 = 0;
const REQUEST_V6: u8 = 128;
const REPLY_V6: u8 = 129;

pub struct Echo {
    socket: AsyncFd<OwnedFd>,
    v4: bool,
    /// Tells this one's replies from those of others who ask the same instance.
    id: u16,
    sequence: u16,
}

impl Echo {
    pub async fn open(inside: &Worker, target: &Target) -> Result<Self, NotTried> {
        let v4 = target.address.is_ipv4();
        let protocol = if v4 { SockProtocol::Icmp } else { SockProtocol::IcmpV6 };
        let fd = made_inside(inside, target.source, SockType::Raw, Some(protocol)).await?;
        // From then on the kernel passes on packets of this peer alone.
        let peer = SockaddrStorage::from(SocketAddr::new(target.address, 0));
        connect(fd.as_raw_fd(), &peer).map_err(|errno| NotTried::Socket(errno.into()))?;
        let [high, low, ..] = *uuid::Uuid::new_v4().as_bytes();
        // SAFETY: the descriptor is owned here, and closed only with the registration.
        let socket = unsafe { AsyncFd::register(fd) }.map_err(|error| NotTried::Socket(error.into()))?;
        Ok(Self { socket, v4, id: u16::from_be_bytes([high, low]), sequence: 0 })
    }

    /// Sends a request and waits for its reply; replies to earlier ones are passed over.
    pub async fn exchange(&mut self) -> io::Result<()> {
        self.sequence = self.sequence.wrapping_add(1);
        let request = request(self.v4, self.id, self.sequence);
        send(self.socket.as_raw_fd(), &request, MsgFlags::empty())?;
        let mut buffer = [0; 256];
        loop {
            let mut ready = self.socket.readable().await?;
            let received = ready.try_io(|fd| Ok(recv(fd.as_raw_fd(), &mut buffer, MsgFlags::empty())?));
            let Ok(bytes) = received else { continue };
            let packet = buffer.get(..bytes?).unwrap_or_default();
            if answers(self.v4, packet, self.id, self.sequence) {
                return Ok(());
            }
        }
    }
}

/// With the checksum; of ICMPv6 the kernel writes it.
fn request(v4: bool, id: u16, sequence: u16) -> [u8; 8] {
    let ([a, b], [c, d]) = (id.to_be_bytes(), sequence.to_be_bytes());
    if !v4 {
        return [REQUEST_V6, 0, 0, 0, a, b, c, d];
    }
    let sum = u32::from(REQUEST_V4) * 256 + u32::from(id) + u32::from(sequence);
    let folded = (sum & 0xffff) + (sum >> 16);
    let folded = (folded & 0xffff) + (folded >> 16);
    let [high, low] = (!(folded as u16)).to_be_bytes();
    [REQUEST_V4, 0, high, low, a, b, c, d]
}

/// Whether it is the reply to that request. IPv4 packets come with their header.
fn answers(v4: bool, packet: &[u8], id: u16, sequence: u16) -> bool {
    let header = if v4 { packet.first().map_or(0, |first| usize::from(first & 0x0f) * 4) } else { 0 };
    let Some([kind, code, _, _, a, b, c, d, ..]) = packet.get(header..) else { return false };
    let expected = if v4 { REPLY_V4 } else { REPLY_V6 };
    (*kind, *code) == (expected, 0) && u16::from_be_bytes([*a, *b]) == id && u16::from_be_bytes([*c, *d]) == sequence
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The sum of all words of a packet with a right checksum is all ones (RFC 1071).
    #[test]
    fn a_request_has_its_checksum() {
        for (id, sequence) in [(0, 0), (0x1234, 1), (0xffff, 0xffff), (0xf7ff, 0x0001)] {
            let bytes = request(true, id, sequence);
            let sum: u32 = bytes.chunks(2).map(|pair| u32::from(pair[0]) * 256 + u32::from(pair[1])).sum();
            let folded = (sum & 0xffff) + (sum >> 16);
            assert_eq!((folded & 0xffff) + (folded >> 16), 0xffff, "{id:x} {sequence:x}");
        }
    }

    #[test]
    fn only_the_reply_to_the_latest_request_counts() {
        let v6 = |kind, id: u8, sequence| [kind, 0, 0, 0, 0, id, 0, sequence];
        assert!(answers(false, &v6(REPLY_V6, 7, 1), 7, 1));
        assert!(!answers(false, &v6(REPLY_V6, 7, 1), 7, 2), "an earlier one's");
        assert!(!answers(false, &v6(REPLY_V6, 8, 1), 7, 1), "another's");
        assert!(!answers(false, &v6(1, 7, 1), 7, 1), "unreachable");
        let mut v4 = [0; 28];
        v4[0] = 0x45;
        v4[25] = 7;
        v4[27] = 1;
        assert!(answers(true, &v4, 7, 1));
        v4[0] = 0x4f;
        assert!(!answers(true, &v4, 7, 1), "shorter than its header says");
        assert!(!answers(true, &[], 7, 1) && !answers(false, &[REPLY_V6, 0], 7, 1));
    }
}
