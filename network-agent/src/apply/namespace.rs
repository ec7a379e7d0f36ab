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

/// Entries of the neighbour tables, which all namespaces of the machine share: when to begin collecting, and how many there may be.
const NEIGHBOURS: [(&str, u64); 3] = [("gc_thresh1", 4096), ("gc_thresh2", 8192), ("gc_thresh3", 16_384)];

/// Raises the machine's limits on neighbours to what many networks need; what is higher stays. Only the first namespace has them.
pub fn raise_neighbour_limits() {
    for family in ["ipv4", "ipv6"] {
        for (name, least) in NEIGHBOURS.iter().rev() {
            let path = format!("/proc/sys/net/{family}/neigh/default/{name}");
            let found = fs::read_to_string(&path).ok().and_then(|text| text.trim().parse::<u64>().ok());
            if found.is_some_and(|found| found < *least)
                && let Err(error) = fs::write(&path, least.to_string())
            {
                tracing::warn!(path, %error, "the limit on neighbours can't be raised");
            }
        }
    }
}
