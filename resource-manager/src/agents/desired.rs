//! One host's desired state: what was sent to it, and what is sent to it next.

use super::{metadata::metadata, number::Numbers};
use crate::{
    Manager,
    network::topology::{ObjectKey, Rendered},
};
use domain::{HostId, InstanceId, Problem, metadata::InstanceMetadata};
use proto::{
    network::v1::{SshKey, port},
    sync::v1::{DesiredObject, desired_object::Object},
};
use service_kit::host_streams::{DesiredState, NotYet, Updates};
use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    hash::{DefaultHasher, Hash, Hasher},
    sync::Arc,
};

/// What was sent of one object last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Sent {
    /// Of a port: a tombstone must not be of a lower one.
    pub epoch: i64,
    /// Of the object; None: what it is was sent by another stream. A tombstone has none either.
    pub digest: Option<u64>,
    pub tombstone: bool,
}

pub struct HostObjects {
    manager: Arc<Manager>,
    host_id: HostId,
    numbers: Numbers,
    sent: HashMap<ObjectKey, Sent>,
    /// What counts as sent once it has a number, in the order of the objects that were collected last.
    collected: VecDeque<(ObjectKey, Sent)>,
}

impl DesiredState<Manager> for HostObjects {
    async fn collect(
        &mut self,
        snapshot: bool,
        updates: Updates<Manager>,
    ) -> Result<Vec<DesiredObject>, NotYet<Manager>> {
        let mut keys: BTreeSet<ObjectKey> = updates.keys().copied().collect();
        if snapshot {
            // Everything it must have, and everything it has.
            keys.extend(self.manager.topology().objects_for_host(self.host_id));
            keys.extend(self.sent.keys().copied());
        }
        let rendered: Vec<(ObjectKey, Option<Rendered>)> = {
            let topology = self.manager.topology();
            keys.into_iter().map(|key| (key, topology.render(self.host_id, key))).collect()
        };
        let rendered = match self.with_metadata(rendered).await {
            Ok(rendered) => rendered,
            Err(problem) => return Err(NotYet { problem, updates }),
        };
        let changes = self.compare(rendered, snapshot);
        self.collected = changes.iter().map(|(key, sent, _)| (*key, *sent)).collect();
        Ok(changes.into_iter().map(|(_, _, object)| object).collect())
    }

    /// The number of a message is also the generation of each object in it.
    async fn number(&mut self, objects: &mut [DesiredObject]) -> Result<i64, Problem> {
        let number = self.numbers.next(&self.manager.store).await.map_err(|error| {
            tracing::debug!(error = &error as &dyn std::error::Error, "no numbers can be reserved");
            Problem::unavailable("the database doesn't answer now")
        })?;
        for object in objects.iter_mut() {
            object.generation = number;
        }
        for (key, sent) in self.collected.drain(..objects.len().min(self.collected.len())) {
            // Of what ended nothing need be remembered: a stream that breaks begins from what the agent holds.
            if sent.tombstone {
                self.sent.remove(&key);
            } else {
                self.sent.insert(key, sent);
            }
        }
        Ok(number)
    }
}

impl HostObjects {
    /// `sent`: what the agent holds.
    pub(super) fn new(
        manager: Arc<Manager>,
        host_id: HostId,
        numbers: Numbers,
        sent: HashMap<ObjectKey, Sent>,
    ) -> Self {
        Self { manager, host_id, numbers, sent, collected: VecDeque::new() }
    }

    /// Ports that are bound there carry what their instance's metadata service says.
    async fn with_metadata(
        &self,
        mut rendered: Vec<(ObjectKey, Option<Rendered>)>,
    ) -> Result<Vec<(ObjectKey, Option<Rendered>)>, Problem> {
        let mut ids: Vec<InstanceId> = rendered.iter().filter_map(|(_, object)| object.as_ref()?.instance_id).collect();
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
        for (_, object) in &mut rendered {
            let Some(Rendered { object: Object::Port(port), instance_id: Some(id), .. }) = object else {
                continue;
            };
            if let Some(port::Binding::Local(local)) = &mut port.binding {
                local.metadata = instances.get(id).map(|instance| metadata(InstanceMetadata::from(*instance)));
            }
        }
        Ok(rendered)
    }

    /// What differs from what was sent; with `all`, also what doesn't.
    fn compare(
        &self,
        rendered: Vec<(ObjectKey, Option<Rendered>)>,
        all: bool,
    ) -> Vec<(ObjectKey, Sent, DesiredObject)> {
        let mut changes = Vec::new();
        for (key, rendered) in rendered {
            let known = self.sent.get(&key).copied();
            let (kind, id) = (key.wire_kind().into(), key.id());
            let object = DesiredObject { kind, id, ..DesiredObject::default() };
            match rendered {
                Some(Rendered { epoch, object: rendered, .. }) => {
                    let object = DesiredObject { epoch, object: Some(rendered), ..object };
                    let sent = Sent { epoch, digest: Some(digest(&object)), tombstone: false };
                    if all || known != Some(sent) {
                        changes.push((key, sent, object));
                    }
                }
                None => {
                    let known = known.filter(|sent| !sent.tombstone && !self.manager.kept.contains(self.host_id, key));
                    let Some(known) = known else { continue };
                    let sent = Sent { epoch: known.epoch, digest: None, tombstone: true };
                    changes.push((key, sent, DesiredObject { epoch: known.epoch, deleted: true, ..object }));
                }
            }
        }
        // Networks before what is in them, and tombstones of ports before those of their networks.
        changes.sort_by(|(a, sent, _), (b, other, _)| {
            let by_key = if sent.tombstone { b.cmp(a) } else { a.cmp(b) };
            sent.tombstone.cmp(&other.tombstone).then(by_key)
        });
        changes
    }
}

fn digest(object: &DesiredObject) -> u64 {
    let mut hasher = DefaultHasher::new();
    prost::Message::encode_to_vec(&sorted(object)).hash(&mut hasher);
    hasher.finish()
}

/// Maps have no order on the wire; in a digest they must.
fn sorted(object: &DesiredObject) -> DesiredObject {
    let mut sorted = object.clone();
    if let Some(Object::Port(port)) = &mut sorted.object
        && let Some(port::Binding::Local(local)) = &mut port.binding
        && let Some(metadata) = &mut local.metadata
    {
        let mut tags: Vec<(String, String)> = metadata.tags.drain().collect();
        tags.sort_unstable();
        let lines = tags.into_iter().map(|(name, value)| SshKey { name, public_key: value });
        metadata.ssh_keys.extend(lines);
    }
    sorted
}
