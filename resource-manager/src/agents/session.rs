//! One host's stream, downwards: what it was told, and what it is told next.

use super::{Link, Pending, lock, number::Numbers};
use crate::{
    Manager,
    network::topology::{
        Told,
        render::{Rendered, metadata},
    },
};
use domain::{InstanceId, Problem, metadata::InstanceMetadata};
use proto::network::v1::{self as pb, manager_message::Message as Down};
use std::{
    collections::{BTreeSet, HashMap},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
    time::Duration,
};
use tonic::Status;

/// Bytes of words in one message; the rest follows in the next.
const MESSAGE_BYTES: usize = 4 * 1024 * 1024;
/// After a read that failed.
const RETRY: Duration = Duration::from_millis(500);

/// What a host was told of one object last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Word {
    /// Of a port: a tombstone must not be of a lower one.
    pub epoch: i64,
    /// Of what was said; None: what it is was said in another stream. A tombstone has none either.
    pub digest: Option<u64>,
    pub buried: bool,
}

pub(super) struct Session {
    manager: Arc<Manager>,
    link: Arc<Link>,
    numbers: Numbers,
    told: HashMap<Told, Word>,
}

/// Words whose number isn't given yet.
struct Unsaid {
    told: Told,
    word: Word,
    desired: pb::Desired,
}

impl Session {
    pub(super) fn new(manager: Arc<Manager>, link: Arc<Link>, numbers: Numbers, told: HashMap<Told, Word>) -> Self {
        Self { manager, link, numbers, told }
    }

    /// The stream to the agent: ends when the link is closed or the service stops.
    pub(super) fn outgoing(mut self) -> impl futures::Stream<Item = Result<pb::ManagerMessage, Status>> + Send {
        let message = |message| Ok(pb::ManagerMessage { message: Some(message) });
        async_stream::stream! {
            yield message(Down::Welcome(pb::Welcome { host_id: self.link.host_id.to_string() }));
            // When the agent's side drops this stream, so does the link.
            let _guard = self.link.closed.clone().drop_guard();
            loop {
                let pending = tokio::select! {
                    () = self.link.closed.cancelled() => break,
                    () = self.manager.shutdown.cancelled() => break,
                    pending = self.link.next() => pending,
                };
                let Pending { snapshot, told, replies } = pending;
                for reply in replies {
                    yield message(reply);
                }
                if !snapshot && told.is_empty() {
                    continue;
                }
                match self.say(snapshot, told.clone()).await {
                    Ok(messages) => {
                        for one in messages {
                            yield message(one);
                        }
                    }
                    Err(problem) => {
                        tracing::warn!(host_id = %self.link.host_id, %problem, "a host can't be told yet; tried again");
                        {
                            let mut pending = lock(&self.link.pending);
                            pending.snapshot |= snapshot;
                            pending.told.extend(told);
                        }
                        tokio::time::sleep(RETRY).await;
                        self.link.news.notify_one();
                    }
                }
            }
        }
    }

    /// What is to be sent. Nothing is counted as told unless all of it is.
    async fn say(&mut self, snapshot: bool, mut told: BTreeSet<Told>) -> Result<Vec<Down>, Problem> {
        let host_id = self.link.host_id;
        if snapshot {
            // Everything it must know, and everything it knows.
            told.extend(self.manager.topology().told_to(host_id));
            told.extend(self.told.keys().copied());
        }
        let rendered: Vec<(Told, Option<Rendered>)> = {
            let topology = self.manager.topology();
            told.into_iter().map(|one| (one, topology.render(host_id, one))).collect()
        };
        let unsaid = self.compare(self.with_metadata(rendered).await?, snapshot);
        if unsaid.is_empty() && !snapshot {
            return Ok(Vec::new());
        }
        self.number(unsaid, snapshot).await
    }

    /// Ports that are bound there carry what their instance's metadata service says.
    async fn with_metadata(
        &self,
        mut rendered: Vec<(Told, Option<Rendered>)>,
    ) -> Result<Vec<(Told, Option<Rendered>)>, Problem> {
        let mut ids: Vec<InstanceId> =
            rendered.iter().filter_map(|(_, one)| one.as_ref().and_then(|one| one.instance_id)).collect();
        if ids.is_empty() {
            return Ok(rendered);
        }
        ids.sort_unstable();
        ids.dedup();
        let rows = self.manager.store.instance_load_many(&ids).await.map_err(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "instances can't be read");
            Problem::unavailable("the instances can't be read now")
        })?;
        let instances: HashMap<InstanceId, _> = rows.iter().map(|row| (row.instance.id, &row.instance)).collect();
        for (_, one) in &mut rendered {
            let Some(Rendered { object: pb::desired::Object::Port(port), instance_id: Some(id), .. }) = one else {
                continue;
            };
            if let Some(pb::port::Binding::Local(local)) = &mut port.binding {
                local.metadata = instances.get(id).map(|instance| metadata(InstanceMetadata::from(*instance)));
            }
        }
        Ok(rendered)
    }

    fn compare(&self, rendered: Vec<(Told, Option<Rendered>)>, all: bool) -> Vec<Unsaid> {
        let mut unsaid = Vec::new();
        for (told, rendered) in rendered {
            let known = self.told.get(&told).copied();
            match rendered {
                Some(Rendered { epoch, object, .. }) => {
                    let desired = pb::Desired {
                        id: id_of(told),
                        kind: kind_of(told).into(),
                        object: Some(object),
                        ..Default::default()
                    };
                    let word = Word { epoch, digest: Some(digest(epoch, &desired)), buried: false };
                    if all || known != Some(word) {
                        unsaid.push(Unsaid { told, word, desired });
                    }
                }
                None => {
                    let Some(known) = known.filter(|word| !word.buried) else { continue };
                    let desired = pb::Desired {
                        id: id_of(told),
                        kind: kind_of(told).into(),
                        deleted: true,
                        ..Default::default()
                    };
                    let word = Word { epoch: known.epoch, digest: None, buried: true };
                    unsaid.push(Unsaid { told, word, desired });
                }
            }
        }
        // Networks before what is in them, and tombstones of ports before those of their networks.
        unsaid.sort_by_key(|one| (one.word.buried, if one.word.buried { -rank(one.told) } else { rank(one.told) }));
        unsaid
    }

    /// In messages that are small enough, each with the next number.
    async fn number(&mut self, unsaid: Vec<Unsaid>, snapshot: bool) -> Result<Vec<Down>, Problem> {
        let mut messages = Vec::new();
        let mut parts: Vec<Vec<Unsaid>> = vec![Vec::new()];
        let mut bytes = 0;
        for one in unsaid {
            let length = prost::Message::encoded_len(&one.desired);
            if bytes + length > MESSAGE_BYTES && bytes > 0 {
                parts.push(Vec::new());
                bytes = 0;
            }
            bytes += length;
            if let Some(part) = parts.last_mut() {
                part.push(one);
            }
        }
        for (at, part) in parts.into_iter().enumerate() {
            let previous = self.numbers.last();
            let revision = self.numbers.next(&self.manager.store).await.map_err(|error| {
                tracing::debug!(error = &error as &dyn std::error::Error, "no numbers can be reserved");
                Problem::unavailable("the database doesn't answer now")
            })?;
            let mut objects = Vec::with_capacity(part.len());
            for Unsaid { told, word, mut desired } in part {
                desired.version = Some(pb::Version { epoch: word.epoch, generation: revision });
                self.told.insert(told, word);
                objects.push(desired);
            }
            // Absence never deletes, so a snapshot may come in parts.
            messages.push(if snapshot && at == 0 {
                Down::Snapshot(pb::Snapshot { revision, objects })
            } else {
                Down::Delta(pb::Delta { previous, revision, objects })
            });
        }
        Ok(messages)
    }
}

fn rank(told: Told) -> i8 {
    match told {
        Told::Network(_) => 0,
        Told::SecurityGroup(_) => 1,
        Told::Port(_) => 2,
        Told::FloatingIp(_) => 3,
    }
}

fn digest(epoch: i64, desired: &pb::Desired) -> u64 {
    let mut hasher = DefaultHasher::new();
    epoch.hash(&mut hasher);
    prost::Message::encode_to_vec(&sorted(desired)).hash(&mut hasher);
    hasher.finish()
}

/// Maps have no order on the wire; in a digest they must.
fn sorted(desired: &pb::Desired) -> pb::Desired {
    let mut sorted = desired.clone();
    if let Some(pb::desired::Object::Port(port)) = &mut sorted.object
        && let Some(pb::port::Binding::Local(local)) = &mut port.binding
        && let Some(metadata) = &mut local.metadata
    {
        let mut tags: Vec<(String, String)> = metadata.tags.drain().collect();
        tags.sort_unstable();
        let lines = tags.into_iter().map(|(name, value)| pb::SshKey { name, public_key: value });
        metadata.ssh_keys.extend(lines);
    }
    sorted
}

pub(super) fn id_of(told: Told) -> String {
    match told {
        Told::Network(id) => id.to_string(),
        Told::SecurityGroup(id) => id.to_string(),
        Told::Port(id) => id.to_string(),
        Told::FloatingIp(id) => id.to_string(),
    }
}

pub(super) fn kind_of(told: Told) -> pb::ObjectKind {
    match told {
        Told::Network(_) => pb::ObjectKind::Network,
        Told::SecurityGroup(_) => pb::ObjectKind::SecurityGroup,
        Told::Port(_) => pb::ObjectKind::Port,
        Told::FloatingIp(_) => pb::ObjectKind::FloatingIp,
    }
}
