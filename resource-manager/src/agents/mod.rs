//! The hosts' network-agents: what each must know of its networks, and what it says of them. The streams are
//! [`service_kit::host_streams`]'.
//!
//! **The problem.** A host must get a change within milliseconds, miss none across lost streams and restarts of either side, and never
//! take an older message for a newer one.
//!
//! **How.** Each host has a set of objects that may have changed for it ([`Manager::apply_committed`]). Its stream takes the set, renders these
//! objects from memory as they are *now*, and sends those that differ from what was sent last (`desired`): a burst of changes becomes
//! one delta, and a change that undid itself none. Every message has the host's next number, which is also the generation of each object
//! in it: numbers rise also across restarts (`number`), so the agent's ledger sorts any two messages of ours. What a host has and must
//! no longer have ends with a tombstone. A stream that begins starts from what the agent says it holds; everything is sent again.
//!
//! **Rejected.** A revision that is raised in each change's transaction: a port that is bound would write a row for every host that has its
//! network. Versions of rows as generations: a network that leaves a host and comes back unchanged would be older than its tombstone.

mod desired;
pub mod ingest;
mod metadata;
mod number;
pub mod orphan;
mod restored;
#[cfg(test)]
mod tests;

use crate::{
    Manager,
    network::topology::{ObjectKey, RowChange, bound_to},
};
use desired::{HostObjects, Sent};
use domain::{
    ErrorKind, HostId, PortId, Problem,
    host::AgentRole,
    network::{PROTECTED_ADDRESSES_PER_HOST, can_be_protected},
};
use number::{HostIdentity, Numbers};
use proto::{
    convert::parse,
    network::v1::PortTraffic,
    sync::v1::{self as pb, heartbeat::Statistics},
};
use service_kit::{
    host_streams::{HostManager, HostStream, HostStreams},
    peer::HostPeer,
};
use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};
use store::{CommitError, Constraint};

/// An agent sends something each second; one that is silent this long is gone.
pub const SILENCE: Duration = Duration::from_secs(15);

/// What the agent's heartbeats say.
#[derive(Debug, Clone)]
pub struct HostStatistics {
    pub at: Instant,
    pub networks: u32,
    pub ports: u32,
    pub pending: u32,
    /// Cumulative, as the instance sees it.
    pub traffic: HashMap<PortId, PortTraffic>,
}

impl Default for HostStatistics {
    fn default() -> Self {
        Self { at: Instant::now(), networks: 0, ports: 0, pending: 0, traffic: HashMap::new() }
    }
}

impl HostManager for Manager {
    const ROLE: AgentRole = AgentRole::NetworkAgent;
    type Key = ObjectKey;
    type Update = ();
    type Statistics = HostStatistics;
    type Desired = HostObjects;

    fn streams(&self) -> &HostStreams<Self> {
        &self.streams
    }

    async fn register(
        self: &Arc<Self>,
        hello: &mut pb::Hello,
        _: Option<HostPeer>,
    ) -> Result<(String, HostObjects), Problem> {
        let host_id: HostId = parse("hello.host_id", &hello.host_id)?;
        let Some(pb::hello::Host::Network(host)) = hello.host.take() else {
            return Err(Problem::invalid("hello.network", "is missing"));
        };
        let underlay_address = underlay_address(&host.underlay_address)?;
        let sent: HashMap<ObjectKey, Sent> = hello.holdings.iter().filter_map(holding).collect();
        let highest = hello.holdings.iter().map(|held| held.generation).max().unwrap_or(0).max(hello.revision);
        let known_limit = self.topology().host(host_id).map_or(0, |row| row.revision_limit);
        if highest > known_limit {
            tracing::warn!(
                %host_id, highest, known_limit,
                "a host has more than this database remembers (a backup was restored?): going on above that"
            );
        }
        let identity = HostIdentity {
            host_id,
            name: hello.name.clone(),
            underlay_address,
            addresses: protected_addresses(&host.addresses),
            underlay_mtu: host.underlay_mtu,
            external_networks: host.external_networks,
            highest,
        };
        let numbers = Numbers::begin(&self.store, identity, known_limit).await.map_err(|error| {
            if let CommitError::Constraint(Constraint::HostUnderlay) = error {
                return self.underlay_taken(host_id, &hello.name, underlay_address);
            }
            tracing::warn!(%host_id, error = &error as &dyn std::error::Error, "a host can't be registered");
            Problem::unavailable("the database doesn't answer now")
        })?;
        restored::lift_ports(self, host_id, &hello.holdings).await?;
        self.kept.replace(host_id, orphan::find(self, host_id, &hello.holdings).await?);
        self.apply_committed([RowChange::Host(numbers.row().clone())]);
        Ok((hello.name.clone(), HostObjects::new(Arc::clone(self), host_id, numbers, sent)))
    }

    /// Holdings are compared when the snapshot is sent. Tombstones of what the host must not know have done their work.
    async fn connected(self: &Arc<Self>, stream: &Arc<HostStream<Self>>, hello: pb::Hello) -> Result<(), Problem> {
        let topology = self.topology();
        let forgotten = hello.holdings.into_iter().filter(|held| {
            let key = ObjectKey::parse(held.kind, &held.id);
            held.tombstone && key.is_some_and(|key| topology.render(stream.host_id, key).is_none())
        });
        let ack =
            |held: pb::Holding| pb::ReportAck { kind: held.kind, id: held.id, forgotten: true, ..Default::default() };
        stream.acknowledge(forgotten.map(ack));
        Ok(())
    }

    fn take_statistics(&self, stream: &HostStream<Self>, statistics: Statistics) {
        let Statistics::Network(news) = statistics else { return };
        let mut statistics = stream.statistics.lock();
        statistics.at = Instant::now();
        (statistics.networks, statistics.ports, statistics.pending) = (news.networks, news.ports, news.pending);
        for traffic in news.traffic {
            if let Ok(id) = traffic.port_id.parse() {
                statistics.traffic.insert(id, traffic);
            }
        }
        // Of ports that left, nothing is counted any more.
        let topology = self.topology();
        statistics.traffic.retain(|id, _| topology.port(*id).and_then(bound_to) == Some(stream.host_id));
    }
}

impl Manager {
    /// Two hosts can't have one underlay address: other hosts would send one's packets to the other. The first one keeps it.
    fn underlay_taken(&self, host_id: HostId, name: &str, address: IpAddr) -> Problem {
        let topology = self.topology();
        let owner = topology.hosts().find(|host| host.underlay_address == address);
        let owner =
            owner.map_or_else(|| "another host".to_owned(), |host| format!("host {} ({})", host.name, host.host_id));
        tracing::error!(%host_id, name, %address, owner, "a host claims another's underlay address and is refused");
        metrics::counter!("iaas_underlay_conflicts_total").increment(1);
        Problem::new(
            ErrorKind::AlreadyExists,
            "underlay_address_taken",
            format!("the underlay address {address} of host {name} belongs to {owner}"),
        )
        .with_hint("correct network.underlay_address of one of the two; if the other host is no more, remove it: iaasctl host remove")
    }
}

/// Where other hosts are to send packets: an address of one machine.
fn underlay_address(text: &str) -> Result<IpAddr, Problem> {
    const FIELD: &str = "hello.network.underlay_address";
    let address = parse::<IpAddr>(FIELD, text)?.to_canonical();
    if address.is_unspecified() || address.is_multicast() {
        return Err(Problem::invalid(FIELD, format!("{address} is no address of a host")));
    }
    Ok(address)
}

/// What a host says of its own addresses counts as far as it makes sense, so that an odd one keeps no host away.
fn protected_addresses(texts: &[String]) -> Vec<IpAddr> {
    let addresses = texts.iter().filter_map(|text| text.parse().ok()).map(|address: IpAddr| address.to_canonical());
    let addresses: BTreeSet<IpAddr> = addresses.filter(|address| can_be_protected(*address)).collect();
    addresses.into_iter().take(PROTECTED_ADDRESSES_PER_HOST).collect()
}

/// An object of the agent's ledger, as if we had sent it.
fn holding(held: &pb::Holding) -> Option<(ObjectKey, Sent)> {
    Some((ObjectKey::parse(held.kind, &held.id)?, Sent { epoch: held.epoch, digest: None, tombstone: held.tombstone }))
}
