//! Keeps the host's own rules about the tunnel ([`crate::nft::underlay`]): written anew at the start, followed host by host, and put
//! back when somebody else changes them.
//!
//! The kernel's generation of rules says nothing here: others write their own tables into this namespace all the time. So a look
//! compares what nft lists with what it listed after our last change. The work is done on a thread of its own, beside the rounds that
//! need it: a round reports when both are done.

use super::{
    Host,
    disturbance::{Disturbance, note},
};
use crate::{
    apply::rules::{load, next_generation, run_nft},
    link::netns::{NetnsError, Worker},
    model::names,
    nft::underlay::{render_difference, render_table},
};
use service_kit::error_chain;
use std::{collections::BTreeSet, io, net::IpAddr, sync::Arc};
use tokio::sync::{Mutex, OwnedMutexGuard};

#[derive(Debug)]
pub struct Underlay {
    /// It lives in the host's own namespace.
    worker: Arc<Worker>,
    table: Arc<Mutex<Table>>,
}

#[derive(Debug, Default)]
struct Table {
    /// The hosts in the kernel's table; None before it is written, and after a failure.
    hosts: Option<BTreeSet<IpAddr>>,
    /// How nft lists it. It isn't known when somebody else changed rules while ours were written.
    listing: Option<Listing>,
    /// The last try failed, and a warning says so.
    failing: bool,
}

/// What nft prints of the table, in words without their order: that of a set's elements is the kernel's.
type Listing = Vec<String>;

impl Underlay {
    /// `host`: the thread of the host's own namespace.
    pub(super) fn new(host: &Worker) -> Result<Self, NetnsError> {
        Ok(Self { worker: Arc::new(host.second("underlay")?), table: Arc::default() })
    }

    /// Makes the table what the desired state says. What fails is tried again at the next call.
    pub(super) async fn follow(&self, host: &Host) {
        let table = Arc::clone(&self.table).lock_owned().await;
        self.follow_locked(host, table).await;
    }

    async fn follow_locked(&self, host: &Host, mut table: OwnedMutexGuard<Table>) {
        let desired_state = host.desired_state();
        // Without a network there is no VXLAN socket yet: a host that isn't used is left as it is.
        if table.hosts.is_none() && desired_state.networks.is_empty() {
            return;
        }
        let hosts: BTreeSet<IpAddr> = desired_state.remote_hosts().collect();
        if table.hosts.as_ref() == Some(&hosts) {
            return;
        }
        let name = names::underlay_table(&host.config.prefix);
        let whole = || render_table(&name, host.config.vxlan_port, &hosts);
        let text = table.hosts.take().map_or_else(whole, |known| render_difference(&name, &known, &hosts));
        let mut written = self.write(text).await;
        if written.is_err() {
            // Perhaps the table that the difference was made for is gone.
            written = self.write(whole()).await;
        }
        match written {
            Ok(generation) => {
                *table = Table { hosts: Some(hosts), listing: None, failing: false };
                // Whoever waits for the rules needn't wait for the listing.
                let worker = Arc::clone(&self.worker);
                tokio::spawn(async move { table.listing = list_at(&worker, name, generation).await });
            }
            Err(reason) if !std::mem::replace(&mut table.failing, true) => {
                tracing::warn!(reason, "the rules about other hosts' tunnelled frames could not be written");
            }
            Err(reason) => {
                tracing::debug!(reason, "the rules about other hosts' tunnelled frames still can't be written");
            }
        }
    }

    /// Looks whether the table is still as it was written, and writes it anew if not.
    pub(super) async fn audit(&self, host: &Host) {
        let mut table = Arc::clone(&self.table).lock_owned().await;
        if table.hosts.is_some() {
            let name = names::underlay_table(&host.config.prefix);
            let found = flatten(self.worker.run(move |_| list(&name)).await).ok();
            if table.listing.is_none() || found != table.listing {
                if table.listing.is_some() {
                    note(host, Disturbance::Underlay, None);
                }
                table.hosts = None;
            }
        }
        self.follow_locked(host, table).await;
    }

    /// The generation that the text made.
    async fn write(&self, text: String) -> Result<u32, String> {
        let written = self.worker.run(move |inside| {
            let before = inside.rules.generation()?;
            load(&text)?;
            Ok(next_generation(before))
        });
        flatten(written.await)
    }
}

/// The listing, if nobody changed any rules since that generation: what a stranger did would be taken for ours.
async fn list_at(worker: &Worker, table: String, generation: u32) -> Option<Listing> {
    let listed = worker.run(move |inside| {
        let listing = list(&table)?;
        Ok((inside.rules.generation()? == generation).then_some(listing))
    });
    flatten(listed.await).ok().flatten()
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
