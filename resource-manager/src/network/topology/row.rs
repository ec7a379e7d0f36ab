//! What a kind of row must say of itself to be kept in memory, and the one way in which rows of all kinds follow commits.
//!
//! A row of a lower generation never replaces one of a higher: two commits may reach memory in another order than they were made. For the
//! same reason a row that ended stays out ([`Tombstones`]).

use super::{Affected, RowChange, RowKey, Topology};
use domain::{
    Name, ProjectId,
    network::{ObjectKind, Resource},
};
use std::{
    cmp::Ordering,
    collections::{BTreeSet, HashMap, VecDeque, hash_map::Entry},
    fmt::Display,
    hash::Hash,
};

/// Whether a row may come again under the id of one that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Return {
    Never,
    /// With a higher generation than the one that ended.
    Later,
    /// Such rows have no generation: the one that was committed last counts. They are never read one by one.
    Always,
}

/// Where rows of a kind are kept, here and in the database; `rows!` implements it.
pub trait Table: Sized {
    type RowId: Copy + Eq + Hash + Send + Sync;
    const KEY: fn(Self::RowId) -> RowKey;

    fn row_id(&self) -> Self::RowId;
    fn row_generation(&self) -> i64;
    fn table(topology: &Topology) -> &HashMap<Self::RowId, Self>;
    fn table_mut(topology: &mut Topology) -> &mut HashMap<Self::RowId, Self>;
}

/// A kind of row that is kept in memory.
pub trait Row: Table + Clone {
    const RETURN: Return = Return::Never;

    /// Puts the row into the indexes beside its table.
    fn index(&self, _topology: &mut Topology) {}
    fn unindex(&self, _topology: &mut Topology) {}
    /// Which objects a change of this row may change, and for which hosts. It rather names too many than too few: an object that is
    /// rendered as it was is not sent.
    fn affected(&self, topology: &Topology) -> Vec<Affected>;

    /// Takes in a committed row that is newer than what is there.
    fn put(self, topology: &mut Topology) -> Vec<Affected> {
        let id = self.row_id();
        let mut affected = Self::take(topology, id).map(|(_, affected)| affected).unwrap_or_default();
        self.index(topology);
        affected.extend(self.affected(topology));
        Self::table_mut(topology).insert(id, self);
        affected
    }

    fn remove(topology: &mut Topology, id: Self::RowId) -> Vec<Affected> {
        Self::take(topology, id).map(|(_, affected)| affected).unwrap_or_default()
    }

    /// Takes the row out of its table and the indexes; what its change affects as long as it was there.
    fn take(topology: &mut Topology, id: Self::RowId) -> Option<(Self, Vec<Affected>)> {
        let affected = Self::table(topology).get(&id)?.affected(topology);
        let old = Self::table_mut(topology).remove(&id)?;
        old.unindex(topology);
        Some((old, affected))
    }
}

/// A kind of row that people create and name.
pub trait NamedRow: Row + Table<RowId: Display> + Resource<Id = <Self as Table>::RowId> + Into<RowChange> {
    /// None: every project may use it.
    fn project_id(&self) -> Option<ProjectId>;
    fn name(&self) -> Option<&Name>;

    /// What people call it by.
    fn label(&self) -> String {
        self.name().map_or_else(|| self.id().to_string(), Name::to_string)
    }

    /// How sentences name it: "network blue (0198…)".
    fn describe(&self) -> String {
        described(Self::KIND, self.label(), self.id())
    }
}

macro_rules! named_in_project {
    ($row:ident) => {
        impl crate::network::topology::NamedRow for $row {
            fn project_id(&self) -> Option<domain::ProjectId> {
                Some(self.project_id)
            }

            fn name(&self) -> Option<&domain::Name> {
                Some(&self.name)
            }
        }
    };
}
pub(super) use named_in_project;

#[must_use]
pub fn described(kind: ObjectKind, label: impl Display, id: impl Display) -> String {
    let (kind, label, id) = (kind.label(), label.to_string(), id.to_string());
    if label == id { format!("{kind} {id}") } else { format!("{kind} {label} ({id})") }
}

impl Topology {
    /// Takes in a committed row, unless a newer one is known or it has ended. What it affects may hold a pair twice.
    pub(super) fn put<R: Row>(&mut self, new: R) -> Vec<Affected> {
        let (id, generation) = (new.row_id(), new.row_generation());
        if R::RETURN != Return::Always {
            if self.tombstones.ended_at(&R::KEY(id)).is_some_and(|ended| generation <= ended) {
                return Vec::new();
            }
            match R::table(self).get(&id).map(|known| known.row_generation().cmp(&generation)) {
                Some(Ordering::Greater) => return Vec::new(),
                Some(Ordering::Equal) => {
                    // Only what hosts reported of it is new.
                    R::table_mut(self).insert(id, new);
                    return Vec::new();
                }
                Some(Ordering::Less) | None => {}
            }
        }
        new.put(self)
    }

    /// The row has ended.
    pub(super) fn remove<R: Row>(&mut self, id: R::RowId) -> Vec<Affected> {
        match R::RETURN {
            Return::Never => self.tombstones.insert(R::KEY(id), i64::MAX),
            Return::Later => {
                let last = R::table(self).get(&id).map_or(1, R::row_generation);
                self.tombstones.insert(R::KEY(id), last);
            }
            Return::Always => {}
        }
        R::remove(self, id)
    }
}

pub(super) fn index<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: V) {
    map.entry(key).or_default().insert(value);
}

pub(super) fn unindex<K: Hash + Eq, V: Ord>(map: &mut HashMap<K, BTreeSet<V>>, key: K, value: &V) {
    if let Entry::Occupied(mut entry) = map.entry(key) {
        entry.get_mut().remove(value);
        if entry.get().is_empty() {
            entry.remove();
        }
    }
}

/// How many rows that ended are remembered.
const TOMBSTONES_MAX: usize = 65_536;

/// Rows that ended, so that one that reaches memory after its end stays out.
#[derive(Debug, Default)]
pub(super) struct Tombstones {
    /// Up to which generation a row of that key stays out.
    ended: HashMap<RowKey, i64>,
    order: VecDeque<RowKey>,
}

impl Tombstones {
    fn insert(&mut self, key: RowKey, generation: i64) {
        match self.ended.entry(key) {
            Entry::Occupied(mut known) => *known.get_mut() = generation.max(*known.get()),
            Entry::Vacant(empty) => {
                empty.insert(generation);
                self.order.push_back(key);
            }
        }
        if self.order.len() > TOMBSTONES_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.ended.remove(&oldest);
        }
    }

    pub(super) fn ended_at(&self, key: &RowKey) -> Option<i64> {
        self.ended.get(key).copied()
    }
}
