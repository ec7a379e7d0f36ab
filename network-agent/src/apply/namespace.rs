//! A network's namespace: made ready for routing before anything is in it, taken over when it is there, removed with all in it.

use crate::link::{
    message::set_link,
    netns::{self, NetnsError, Worker},
};
use std::{fs, io, path::Path};

/// Written in this order: turning forwarding on resets some of the others.
const SETTINGS: [(&str, &str); 17] = [
    ("ipv4/ip_forward", "1"),
    ("ipv6/conf/all/forwarding", "1"),
    ("ipv6/conf/default/forwarding", "1"),
    ("ipv4/conf/all/rp_filter", "0"),
    ("ipv4/conf/default/rp_filter", "0"),
    ("ipv4/conf/all/send_redirects", "0"),
    ("ipv4/conf/default/send_redirects", "0"),
    ("ipv4/conf/all/accept_redirects", "0"),
    ("ipv4/conf/default/accept_redirects", "0"),
    ("ipv4/conf/all/proxy_arp", "0"),
    ("ipv4/conf/default/proxy_arp", "0"),
    ("ipv6/conf/all/accept_redirects", "0"),
    ("ipv6/conf/default/accept_redirects", "0"),
    ("ipv6/conf/default/accept_ra", "0"),
    // Nobody else can have our addresses: duplicate address detection would only delay them by a second.
    ("ipv6/conf/default/accept_dad", "0"),
    ("ipv6/conf/default/dad_transmits", "0"),
    // Made of the MAC, which is the same everywhere: guests keep their router when they move.
    ("ipv6/conf/default/addr_gen_mode", "0"),
];

/// Enters the namespace at `path`, or makes it; and whether it was made.
pub async fn ensure(path: &Path) -> Result<(Worker, bool), NetnsError> {
    let (worker, made) =
        if netns::mounted(path) { (Worker::enter(path)?, false) } else { (Worker::create(path)?, true) };
    let prepared = worker
        .run(|inside| -> io::Result<()> {
            // First of all: without a local address the kernel has no local routing table, takes every neighbour for a broadcast,
            // and sends frames to ff:ff:ff:ff:ff:ff.
            if let Some(Err(errno)) = inside.netlink.send(&[set_link("lo", None, None, 0)])?.first() {
                return Err((*errno).into());
            }
            SETTINGS.iter().try_for_each(|(name, value)| fs::write(format!("/proc/sys/net/{name}"), value))
        })
        .await?;
    if let Err(source) = prepared {
        drop(worker);
        if made {
            netns::remove(path)?;
        }
        return Err(NetnsError::Namespace { what: "prepared", path: path.into(), source });
    }
    Ok((worker, made))
}
