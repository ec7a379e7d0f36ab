//! Datagrams with the interface they came by, and out of a chosen one: on a routed port, that interface is who is asking.

use nix::{
    libc,
    sys::socket::{
        ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
        setsockopt, sockopt,
    },
};
use std::{
    io::{self, IoSlice, IoSliceMut},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    os::fd::{AsFd, AsRawFd, RawFd},
};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Arrival {
    pub bytes: usize,
    pub from: SocketAddr,
    /// The interface's number.
    pub index: u32,
    /// The address it was sent to.
    pub to: IpAddr,
}

/// Makes arrivals carry their interface.
pub fn enable(socket: &impl AsFd, v6: bool) -> io::Result<()> {
    if v6 {
        setsockopt(socket, sockopt::Ipv6RecvPacketInfo, &true)?;
    } else {
        setsockopt(socket, sockopt::Ipv4PacketInfo, &true)?;
    }
    Ok(())
}

#[expect(clippy::wildcard_enum_match_arm, reason = "what else the kernel sends is passed over")]
pub fn receive(socket: &impl AsRawFd, buffer: &mut [u8]) -> io::Result<Arrival> {
    let mut space = nix::cmsg_space!(libc::in6_pktinfo, libc::in_pktinfo);
    let mut parts = [IoSliceMut::new(buffer)];
    let message = recvmsg::<SockaddrStorage>(socket.as_raw_fd(), &mut parts, Some(&mut space), MsgFlags::MSG_DONTWAIT)?;
    let from = message.address.as_ref().and_then(|address| {
        let v4 = address.as_sockaddr_in().map(|a| SocketAddr::from((a.ip(), a.port())));
        v4.or_else(|| address.as_sockaddr_in6().map(|a| SocketAddr::V6((*a).into())))
    });
    let mut arrival = None;
    for control in message.cmsgs()? {
        match control {
            ControlMessageOwned::Ipv4PacketInfo(info) => {
                let to = IpAddr::V4(Ipv4Addr::from(u32::from_be(info.ipi_addr.s_addr)));
                arrival = Some((info.ipi_ifindex as u32, to));
            }
            ControlMessageOwned::Ipv6PacketInfo(info) => {
                arrival = Some((info.ipi6_ifindex, IpAddr::V6(Ipv6Addr::from(info.ipi6_addr.s6_addr))));
            }
            _ => {}
        }
    }
    match (from, arrival) {
        (Some(from), Some((index, to))) => Ok(Arrival { bytes: message.bytes, from, index, to }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without its origin")),
    }
}

/// Sends out of the interface `index`, from `source` where that is said.
pub fn send(socket: &impl AsRawFd, bytes: &[u8], to: SocketAddr, index: u32, source: Option<IpAddr>) -> io::Result<()> {
    let parts = [IoSlice::new(bytes)];
    match to {
        SocketAddr::V4(to) => {
            let source = match source {
                Some(IpAddr::V4(source)) => u32::from(source).to_be(),
                Some(IpAddr::V6(_)) | None => 0,
            };
            let info = libc::in_pktinfo {
                ipi_ifindex: index as i32,
                ipi_spec_dst: libc::in_addr { s_addr: source },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let control = [ControlMessage::Ipv4PacketInfo(&info)];
            sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn::from(to)))?;
        }
        SocketAddr::V6(mut to) => {
            if to.ip().is_unicast_link_local() || to.ip().is_multicast() {
                to.set_scope_id(index);
            }
            let source = match source {
                Some(IpAddr::V6(source)) => source.octets(),
                Some(IpAddr::V4(_)) | None => [0; 16],
            };
            let info = libc::in6_pktinfo { ipi6_addr: libc::in6_addr { s6_addr: source }, ipi6_ifindex: index };
            let control = [ControlMessage::Ipv6PacketInfo(&info)];
            sendmsg(socket.as_raw_fd(), &parts, &control, MsgFlags::MSG_DONTWAIT, Some(&SockaddrIn6::from(to)))?;
        }
    }
    Ok(())
}

/// The name of an interface in the socket's namespace (not the calling thread's).
pub fn interface_name(socket: &impl AsRawFd, index: u32) -> Option<String> {
    #[repr(C)]
    struct IfReq {
        name: [u8; 16],
        index: i32,
        padding: [u8; 20],
    }
    let mut request = IfReq { name: [0; 16], index: i32::try_from(index).ok()?, padding: [0; 20] };
    let fd: RawFd = socket.as_raw_fd();
    // SAFETY: the request is as large as the kernel's struct ifreq (40 bytes), initialised, and outlives the call.
    if unsafe { libc::ioctl(fd, libc::SIOCGIFNAME as libc::Ioctl, &raw mut request) } < 0 {
        return None;
    }
    let length = request.name.iter().position(|b| *b == 0)?;
    String::from_utf8(request.name[..length].to_vec()).ok()
}

/// Listens to a multicast group on one more interface.
pub fn join(socket: &impl AsRawFd, group: Ipv6Addr, index: u32) -> io::Result<()> {
    let request =
        libc::ipv6_mreq { ipv6mr_multiaddr: libc::in6_addr { s6_addr: group.octets() }, ipv6mr_interface: index };
    // SAFETY: the request is a plain struct with its true length, and outlives the call.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IPV6,
            libc::IPV6_ADD_MEMBERSHIP,
            (&raw const request).cast(),
            size_of::<libc::ipv6_mreq>() as libc::socklen_t,
        )
    };
    match done {
        0 => Ok(()),
        _ => match io::Error::last_os_error() {
            e if e.raw_os_error() == Some(libc::EADDRINUSE) => Ok(()),
            e => Err(e),
        },
    }
}

/// A UDP socket of one family alone, in the calling thread's namespace.
pub fn udp(addr: SocketAddr) -> io::Result<std::net::UdpSocket> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, bind, socket};
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let fd = socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
    if addr.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    }
    bind(fd.as_raw_fd(), &SockaddrStorage::from(addr))?;
    enable(&fd, addr.is_ipv6())?;
    Ok(fd.into())
}

/// A TCP socket that isn't connected yet, in the calling thread's namespace.
pub fn tcp(v4: bool) -> io::Result<std::net::TcpStream> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let family = if v4 { AddressFamily::Inet } else { AddressFamily::Inet6 };
    Ok(socket(family, SockType::Stream, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?.into())
}

/// A raw ICMPv6 socket that receives router solicitations alone, and sends with the hop limit that neighbours insist on.
pub fn router_socket() -> io::Result<std::os::fd::OwnedFd> {
    use std::os::fd::FromRawFd;
    let flags = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
    // SAFETY: plain integers; the descriptor is checked before it is owned.
    let raw = unsafe { libc::socket(libc::AF_INET6, flags, libc::IPPROTO_ICMPV6) };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and nobody else's.
    let fd = unsafe { std::os::fd::OwnedFd::from_raw_fd(raw) };
    // A set bit blocks a type (RFC 3542, section 3.2).
    const ICMP6_FILTER: libc::c_int = 1;
    let mut blocked = [u32::MAX; 8];
    blocked[133 / 32] &= !(1 << (133 % 32));
    let hops: libc::c_int = 255;
    let set = |level, name, value: *const libc::c_void, length: usize| -> io::Result<()> {
        // SAFETY: the value is plain data of that length, and outlives the call.
        match unsafe { libc::setsockopt(raw, level, name, value, length as libc::socklen_t) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    };
    set(libc::IPPROTO_ICMPV6, ICMP6_FILTER, (&raw const blocked).cast(), size_of_val(&blocked))?;
    set(libc::IPPROTO_IPV6, libc::IPV6_UNICAST_HOPS, (&raw const hops).cast(), size_of_val(&hops))?;
    set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_HOPS, (&raw const hops).cast(), size_of_val(&hops))?;
    // A copy of ours would come back as if the guest had sent it.
    let back: libc::c_int = 0;
    set(libc::IPPROTO_IPV6, libc::IPV6_MULTICAST_LOOP, (&raw const back).cast(), size_of_val(&back))?;
    enable(&fd, true)?;
    Ok(fd)
}

/// The number of an interface in the socket's namespace (not the calling thread's).
pub fn interface_index(socket: &impl AsRawFd, name: &str) -> Option<u32> {
    #[repr(C)]
    struct IfReq {
        name: [u8; 16],
        index: i32,
        padding: [u8; 20],
    }
    let mut request = IfReq { name: [0; 16], index: 0, padding: [0; 20] };
    request.name.get_mut(..name.len()).filter(|part| part.len() < 16)?.copy_from_slice(name.as_bytes());
    // SAFETY: the request is as large as the kernel's struct ifreq (40 bytes), initialised, and outlives the call.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFINDEX as libc::Ioctl, &raw mut request) } < 0 {
        return None;
    }
    u32::try_from(request.index).ok()
}
