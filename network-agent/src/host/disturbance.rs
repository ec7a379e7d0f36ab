//! What others changed on this host that is ours: counted, told to the log, and kept where `iaasd doctor` finds it.
//!
//! All of it is put back by itself, so it is no failure of a network. But whoever did it will do it again, and between the change and its
//! repair packets were lost; so the operator must learn of it from more than a log line.

use super::Host;
use domain::{NetworkId, Timestamp};
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

/// What was changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Disturbance {
    /// The packet rules of a network.
    Rules,
    /// A network's interfaces: one is gone, down, or not as it was made.
    Links,
    /// A network's addresses, routes or neighbours.
    Ways,
    /// The name of a network's namespace isn't mounted any more, or another namespace is.
    Mounts,
    /// The rules about tunnelled frames in the host's own namespace.
    Underlay,
}

impl Disturbance {
    pub const ALL: [Self; 5] = [Self::Rules, Self::Links, Self::Ways, Self::Mounts, Self::Underlay];

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Links => "links",
            Self::Ways => "ways",
            Self::Mounts => "mounts",
            Self::Underlay => "underlay",
        }
    }

    /// For the operator.
    #[must_use]
    pub fn what(self) -> &'static str {
        match self {
            Self::Rules => "the packet rules of a network",
            Self::Links => "a network's interfaces",
            Self::Ways => "a network's addresses, routes or neighbours",
            Self::Mounts => "the mount of a network's namespace",
            Self::Underlay => "the host's rules about tunnelled frames",
        }
    }

    /// Who it usually is.
    #[must_use]
    pub fn usual_suspect(self) -> &'static str {
        match self {
            Self::Rules | Self::Underlay => {
                "a firewall service that runs `nft flush ruleset` (nftables.service, firewalld)"
            }
            Self::Links | Self::Ways => {
                "a network manager or a script that works in our namespaces (ip netns exec, ip -n)"
            }
            Self::Mounts => "a tool that mounts over or unmounts /run/netns",
        }
    }
}

/// One kind, as the file has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Noted {
    pub kind: Disturbance,
    pub count: u64,
    /// Milliseconds since 1970.
    pub last_at: i64,
    /// The network that it was last, where it is one's.
    pub network_id: Option<NetworkId>,
}

#[derive(Debug, Default)]
pub struct Disturbances {
    noted: Mutex<BTreeMap<Disturbance, Noted>>,
}

impl Disturbances {
    /// How often a kind was noted in this life of the agent.
    #[must_use]
    pub fn count(&self, kind: Disturbance) -> u64 {
        self.noted.lock().get(&kind).map_or(0, |noted| noted.count)
    }
}

/// Where the agent of that port socket keeps them: beside the socket, since they are of this boot alone.
#[must_use]
pub fn file_beside(port_socket: &Path) -> PathBuf {
    port_socket.with_extension("disturbances.json")
}

/// What the file says; nothing where there is none.
pub fn read(path: &Path) -> io::Result<Vec<Noted>> {
    match fs::read(path) {
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(io::Error::other),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(e) => Err(e),
    }
}

pub(super) fn note(host: &Host, kind: Disturbance, network_id: Option<NetworkId>) {
    metrics::counter!("iaas_network_disturbances_total", "kind" => kind.as_str()).increment(1);
    tracing::warn!(?network_id, kind = kind.as_str(), "somebody else changed {}: it is put back", kind.what());
    let all: Vec<Noted> = {
        let mut noted = host.disturbances.noted.lock();
        let entry = noted.entry(kind).or_insert(Noted { kind, count: 0, last_at: 0, network_id });
        (entry.count, entry.last_at, entry.network_id) = (entry.count + 1, Timestamp::now().0, network_id);
        noted.values().cloned().collect()
    };
    // For the doctor alone: without it, the log and the metric still say so.
    let path = file_beside(&host.config.port_socket);
    if let Err(error) = serde_json::to_vec(&all).map_err(io::Error::other).and_then(|bytes| fs::write(&path, bytes)) {
        tracing::debug!(path = %path.display(), %error, "the list of what others changed can't be written");
    }
}
