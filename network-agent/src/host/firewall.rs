//! Keeps Docker's packet filter from dropping what external networks carry.
//!
//! The problem: Docker sets the policy of the host's chain FORWARD to drop. What the host routes for an external network passes that chain, and so do
//! bridged packets where the kernel's `br_netfilter` is on. An `accept` in a table of our own doesn't help: a drop anywhere is final. But
//! Docker jumps to its chain DOCKER-USER before anything else, and leaves what others write there. So where that chain is, our rules stand
//! at its beginning ([`crate::nft::forward`]), and come back when somebody removes them. Other firewalls have no such place: the doctor
//! names them.

use super::Host;
use crate::{
    apply::rules::{load, run_nft},
    nft::forward::{CHAIN, FAMILIES, render},
};
use service_kit::error_chain;
use std::collections::BTreeSet;

/// The table that Docker's chain is in.
pub(super) const TABLE: &str = "filter";

/// Looks whether Docker's chain is there, and has our rules.
pub(super) async fn ensure(host: &Host) {
    let bridges: BTreeSet<String> = host.config.external.values().cloned().collect();
    if bridges.is_empty() {
        return;
    }
    let prefix = host.config.prefix.clone();
    let ensured = host.worker.run(move |_| {
        let mut written = 0_u64;
        for family in FAMILIES {
            // Without Docker there is no such chain.
            let Ok(listing) = run_nft(&["-s", "-a", "list", "chain", family, TABLE, CHAIN]) else { continue };
            if let Some(text) = render(family, &listing, &prefix, &bridges) {
                load(&text)?;
                written += 1;
            }
        }
        Ok::<_, std::io::Error>(written)
    });
    match ensured.await {
        Ok(Ok(0)) => {}
        Ok(Ok(_)) => tracing::info!("Docker's packet filter lets packets of the external networks pass"),
        Ok(Err(error)) => {
            let error = error_chain(&error);
            tracing::warn!(error, "Docker's packet filter may drop packets of the external networks");
        }
        Err(error) => tracing::debug!(%error, "the host's packet filter can't be looked at"),
    }
}
