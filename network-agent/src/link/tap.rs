//! Taps: an ioctl, not netlink. The descriptor goes to QEMU; the tap outlives it.

use nix::libc;
use std::{
    fs::{File, OpenOptions},
    io,
    os::fd::{AsRawFd, OwnedFd},
};

const IFF_TAP: libc::c_short = 0x0002;
const IFF_NO_PI: libc::c_short = 0x1000;
/// Segments and checksums are left to the other end: without it, guests are several times slower.
const IFF_VNET_HDR: libc::c_short = 0x4000;
const TUNSETIFF: libc::Ioctl = 0x4004_54ca;
const TUNSETPERSIST: libc::Ioctl = 0x4004_54cb;
const TUNSETOWNER: libc::Ioctl = 0x4004_54cc;

#[repr(C)]
struct IfReq {
    name: [u8; 16],
    flags: libc::c_short,
    padding: [u8; 22],
}

/// Opens (makes, if it isn't there) the tap `name` in the calling thread's namespace.
pub fn open(name: &str) -> io::Result<OwnedFd> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = IfReq { name: [0; 16], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, padding: [0; 22] };
    if name.len() >= request.name.len() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "an interface's name has at most 15 bytes"));
    }
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request is as large as the kernel's struct ifreq (40 bytes), initialised, and outlives the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), TUNSETIFF, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file.into())
}

/// Makes a tap that outlives its descriptors, owned by `uid`.
pub fn create(name: &str, uid: u32) -> io::Result<()> {
    let file = File::from(open(name)?);
    for (request, value) in [(TUNSETOWNER, uid), (TUNSETPERSIST, 1)] {
        // SAFETY: both take an integer by value and touch no memory of ours.
        if unsafe { libc::ioctl(file.as_raw_fd(), request, libc::c_ulong::from(value)) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}
