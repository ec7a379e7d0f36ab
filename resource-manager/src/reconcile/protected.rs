//! What of the managers' side no instance of the fleet may reach: the addresses of this machine, and the blocks of the configuration.
//!
//! The managers may run on several machines, of which this one is known by itself; the others stand in the configuration.

use crate::Manager;
use domain::network::{Cidr, can_be_protected, merge_blocks};
use nix::ifaddrs::getifaddrs;
use std::net::IpAddr;

/// Takes the machine's addresses as they are now.
pub(super) fn step(manager: &Manager) {
    let own = match getifaddrs() {
        Ok(interfaces) => interfaces.filter_map(|interface| {
            let address = interface.address?;
            let v4 = address.as_sockaddr_in().map(|address| IpAddr::V4(address.ip()));
            v4.or_else(|| address.as_sockaddr_in6().map(|address| IpAddr::V6(address.ip())))
        }),
        Err(error) => {
            tracing::warn!(%error, "the addresses of this machine can't be read: those known before stay protected");
            return;
        }
    };
    let own = own.filter(|address| can_be_protected(*address)).map(Cidr::host);
    manager.protect(merge_blocks(manager.config.protected.iter().copied().chain(own)));
}
