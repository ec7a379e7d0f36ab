//! Raw frames, for announcing addresses: gratuitous ARP and unsolicited neighbour advertisements.

use domain::network::MacAddr;
use nix::libc;
use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

const BROADCAST: MacAddr = MacAddr([0xff; 6]);

/// A socket that only sends, in the calling thread's namespace.
pub fn open() -> io::Result<OwnedFd> {
    // SAFETY: plain integers; the descriptor is checked before it is owned.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

pub fn send(socket: &OwnedFd, index: u32, frame: &[u8]) -> io::Result<()> {
    let index = i32::try_from(index).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
    // SAFETY: all zeros is a valid sockaddr_ll.
    let mut to: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    to.sll_family = libc::AF_PACKET as u16;
    to.sll_ifindex = index;
    to.sll_halen = 6;
    to.sll_addr[..6].copy_from_slice(&frame[..6]);
    let length = size_of::<libc::sockaddr_ll>() as libc::socklen_t;
    // SAFETY: the frame and the address outlive the call, with their true lengths.
    let sent = unsafe {
        libc::sendto(socket.as_raw_fd(), frame.as_ptr().cast(), frame.len(), 0, (&raw const to).cast(), length)
    };
    if sent < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// What tells a segment that `addr` is at `mac`: for IPv4 a request and a reply (some stacks heed only one), for IPv6 an
/// unsolicited advertisement with the override flag.
#[must_use]
pub fn announcements(addr: IpAddr, mac: MacAddr) -> Vec<Vec<u8>> {
    match addr {
        IpAddr::V4(addr) => vec![arp(addr, mac, 1), arp(addr, mac, 2)],
        IpAddr::V6(addr) => vec![neighbour_advertisement(addr, mac)],
    }
}

fn arp(addr: Ipv4Addr, mac: MacAddr, operation: u8) -> Vec<u8> {
    let mut frame = Vec::with_capacity(42);
    frame.extend(BROADCAST.0);
    frame.extend(mac.0);
    frame.extend([0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, operation]);
    frame.extend(mac.0);
    frame.extend(addr.octets());
    frame.extend(if operation == 1 { [0; 6] } else { BROADCAST.0 });
    frame.extend(addr.octets());
    frame
}

fn neighbour_advertisement(addr: Ipv6Addr, mac: MacAddr) -> Vec<u8> {
    let all_nodes = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);
    // Router (this is one), not solicited, override.
    let mut body = vec![136, 0, 0, 0, 0b1010_0000, 0, 0, 0];
    body.extend(addr.octets());
    body.extend([2, 1]);
    body.extend(mac.0);
    let sum = checksum_v6(addr, all_nodes, 58, &body);
    body[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = vec![0x33, 0x33, 0, 0, 0, 1];
    frame.extend(mac.0);
    frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
    frame.extend((body.len() as u16).to_be_bytes());
    frame.extend([58, 255]);
    frame.extend(addr.octets());
    frame.extend(all_nodes.octets());
    frame.extend(body);
    frame
}

/// The Internet checksum over the pseudo-header of RFC 8200, section 8.1, and the body.
fn checksum_v6(from: Ipv6Addr, to: Ipv6Addr, next_header: u8, body: &[u8]) -> u16 {
    let mut sum = body.len() as u32 + u32::from(next_header);
    for part in [&from.octets()[..], &to.octets(), body] {
        for pair in part.chunks(2) {
            sum += u32::from(u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]));
        }
    }
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_well_formed() {
        let mac = MacAddr([2, 0, 0, 0, 0, 9]);
        let frames = announcements("203.0.113.7".parse().expect("ip"), mac);
        assert!(frames.iter().all(|f| f.len() == 42 && f[..6] == [0xff; 6] && f[28..32] == [203, 0, 113, 7]));
        let frame = announcements("fd00::7".parse().expect("ip"), mac).remove(0);
        assert_eq!(frame.len(), 14 + 40 + 32);
        // A receiver sums everything, the checksum included, to zero.
        let (from, to): ([u8; 16], [u8; 16]) =
            (frame[22..38].try_into().expect("16"), frame[38..54].try_into().expect("16"));
        assert_eq!(checksum_v6(from.into(), to.into(), 58, &frame[54..]), 0);
    }
}
