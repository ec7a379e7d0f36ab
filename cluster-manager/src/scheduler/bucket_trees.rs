//! The hosts of each bucket, ordered by id: a B+ tree for each, all in one pool of nodes, so that a host moves from tree to tree without
//! allocating.
//!
//! What a decision costs in a large cloud is cache misses. A treap with a node per host was built first: trees of a few hundred hosts
//! are ten levels deep, and each level is a miss to find the host, another to take it out, and more for its siblings' free capacity. Here
//! a host's id and free capacity lie in its leaf, beside those of its neighbors, and three levels hold thousands. A sorted vector per
//! bucket was rejected: a hundred thousand empty hosts are in one bucket, and each claim would move it.
//!
//! Entries run from the highest id down, since decisions take the lowest of a tree: that is the last of its leaf, and nothing moves.
//! A branch's entry holds the lowest id that its child ever held, and an upper bound of the free capacity of any host below: the search for
//! the first host with enough of it skips whole branches. That bound only rises with what comes in, and is corrected when a search found
//! nothing below it, so a host that leaves changes its leaf alone. A node is removed when it is empty, not before (Johnson, Shasha,
//! "B-trees with inserts and deletes: why free-at-empty is better than merge-at-half", 1993). The shape of a tree depends on how it came
//! to be, its answers only on what it holds.

use domain::{HostId, flavor::Size};

/// The number that stands for no node, and for no slot.
pub const NIL: u32 = u32::MAX;
/// How many entries a node has space for.
const FANOUT: usize = if cfg!(test) { 3 } else { 15 };

/// Free capacity in 12 bytes. What is beyond the largest value (4 PiB of memory, 4 EiB of disk) counts as that value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct PackedSize {
    vcpus: u32,
    memory_mib: u32,
    disk_gib: u32,
}

impl PackedSize {
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

/// Half a cache line. In a leaf it is a host, its slot and its free capacity; in a branch the lowest id of a child, the child, and the upper
/// bound of the free capacity there.
#[derive(Debug, Clone, Copy, Default)]
struct Entry {
    id: u128,
    at: u32,
    free: PackedSize,
}

#[derive(Debug, Clone)]
#[repr(C, align(64))]
struct Node {
    len: u32,
    /// 0 for a leaf.
    level: u32,
    /// This keeps any entry from lying across two cache lines.
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

    fn most(&self) -> PackedSize {
        self.held().iter().fold(PackedSize::default(), |most, e| most.max(e.free))
    }

    /// The position of the first entry whose id is not higher.
    fn position(&self, id: u128) -> usize {
        self.held().partition_point(|e| e.id > id)
    }

    /// The position of the child that `id` is in, or belongs in.
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

/// The nodes of all trees. A tree is known by the number of its root.
#[derive(Debug, Default)]
pub struct BucketTrees {
    nodes: Vec<Node>,
    vacant: Vec<u32>,
}

impl BucketTrees {
    fn add_node(&mut self, level: u32, entries: &[Entry]) -> u32 {
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

    /// Adds the host with its free capacity; answers the new root.
    pub fn insert(&mut self, root: u32, id: HostId, slot: u32, free: Size) -> u32 {
        let entry = Entry { id: id.0.as_u128(), at: slot, free: PackedSize::of(free) };
        if root == NIL {
            return self.add_node(0, &[entry]);
        }
        let mut root = root;
        if self.node(root).full() {
            let (level, free) = (self.node(root).level, self.node(root).most());
            let whole = Entry { id: self.lowest(root), at: root, free };
            root = self.add_node(level + 1, &[whole]);
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
            into.free = into.free.max(entry.free);
            into.id = into.id.min(entry.id);
            at = into.at;
        }
        let leaf = self.node_mut(at);
        leaf.put_in(leaf.position(entry.id), entry);
        root
    }

    /// The child's lower half becomes its neighbor. The parent has space for it.
    fn split_child(&mut self, parent: u32, child_at: usize) {
        let whole = self.node(parent).entries[child_at];
        let child = self.node(whole.at);
        let (level, half) = (child.level, child.len as usize / 2);
        let mut lower = [Entry::default(); FANOUT];
        let moved = &child.held()[half..];
        let count = moved.len();
        lower[..count].copy_from_slice(moved);
        self.node_mut(whole.at).len = half as u32;
        let at = self.add_node(level, &lower[..count]);
        let upper = Entry { id: self.lowest(whole.at), free: self.node(whole.at).most(), ..whole };
        let lower = Entry { id: whole.id, at, free: self.node(at).most() };
        let parent = self.node_mut(parent);
        parent.entries[child_at] = upper;
        parent.put_in(child_at + 1, lower);
    }

    /// Removes the host; answers the new root.
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

    /// Answers whether nothing is left of the node.
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

    /// The host stays in its tree with another free capacity.
    pub fn update(&mut self, root: u32, id: HostId, free: Size) {
        let (id, free, mut at) = (id.0.as_u128(), PackedSize::of(free), root);
        loop {
            let node = self.node_mut(at);
            if node.level == 0 {
                let position = node.position(id);
                if let Some(entry) = node.entries[..node.len as usize].get_mut(position).filter(|e| e.id == id) {
                    entry.free = free;
                }
                return;
            }
            let into = node.child(id);
            let into = &mut node.entries[into];
            into.free = into.free.max(free);
            at = into.at;
        }
    }

    /// The host with the lowest id that has enough free capacity and is accepted, and its slot.
    pub fn first(&mut self, root: u32, need: &Size, accepts: &mut impl FnMut(u32) -> bool) -> Option<(HostId, u32)> {
        let packed = PackedSize::of(*need);
        if root == NIL || u64::from(packed.memory_mib) != need.memory_mib || u64::from(packed.disk_gib) != need.disk_gib
        {
            return None;
        }
        let found = self.first_below(root, &packed, accepts)?;
        Some((HostId(uuid::Uuid::from_u128(found.id)), found.at))
    }

    fn first_below(&mut self, at: u32, need: &PackedSize, accepts: &mut impl FnMut(u32) -> bool) -> Option<Entry> {
        let node = self.node(at);
        if node.level == 0 {
            return node.held().iter().rev().find(|e| e.free.holds(need) && accepts(e.at)).copied();
        }
        for position in (0..node.len as usize).rev() {
            let Entry { at: child, free, .. } = self.node(at).entries[position];
            if !free.holds(need) {
                continue;
            }
            if let Some(found) = self.first_below(child, need, accepts) {
                return Some(found);
            }
            let most = self.node(child).most();
            self.node_mut(at).entries[position].free = most;
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

    /// Checks that every node of the tree is in order, that its bounds hold, and that no node is lost.
    fn check(trees: &BucketTrees, root: u32) -> Result<(), TestCaseError> {
        fn below(trees: &BucketTrees, at: u32, nodes: &mut usize) -> Result<(), TestCaseError> {
            *nodes += 1;
            let node = trees.node(at);
            prop_assert!(node.len > 0 && node.held().is_sorted_by(|a, b| a.id > b.id), "{node:?}");
            for entry in node.held().iter().filter(|_| node.level > 0) {
                let child = trees.node(entry.at);
                prop_assert_eq!(child.level + 1, node.level);
                prop_assert!(
                    entry.id <= trees.lowest(entry.at) && entry.free.holds(&child.most()),
                    "{entry:?} {child:?}"
                );
                below(trees, entry.at, nodes)?;
            }
            Ok(())
        }
        let mut nodes = 0;
        if root != NIL {
            below(trees, root, &mut nodes)?;
        }
        prop_assert_eq!(nodes + trees.vacant.len(), trees.nodes.len());
        Ok(())
    }

    proptest! {
        #[test]
        fn agrees_with_an_ordered_map(ops in proptest::collection::vec((0_u32..48, 0_u8..4, 0_u32..9, 0_u64..9), 1..300)) {
            let (mut trees, mut root, mut model) = (BucketTrees::default(), NIL, BTreeMap::new());
            for (slot, what, vcpus, memory_mib) in ops {
                // The ids are in another order than the slots.
                let key = (slot * 7) % 48;
                let id = HostId(uuid::Uuid::from_u128(u128::from(key)));
                let free = Size { vcpus, memory_mib, disk_gib: 1 };
                match (what, model.contains_key(&key)) {
                    (0 | 1, false) => { root = trees.insert(root, id, slot, free); model.insert(key, (slot, free)); }
                    (1, true) => { trees.update(root, id, free); model.insert(key, (slot, free)); }
                    (2 | 3, true) => { root = trees.remove(root, id); model.remove(&key); }
                    _ => {}
                }
                check(&trees, root)?;
                let need = Size { vcpus: 4, memory_mib: 3, disk_gib: 1 };
                let expected = model.iter().find(|(_, (slot, free))| fits(&need, free) && slot % 3 != 0);
                let expected = expected.map(|(key, (slot, _))| (HostId(uuid::Uuid::from_u128(u128::from(*key))), *slot));
                prop_assert_eq!(trees.first(root, &need, &mut |slot| slot % 3 != 0), expected);
            }
        }
    }
}
