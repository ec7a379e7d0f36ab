//! Sets of hosts, ordered by id, in one flat array: a host is in at most one set at a time, and moves without allocating.
//!
//! A treap (Seidel, Aragon 1996) whose priorities are hashes of the ids, so its shape, and with it every answer, depends on what it
//! holds and never on how it came to hold it. Each node knows the most free room below it: "the first host with this room" skips
//! whole branches. A sorted vector per set was rejected: a hundred thousand empty hosts are one set, and each claim would move it.

use domain::{HostId, flavor::Size};

/// No node.
pub const NIL: u32 = u32::MAX;

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

/// One cache line: a walk down a set costs one miss per host.
#[derive(Debug, Clone, Copy)]
#[repr(align(64))]
struct Node {
    id: u128,
    left: u32,
    right: u32,
    free: Room,
    /// The greatest of each resource in this subtree.
    most: Room,
}

/// The nodes of all sets, by the hosts' slots. A set is the slot of its root.
#[derive(Debug, Default)]
pub struct Treaps {
    nodes: Vec<Node>,
}

#[must_use]
pub fn fits(need: &Size, free: &Size) -> bool {
    need.vcpus <= free.vcpus && need.memory_mib <= free.memory_mib && need.disk_gib <= free.disk_gib
}

/// The finalizer of splitmix64, over both halves.
fn priority(id: u128) -> u64 {
    let mut x = (id as u64) ^ ((id >> 64) as u64).rotate_left(32);
    x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Treaps {
    /// The slot's host; it is in no set.
    pub fn put(&mut self, slot: u32, id: HostId) {
        let blank = Node { id: id.0.as_u128(), left: NIL, right: NIL, free: Room::default(), most: Room::default() };
        let at = slot as usize;
        if at >= self.nodes.len() {
            self.nodes.resize(at + 1, blank);
        }
        self.nodes[at] = blank;
    }

    fn node(&self, slot: u32) -> &Node {
        &self.nodes[slot as usize]
    }

    fn node_mut(&mut self, slot: u32) -> &mut Node {
        &mut self.nodes[slot as usize]
    }

    fn most(&self, tree: u32) -> Room {
        if tree == NIL { Room::default() } else { self.node(tree).most }
    }

    fn pull(&mut self, tree: u32) {
        let Node { left, right, free, .. } = *self.node(tree);
        self.node_mut(tree).most = free.max(self.most(left)).max(self.most(right));
    }

    /// Adds the slot with its free room; answers the new root.
    pub fn insert(&mut self, root: u32, slot: u32, free: Size) -> u32 {
        let (node, room) = (self.node_mut(slot), Room::of(free));
        (node.left, node.right, node.free, node.most) = (NIL, NIL, room, room);
        self.insert_node(root, slot)
    }

    fn insert_node(&mut self, tree: u32, slot: u32) -> u32 {
        if tree == NIL {
            return slot;
        }
        let (id, other) = (self.node(slot).id, self.node(tree).id);
        if (priority(id), id) > (priority(other), other) {
            let (left, right) = self.split(tree, id);
            let node = self.node_mut(slot);
            (node.left, node.right) = (left, right);
            self.pull(slot);
            return slot;
        }
        if id < other {
            let left = self.insert_node(self.node(tree).left, slot);
            self.node_mut(tree).left = left;
        } else {
            let right = self.insert_node(self.node(tree).right, slot);
            self.node_mut(tree).right = right;
        }
        self.pull(tree);
        tree
    }

    fn split(&mut self, tree: u32, id: u128) -> (u32, u32) {
        if tree == NIL {
            return (NIL, NIL);
        }
        if self.node(tree).id < id {
            let (left, right) = self.split(self.node(tree).right, id);
            self.node_mut(tree).right = left;
            self.pull(tree);
            (tree, right)
        } else {
            let (left, right) = self.split(self.node(tree).left, id);
            self.node_mut(tree).left = right;
            self.pull(tree);
            (left, tree)
        }
    }

    /// Takes the slot out; answers the new root.
    pub fn remove(&mut self, tree: u32, slot: u32) -> u32 {
        if tree == NIL {
            return NIL;
        }
        let Node { id: here, left, right, .. } = *self.node(tree);
        if tree == slot {
            return self.merge(left, right);
        }
        if self.node(slot).id < here {
            self.node_mut(tree).left = self.remove(left, slot);
        } else {
            self.node_mut(tree).right = self.remove(right, slot);
        }
        self.pull(tree);
        tree
    }

    fn merge(&mut self, left: u32, right: u32) -> u32 {
        if left == NIL {
            return right;
        }
        if right == NIL {
            return left;
        }
        let (a, b) = (self.node(left).id, self.node(right).id);
        if (priority(a), a) > (priority(b), b) {
            let merged = self.merge(self.node(left).right, right);
            self.node_mut(left).right = merged;
            self.pull(left);
            left
        } else {
            let merged = self.merge(left, self.node(right).left);
            self.node_mut(right).left = merged;
            self.pull(right);
            right
        }
    }

    #[must_use]
    pub fn id(&self, slot: u32) -> u128 {
        self.node(slot).id
    }

    /// Whether the slot's node says this room already.
    #[must_use]
    pub fn says(&self, slot: u32, free: Size) -> bool {
        self.node(slot).free == Room::of(free)
    }

    /// The slot stays in its set with other room.
    pub fn update(&mut self, root: u32, slot: u32, free: Size) {
        self.update_node(root, slot, Room::of(free));
    }

    fn update_node(&mut self, tree: u32, slot: u32, free: Room) {
        if tree == slot {
            self.node_mut(slot).free = free;
        } else {
            let Node { id: here, left, right, .. } = *self.node(tree);
            self.update_node(if self.node(slot).id < here { left } else { right }, slot, free);
        }
        self.pull(tree);
    }

    /// The host with the lowest id that has the room and is wanted.
    pub fn first(&self, root: u32, need: &Size, wanted: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        let room = Room::of(*need);
        if u64::from(room.memory_mib) != need.memory_mib || u64::from(room.disk_gib) != need.disk_gib {
            return None;
        }
        self.first_node(root, &room, wanted)
    }

    fn first_node(&self, tree: u32, need: &Room, wanted: &mut impl FnMut(u32) -> bool) -> Option<u32> {
        if tree == NIL {
            return None;
        }
        let Node { left, right, free, most, .. } = *self.node(tree);
        if !most.holds(need) {
            return None;
        }
        if let Some(found) = self.first_node(left, need, wanted) {
            return Some(found);
        }
        if free.holds(need) && wanted(tree) {
            return Some(tree);
        }
        self.first_node(right, need, wanted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn agrees_with_an_ordered_map(ops in proptest::collection::vec((0_u32..24, 0_u8..3, 0_u32..9, 0_u64..9), 1..200)) {
            let mut treaps = Treaps::default();
            for slot in 0..24 {
                // Ids in another order than the slots.
                treaps.put(slot, HostId(uuid::Uuid::from_u128(u128::from((slot * 7) % 24))));
            }
            let (mut root, mut model) = (NIL, BTreeMap::new());
            for (slot, what, vcpus, memory_mib) in ops {
                let key = (slot * 7) % 24;
                let free = Size { vcpus, memory_mib, disk_gib: 1 };
                match (what, model.contains_key(&key)) {
                    (0 | 1, false) => { root = treaps.insert(root, slot, free); model.insert(key, (slot, free)); }
                    (1, true) => { treaps.update(root, slot, free); model.insert(key, (slot, free)); }
                    (2, true) => { root = treaps.remove(root, slot); model.remove(&key); }
                    _ => {}
                }
                let need = Size { vcpus: 4, memory_mib: 3, disk_gib: 1 };
                let expected = model.values().find(|(slot, free)| fits(&need, free) && slot % 3 != 0).map(|(slot, _)| *slot);
                prop_assert_eq!(treaps.first(root, &need, &mut |slot| slot % 3 != 0), expected);
            }
        }
    }
}
