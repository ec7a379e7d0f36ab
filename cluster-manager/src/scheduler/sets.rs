//! Sets of hosts, ordered by id: a B+ tree for each, all in one pool of nodes, so that a host moves from set to set without allocating.
//!
//! What a decision costs in a large cloud is cache misses. A treap with a node per host was built first: sets of a few hundred hosts
//! are ten levels deep, and each level is a miss to find the host, another to take it out, and more for the room of its siblings. Here
//! a host's id and room lie in its leaf, beside those of its neighbors, and three levels hold thousands. A sorted vector per set was
//! rejected: a hundred thousand empty hosts are one set, and each claim would move it.
//!
//! Entries run from the highest id down, since decisions take the lowest of a set: that is the last of its leaf, and nothing moves.
//! A branch's entry says the lowest id that its child ever held, and the most room that any host below may have: "the first host with
//! this room" skips whole branches. That bound only rises with what comes in, and is put right when a search found nothing below it,
//! so a host's leaving touches its leaf alone. A node goes when it is empty, not before (Johnson, Shasha, "B-trees with inserts and
//! deletes: why free-at-empty is better than merge-at-half", 1993). The shape of a tree depends on how it came to be, its answers
//! only on what it holds.

use domain::{HostId, flavor::Size};

/// No node, no slot.
pub const NIL: u32 = u32::MAX;
/// Entries of a node.
const FANOUT: usize = if cfg!(test) { 3 } else { 15 };

/// Room in 12 bytes; what is beyond counts as the most that can be said (4 PiB of memory, 4 EiB of disk).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Room {
    vcpus: u32,
    memory_mib: u32,
    disk_gib: u32,
}

impl Room {
    fn of(size: Size) -> Self {
        let most = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
        Self { vcpus: size.vcpus, memory_mib: most(size.memory_mib), disk_gib: most(size.disk_gib) }
    }

    fn max(self, other: Self) -> Self {
        Self {
            vcpus: self.vcpus.max(other.vcpus),
            memory_mib: self.memory_mib.max(other.memory_mib),
            disk_gib: self.disk_gib.max(other.disk_gib),
        }
    }

    fn holds(&self, need: &Self) -> bool {
        need.vcpus <= self.vcpus && need.memory_mib <= self.memory_mib && need.disk_gib <= self.disk_gib
    }
}

/// Half a cache line. In a leaf: a host, its slot, its room. In a branch: the lowest id of a child, the child, the most room there.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    id: u128,
    at: u32,
    room: Room,
}

#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Node {
    len: u32,
    /// 0: a leaf.
    level: u32,
    /// So that no entry lies across two cache lines.
    unused: [u64; 3],
    entries: [Entry; FANOUT],
}

impl Node {
    fn held(&self) -> &[Entry] {
        &self.entries[..self.len as usize]
    }

    fn full(&self) -> bool {
        self.len as usize == FANOUT
    }

    fn most(&self) -> Room {
        self.held().iter().fold(Room::default(), |most, e| most.max(e.room))
    }

    /// The first entry whose id is not higher.
    fn position(&self, id: u128) -> usize {
        self.held().partition_point(|e| e.id > id)
    }

    /// The child that `id` is in, or belongs in.
    fn child(&self, id: u128) -> usize {
        self.position(id).min(self.len as usize - 1)
    }

    fn put_in(&mut self, at: usize, entry: Entry) {
        self.entries.copy_within(at..self.len as usize, at + 1);
        self.entries[at] = entry;
        self.len += 1;
    }

    fn take_out(&mut self, at: usize) {
        self.entries.copy_within(at + 1..self.len as usize, at);
        self.len -= 1;
    }
}

/// The nodes of all sets. A set is the number of its root.
#[derive(Debug, Default)]
pub struct Sets {
    nodes: Vec<Node>,
    vacant: Vec<u32>,
}

impl Sets {
    fn fresh(&mut self, level: u32, entries: &[Entry]) -> u32 {
        let mut node = Node { len: entries.len() as u32, level, unused: [0; 3], entries: [Entry::default(); FANOUT] };
        node.entries[..entries.len()].copy_from_slice(entries);
        match self.vacant.pop() {
            Some(at) => {
                self.nodes[at as usize] = node;
                at
            }
            None => {
                self.nodes.push(node);
                (self.nodes.len() - 1) as u32
            }
        }
    }

    fn node(&self, at: u32) -> &Node {
        &self.nodes[at as usize]
    }

    fn node_mut(&mut self, at: u32) -> &mut Node {
        &mut self.nodes[at as usize]
    }

    fn lowest(&self, at: u32) -> u128 {
        self.node(at).held().last().map_or(0, |e| e.id)
    }

    /// Adds the host with its free room; answers the new root.
    pub fn insert(&mut self, root: u32, id: HostId, slot: u32, free: Size) -> u32 {
        let entry = Entry { id: id.0.as_u128(), at: slot, room: Room::of(free) };
        if root == NIL {
            return self.fresh(0, &[entry]);
        }
        let mut root = root;
        if self.node(root).full() {
            let (level, room) = (self.node(root).level, self.node(root).most());
            let whole = Entry { id: self.lowest(root), at: root, room };
            root = self.fresh(level + 1, &[whole]);
            self.split_child(root, 0);
        }
        let mut at = root;
        while self.node(at).level > 0 {
            let mut child = self.node(at).child(entry.id);
            if self.node(self.node(at).entries[child].at).full() {
                self.split_child(at, child);
                child = self.node(at).child(entry.id);
            }
            let into = &mut self.node_mut(at).entries[child];
            into.room = into.room.max(entry.room);
            into.id = into.id.min(entry.id);
            at = into.at;
        }
        let leaf = self.node_mut(at);
        leaf.put_in(leaf.position(entry.id), entry);
        root
    }

    /// The child's lower half becomes its neighbor. The parent has a place for it.
    fn split_child(&mut self, parent: u32, child_at: usize) {
        let whole = self.node(parent).entries[child_at];
        let child = self.node(whole.at);
        let (level, half) = (child.level, child.len as usize / 2);
        let mut lower = [Entry::default(); FANOUT];
        let moved = &child.held()[half..];
        let count = moved.len();
        lower[..count].copy_from_slice(moved);
        self.node_mut(whole.at).len = half as u32;
        let at = self.fresh(level, &lower[..count]);
        let upper = Entry { id: self.lowest(whole.at), room: self.node(whole.at).most(), ..whole };
        let lower = Entry { id: whole.id, at, room: self.node(at).most() };
        let parent = self.node_mut(parent);
        parent.entries[child_at] = upper;
        parent.put_in(child_at + 1, lower);
    }

    /// Takes the host out; answers the new root.
    pub fn remove(&mut self, root: u32, id: HostId) -> u32 {
        let id = id.0.as_u128();
        if root == NIL {
            return NIL;
        }
        if self.remove_below(root, id) {
            return NIL;
        }
        let mut root = root;
        while let Node { len: 1, level: 1.., entries, .. } = self.node(root) {
            let only = entries[0].at;
            self.vacant.push(root);
            root = only;
        }
        root
    }

    /// Whether nothing is left of the node.
    fn remove_below(&mut self, at: u32, id: u128) -> bool {
        let node = self.node(at);
        let (level, position) = (node.level, if node.level > 0 { node.child(id) } else { node.position(id) });
        let Some(entry) = node.held().get(position).copied() else { return false };
        let gone = if level > 0 { self.remove_below(entry.at, id) } else { entry.id == id };
        if gone {
            self.node_mut(at).take_out(position);
        }
        let empty = self.node(at).len == 0;
        if empty {
            self.vacant.push(at);
        }
        empty
    }

    /// The host stays in its set with other room.
    pub fn update(&mut self, root: u32, id: HostId, free: Size) {
        let (id, room, mut at) = (id.0.as_u128(), Room::of(free), root);
        loop {
            let node = self.node_mut(at);
            if node.level == 0 {
                let position = node.position(id);
                if let Some(entry) = node.entries[..node.len as usize].get_mut(position).filter(|e| e.id == id) {
                    entry.room = room;
                }
                return;
            }
            let into = node.child(id);
            let into = &mut node.entries[into];
            into.room = into.room.max(room);
            at = into.at;
        }
    }

    /// The host with the lowest id that has the room and is wanted, and its slot.
    pub fn first(&mut self, root: u32, need: &Size, wanted: &mut impl FnMut(u32) -> bool) -> Option<(HostId, u32)> {
        let room = Room::of(*need);
        if root == NIL || u64::from(room.memory_mib) != need.memory_mib || u64::from(room.disk_gib) != need.disk_gib {
            return None;
        }
        let found = self.first_below(root, &room, wanted)?;
        Some((HostId(uuid::Uuid::from_u128(found.id)), found.at))
    }

    fn first_below(&mut self, at: u32, need: &Room, wanted: &mut impl FnMut(u32) -> bool) -> Option<Entry> {
        let node = self.node(at);
        if node.level == 0 {
            return node.held().iter().rev().find(|e| e.room.holds(need) && wanted(e.at)).copied();
        }
        for position in (0..node.len as usize).rev() {
            let Entry { at: child, room, .. } = self.node(at).entries[position];
            if !room.holds(need) {
                continue;
            }
            if let Some(found) = self.first_below(child, need, wanted) {
                return Some(found);
            }
            let most = self.node(child).most();
            self.node_mut(at).entries[position].room = most;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheduler::host::fits;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    /// Every node of the tree is in order, its bounds hold, and no node is lost.
    fn check(sets: &Sets, root: u32) -> Result<(), TestCaseError> {
        fn below(sets: &Sets, at: u32, nodes: &mut usize) -> Result<(), TestCaseError> {
            *nodes += 1;
            let node = sets.node(at);
            prop_assert!(node.len > 0 && node.held().is_sorted_by(|a, b| a.id > b.id), "{node:?}");
            for entry in node.held().iter().filter(|_| node.level > 0) {
                let child = sets.node(entry.at);
                prop_assert_eq!(child.level + 1, node.level);
                prop_assert!(
                    entry.id <= sets.lowest(entry.at) && entry.room.holds(&child.most()),
                    "{entry:?} {child:?}"
                );
                below(sets, entry.at, nodes)?;
            }
            Ok(())
        }
        let mut nodes = 0;
        if root != NIL {
            below(sets, root, &mut nodes)?;
        }
        prop_assert_eq!(nodes + sets.vacant.len(), sets.nodes.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn agrees_with_an_ordered_map(ops in proptest::collection::vec((0_u32..48, 0_u8..4, 0_u32..9, 0_u64..9), 1..300)) {
            let (mut sets, mut root, mut model) = (Sets::default(), NIL, BTreeMap::new());
            for (slot, what, vcpus, memory_mib) in ops {
                // Ids in another order than the slots.
                let key = (slot * 7) % 48;
                let id = HostId(uuid::Uuid::from_u128(u128::from(key)));
                let free = Size { vcpus, memory_mib, disk_gib: 1 };
                match (what, model.contains_key(&key)) {
                    (0 | 1, false) => { root = sets.insert(root, id, slot, free); model.insert(key, (slot, free)); }
                    (1, true) => { sets.update(root, id, free); model.insert(key, (slot, free)); }
                    (2 | 3, true) => { root = sets.remove(root, id); model.remove(&key); }
                    _ => {}
                }
                check(&sets, root)?;
                let need = Size { vcpus: 4, memory_mib: 3, disk_gib: 1 };
                let expected = model.iter().find(|(_, (slot, free))| fits(&need, free) && slot % 3 != 0);
                let expected = expected.map(|(key, (slot, _))| (HostId(uuid::Uuid::from_u128(u128::from(*key))), *slot));
                prop_assert_eq!(sets.first(root, &need, &mut |slot| slot % 3 != 0), expected);
            }
        }
    }
}
