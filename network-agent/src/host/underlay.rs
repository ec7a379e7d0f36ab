//! Keeps the host's own rules about the tunnel ([`crate::nft::underlay`]): written anew at the start, followed host by host, and put
//! back when the audit finds that somebody else changed them.
//!
//! The kernel's generation of rules says nothing here: others write their own tables into this namespace all the time. So the audit
//! compares what nft lists with what it listed after our last change.

use super::Host;
use crate::{
    apply::rules::{load, next_generation, run_nft},
    link::netns::NetnsError,
    model::names,
    nft::underlay::{render_difference, render_table},
};
use service_kit::error_chain;
use std::{collections::BTreeSet, io, net::IpAddr};

#[derive(Debug, Default)]
pub(super) struct Underlay {
    /// The hosts in the kernel's table and how nft lists it; None before it is written, and after a failure. The listing isn't known when
    /// somebody else changed rules while ours were written.
    written: Option<(BTreeSet<IpAddr>, Option<Listing>)>,
    /// The last try failed, and a warning says so.
    failing: bool,
}

/// What nft prints of the table, in words without their order: that of a set's elements is the kernel's.
type Listing = Vec<String>;

impl Underlay {
    /// Makes the table what the desired state says. What fails is tried again at the next call.
    pub(super) async fn follow(&mut self, host: &Host) {
        let desired_state = host.desired_state();
        // Without a network there is no VXLAN socket yet: a host that isn't used is left as it is.
        if self.written.is_none() && desired_state.networks.is_empty() {
            return;
        }
        let table = names::underlay_table(&host.config.prefix);
        let hosts: BTreeSet<IpAddr> = desired_state.remote_hosts().collect();
        let text = match self.written.take() {
            Some((known, listing)) if known == hosts => {
                self.written = Some((known, listing));
                return;
            }
            Some((known, _)) => render_difference(&table, &known, &hosts),
            None => render_table(&table, host.config.vxlan_port, &hosts),
        };
        let mut written = write(host, &table, text).await;
        if written.is_err() {
            // Perhaps the table that the difference was made for is gone.
            written = write(host, &table, render_table(&table, host.config.vxlan_port, &hosts)).await;
        }
        match written {
            Ok(listing) => {
                self.written = Some((hosts, listing));
                self.failing = false;
            }
            Err(reason) if !std::mem::replace(&mut self.failing, true) => {
                tracing::warn!(reason, "the rules about other hosts' tunnelled frames could not be written");
            }
            Err(reason) => {
                tracing::debug!(reason, "the rules about other hosts' tunnelled frames still can't be written")
            }
        }
    }

    /// Looks whether the table is still as it was written, and writes it anew if not.
    pub(super) async fn audit(&mut self, host: &Host) {
        if let Some((_, known)) = &self.written {
            let table = names::underlay_table(&host.config.prefix);
            let found = flatten(host.worker.run(move |_| list(&table)).await);
            if known.is_none() || found.as_ref().ok() != known.as_ref() {
                if known.is_some() {
                    tracing::warn!(
                        "somebody else changed the rules about other hosts' tunnelled frames: they are written anew"
                    );
                }
                self.written = None;
            }
        }
        self.follow(host).await;
    }
}

async fn write(host: &Host, table: &str, text: String) -> Result<Option<Listing>, String> {
    let table = table.to_owned();
    let written = host.worker.run(move |inside| {
        let before = inside.rules.generation()?;
        load(&text)?;
        let listing = list(&table)?;
        // What a stranger did between the two would be taken for ours.
        Ok((inside.rules.generation()? == next_generation(before)).then_some(listing))
    });
    flatten(written.await)
}

/// Without the counters.
fn list(table: &str) -> io::Result<Listing> {
    let text = run_nft(&["-s", "list", "table", "inet", table])?;
    let mut listing: Vec<String> =
        text.split([' ', '\n', '\t', ',']).filter(|part| !part.is_empty()).map(ToOwned::to_owned).collect();
    listing.sort_unstable();
    Ok(listing)
}

fn flatten<T>(result: Result<io::Result<T>, NetnsError>) -> Result<T, String> {
    match result {
        Ok(Ok(value)) => Ok(value),
        Ok(Err(error)) => Err(error_chain(&error)),
        Err(error) => Err(error_chain(&error)),
    }
}
