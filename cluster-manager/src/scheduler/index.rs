//! The usable hosts by what no request changes (zone, tags, features, dedication: a *cell*) and by free room (a bucket of the cell's
//! grid), each bucket an ordered set. A decision looks at each cell that suits, walks its buckets from the cheapest, and takes the
//! first host that has the room: what it costs depends on how many cells and buckets there are, not on how many hosts.
//!
//! Buckets are coarser than room, so a bucket only says that its hosts *may* have it; the set itself skips those that haven't
//! ([`Treaps::first`]), which keeps the answer exact, the disk included.

use super::{
    grid::{BUCKETS, Bucket, COLS, Kind, KindKey, ROWS, Shape},
    mix::Mix,
    treap::{NIL, Treaps},
};
use domain::{HostId, ProjectId, flavor::Size, host::MemoryOverhead};
use std::collections::HashMap;

/// Starts in progress per thread beyond which hosts aren't told apart.
pub const QUEUE_MOST: u8 = 3;
/// Fewer occupied buckets than a sixteenth of the order: looking at each is cheaper than walking the order. Tests with their few
/// hosts go both ways.
const SPARSE: usize = if cfg!(test) { BUCKETS / 3 } else { 16 };
/// Times that the sparse way takes the next cheapest bucket before it gives in and walks the order.
const SPARSE_TRIES: usize = 4;

/// What hosts of one cell have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CellKey {
    pub zone: u16,
    /// Which of the tags and CPU features that requests ever named its hosts have ([`super::atoms`]).
    pub atoms: u128,
    pub dedicated_to: Option<ProjectId>,
    /// Starts in progress per hardware thread, at most [`QUEUE_MOST`].
    pub queue: u8,
}

#[derive(Debug)]
struct Cell {
    key: CellKey,
    kind: usize,
    hosts: u32,
    occupied: usize,
    /// One bit per row, for each column: the buckets that aren't empty.
    bits: [u128; COLS],
    roots: Box<[u32]>,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    cell: u32,
    bucket: Bucket,
}

/// A host found: what its score is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Found {
    pub slot: u32,
    pub queue: u8,
    pub packing: i32,
    pub bucket: Bucket,
}

#[derive(Debug, Default)]
pub struct Index {
    kinds: Vec<Kind>,
    cells: Vec<Cell>,
    cell_of: HashMap<(KindKey, CellKey), u32>,
    /// By slot; none: not usable now.
    places: Vec<Option<Place>>,
    treaps: Treaps,
    scratch: Vec<u64>,
}

impl Index {
    /// A new host in this slot, in no cell yet.
    pub fn put(&mut self, slot: u32, id: HostId) {
        let at = slot as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, None);
        }
        debug_assert!(self.places[at].is_none(), "taken out first");
        self.treaps.put(slot, id);
    }

    pub fn take_out(&mut self, slot: u32) {
        let Some(place) = self.places[slot as usize].take() else { return };
        let cell = &mut self.cells[place.cell as usize];
        let bucket = usize::from(place.bucket);
        cell.roots[bucket] = self.treaps.remove(cell.roots[bucket], slot);
        cell.hosts -= 1;
        if cell.roots[bucket] == NIL {
            cell.bits[bucket / ROWS] &= !(1 << (bucket % ROWS));
            cell.occupied -= 1;
        }
    }

    /// The host has this room now. Allocates only for a cell never seen.
    pub fn place(&mut self, slot: u32, kind: KindKey, key: CellKey, free: Size, mix: &Mix) {
        let known = self.places[slot as usize].filter(|place| {
            let cell = &self.cells[place.cell as usize];
            cell.key == key && self.kinds[cell.kind].key == kind
        });
        let cell_at = match known {
            Some(place) => place.cell,
            None => self.cell_for(kind, key, mix),
        };
        if known.is_some() && self.treaps.says(slot, free) {
            return;
        }
        let bucket = self.kinds[self.cells[cell_at as usize].kind].bucket_of(free);
        if let Some(place) = known
            && place.bucket == bucket
        {
            let root = self.cells[cell_at as usize].roots[usize::from(bucket)];
            self.treaps.update(root, slot, free);
            return;
        }
        self.take_out(slot);
        let (cell, at) = (&mut self.cells[cell_at as usize], usize::from(bucket));
        if cell.roots[at] == NIL {
            cell.bits[at / ROWS] |= 1 << (at % ROWS);
            cell.occupied += 1;
        }
        cell.roots[at] = self.treaps.insert(cell.roots[at], slot, free);
        cell.hosts += 1;
        self.places[slot as usize] = Some(Place { cell: cell_at, bucket });
    }

    fn cell_for(&mut self, kind: KindKey, key: CellKey, mix: &Mix) -> u32 {
        if let Some(at) = self.cell_of.get(&(kind, key)) {
            return *at;
        }
        let kind_at = self.kinds.iter().position(|k| k.key == kind).unwrap_or_else(|| {
            self.kinds.push(Kind::new(kind, mix.sizes()));
            self.kinds.len() - 1
        });
        let roots = vec![NIL; BUCKETS].into_boxed_slice();
        let cell = Cell { key, kind: kind_at, hosts: 0, occupied: 0, bits: [0; COLS], roots };
        // A cell that lost its last host makes room: what tells hosts apart changes over the years.
        let empty = self.cells.iter().position(|c| c.hosts == 0);
        let at = match empty {
            Some(at) => {
                let old = &self.cells[at];
                self.cell_of.remove(&(self.kinds[old.kind].key, old.key));
                let roots = std::mem::replace(&mut self.cells[at].roots, Box::new([]));
                self.cells[at] = Cell { roots, ..cell };
                at
            }
            None => {
                self.cells.push(cell);
                self.cells.len() - 1
            }
        };
        self.cell_of.insert((kind, key), at as u32);
        at as u32
    }

    /// Prices anew.
    pub fn price(&mut self, mix: &Mix) {
        for kind in &mut self.kinds {
            kind.price(mix.sizes());
        }
    }

    /// The best host of the cells and hosts that are wanted.
    pub fn best(
        &mut self,
        size: Size,
        mut suits: impl FnMut(&CellKey) -> bool,
        mut wanted: impl FnMut(u32) -> bool,
    ) -> Option<Found> {
        let Self { kinds, cells, treaps, scratch, .. } = self;
        let mut best: Option<(Found, u128)> = None;
        for cell in cells.iter().filter(|cell| cell.hosts > 0) {
            if best.is_some_and(|(b, _)| b.queue < cell.key.queue) || !suits(&cell.key) {
                continue;
            }
            let kind = &mut kinds[cell.kind];
            let claim = kind.key.claim_of(size);
            let shape = kind.shape_of(claim);
            let Some((bucket, slot)) = cell.cheapest(kind, shape, &claim, treaps, scratch, &mut wanted) else {
                continue;
            };
            let found = Found { slot, queue: cell.key.queue, packing: kind.cost(shape, bucket), bucket };
            let id = treaps.id(slot);
            let rank = |f: &Found, id: u128| (f.queue, f.packing, f.bucket, id);
            if best.is_none_or(|(b, other)| rank(&found, id) < rank(&b, other)) {
                best = Some((found, id));
            }
        }
        best.map(|(found, _)| found)
    }

    /// What the claim would cost on this very host, if it is usable.
    #[must_use]
    pub fn score(&self, slot: u32, size: Size) -> Option<Found> {
        let place = self.places[slot as usize]?;
        let cell = &self.cells[place.cell as usize];
        let kind = &self.kinds[cell.kind];
        let packing = kind.cost(kind.shape_of(kind.key.claim_of(size)), place.bucket);
        Some(Found { slot, queue: cell.key.queue, packing, bucket: place.bucket })
    }

    /// The cells that have hosts, and how many.
    pub fn cells(&self) -> impl Iterator<Item = (&CellKey, u32)> {
        self.cells.iter().filter(|c| c.hosts > 0).map(|c| (&c.key, c.hosts))
    }
}

impl Cell {
    fn occupied(&self, bucket: Bucket) -> bool {
        self.bits[usize::from(bucket) / ROWS] >> (usize::from(bucket) % ROWS) & 1 == 1
    }

    fn cheapest(
        &self,
        kind: &mut Kind,
        shape: Shape,
        claim: &Size,
        treaps: &Treaps,
        scratch: &mut Vec<u64>,
        wanted: &mut impl FnMut(u32) -> bool,
    ) -> Option<(Bucket, u32)> {
        let mut beyond = None;
        if self.occupied * SPARSE < BUCKETS {
            for _ in 0..SPARSE_TRIES {
                let next = self.next(kind, shape, beyond)?;
                if let Some(slot) = treaps.first(self.roots[usize::from(next.1)], claim, wanted) {
                    return Some((next.1, slot));
                }
                beyond = Some(next);
            }
        }
        let order = kind.order(shape, scratch);
        order.iter().filter(|bucket| self.occupied(**bucket)).find_map(|bucket| {
            let slot = treaps.first(self.roots[usize::from(*bucket)], claim, wanted)?;
            Some((*bucket, slot))
        })
    }

    /// The cheapest occupied bucket after `beyond`.
    fn next(&self, kind: &Kind, shape: Shape, beyond: Option<(i32, Bucket)>) -> Option<(i32, Bucket)> {
        let rows = u128::MAX << shape.low.1;
        let mut best: Option<(i32, Bucket)> = None;
        for col in usize::from(shape.low.0)..COLS {
            let mut bits = self.bits[col] & rows;
            while bits != 0 {
                let bucket = (col * ROWS) as Bucket + bits.trailing_zeros() as Bucket;
                bits &= bits - 1;
                let key = (kind.cost(shape, bucket), bucket);
                if beyond.is_none_or(|b| key > b) && best.is_none_or(|b| key < b) {
                    best = Some(key);
                }
            }
        }
        best
    }
}

/// Hosts of equal capacity and overhead share a grid.
#[must_use]
pub fn kind_of(capacity: Size, overhead: MemoryOverhead) -> KindKey {
    KindKey::of(capacity, overhead)
}
