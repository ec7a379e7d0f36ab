//! Frames through taps: an instance's end of the wire, without an instance.

use super::message::{GATEWAY_MAC, Port};
use anyhow::{Context, ensure};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
};
use std::{
    net::Ipv4Addr,
    os::fd::OwnedFd,
    time::{Duration, Instant},
};

/// The header that QEMU and the kernel exchange offloads in; all zeros: none.
const VNET_HEADER: usize = 10;
const FRAME_MAX: usize = 2048;

/// A tap's descriptor, as QEMU would hold it.
pub struct Wire {
    tap: OwnedFd,
    pub mac: [u8; 6],
    pub addr: Ipv4Addr,
}

/// One datagram: who talks to whom, and a number to know it by.
#[derive(Debug, Clone, Copy)]
pub struct Datagram {
    pub to: Ipv4Addr,
    pub from_port: u16,
    pub to_port: u16,
    pub number: u64,
}

impl Wire {
    pub fn new(tap: OwnedFd, port: &Port) -> anyhow::Result<Self> {
        ioctl_fionbio(&tap, true)?;
        Ok(Self { tap, mac: port.mac, addr: port.addr })
    }

    pub fn send(&self, datagram: Datagram) -> anyhow::Result<()> {
        let frame = self.frame(datagram);
        let written = rustix::io::write(&self.tap, &frame).context("a tap takes no frame")?;
        ensure!(written == frame.len(), "a tap took half a frame");
        Ok(())
    }

    fn frame(&self, Datagram { to, from_port, to_port, number }: Datagram) -> Vec<u8> {
        let mut frame = vec![0; VNET_HEADER];
        frame.extend(GATEWAY_MAC);
        frame.extend(self.mac);
        frame.extend([0x08, 0x00]);
        let at = frame.len();
        frame.extend([0x45, 0, 0, 36, 0, 0, 0x40, 0, 64, 17, 0, 0]);
        frame.extend(self.addr.octets());
        frame.extend(to.octets());
        let sum = checksum(&frame[at..at + 20]);
        frame[at + 10..at + 12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(from_port.to_be_bytes());
        frame.extend(to_port.to_be_bytes());
        // Without a checksum, as UDP over IPv4 may.
        frame.extend([0, 16, 0, 0]);
        frame.extend(number.to_be_bytes());
        frame
    }

    /// The next datagram to `to_port`, if one comes in time; everything else is passed over.
    pub fn receive(&self, to_port: u16, timeout: Duration) -> anyhow::Result<Option<u64>> {
        let deadline = Instant::now() + timeout;
        let mut buffer = [0; FRAME_MAX];
        loop {
            match rustix::io::read(&self.tap, &mut buffer) {
                Ok(bytes) => {
                    if let Some(number) = number_of(&buffer[..bytes], to_port) {
                        return Ok(Some(number));
                    }
                }
                Err(Errno::AGAIN) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return Ok(None);
                    }
                    let left = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: left.subsec_nanos().into() };
                    poll(&mut [PollFd::new(&self.tap, PollFlags::IN)], Some(&left))?;
                }
                Err(errno) => return Err(errno).context("a tap can't be read"),
            }
        }
    }
}

fn number_of(frame: &[u8], to_port: u16) -> Option<u64> {
    let packet = frame.get(VNET_HEADER + 14..)?;
    let udp = frame.get(VNET_HEADER + 12..VNET_HEADER + 14)? == [0x08, 0x00] && packet.get(9) == Some(&17);
    let fits = udp && packet.get(22..24)? == to_port.to_be_bytes();
    fits.then(|| packet.get(28..36)?.try_into().ok().map(u64::from_be_bytes)).flatten()
}

/// Of an IPv4 header.
fn checksum(header: &[u8]) -> u16 {
    let mut sum: u32 = header.chunks(2).map(|pair| u32::from(u16::from_be_bytes([pair[0], pair[1]]))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_known_header() {
        // The example of RFC 1071's usual explanations.
        let header = [0x45, 0, 0, 0x73, 0, 0, 0x40, 0, 0x40, 0x11, 0, 0, 0xc0, 0xa8, 0, 1, 0xc0, 0xa8, 0, 0xc7];
        assert_eq!(checksum(&header), 0xb861);
    }
}
