//! Tells an external segment that an address is here now: at once, after one second, and after three, since a switch or a stack
//! that is busy misses one.

use crate::{
    link::{frame, netns::Worker},
    model::{names, object::Network},
    plan::{Planned, Step},
};
use domain::network::MacAddr;
use std::{net::IpAddr, sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const AFTER_MS: [u64; 3] = [0, 1000, 3000];

/// Addresses that come to the uplink with these steps.
#[must_use]
pub fn announced(steps: &[Planned], network: &Network) -> Vec<(IpAddr, MacAddr)> {
    let Some(uplink) = &network.uplink else { return Vec::new() };
    let added = steps.iter().filter_map(|planned| {
        let Step::AddAddress { link, addr, .. } = &planned.step else { return None };
        (link == names::UPLINK).then_some((*addr, uplink.mac))
    });
    added.collect()
}

/// Sends by `link` in the worker's namespace; ends early with `stop`.
pub async fn announce(worker: Arc<Worker>, link: String, addresses: Vec<(IpAddr, MacAddr)>, stop: CancellationToken) {
    let began = tokio::time::Instant::now();
    for after in AFTER_MS {
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep_until(began + Duration::from_millis(after)) => {}
        }
        let (link, addresses) = (link.clone(), addresses.clone());
        let sent = worker
            .run(move |_| -> std::io::Result<()> {
                let socket = frame::open()?;
                let index = nix::net::if_::if_nametoindex(link.as_str())?;
                for (addr, mac) in addresses {
                    for bytes in frame::announcements(addr, mac) {
                        frame::send(&socket, index, &bytes)?;
                    }
                }
                Ok(())
            })
            .await;
        match sent {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "addresses could not be announced"),
            Err(_) => return,
        }
    }
}
