//! The usable hosts by what no request changes (zone, tags, features, dedication: a *cell*) and by free room (a bucket of the cell's
//! grid), each bucket an ordered set ([`super::sets`]). A decision looks at each cell that suits, walks its occupied buckets from the
//! cheapest, of which the first are known beforehand ([`super::front`]), and takes the first host that has the room: what it costs
//! depends on how many cells and buckets there are, hardly on how many hosts.
//!
//! Rejected: all buckets in order of price for each shape, sorted anew whenever prices change. It costs 0.3 ms a shape then, and a
//! cloud of few sizes has hosts in 200 of 8,320 buckets.
//!
//! Buckets are coarser than room, so a bucket only says that its hosts *may* have it; the set itself skips those that haven't
//! ([`Sets::first`]), which keeps the answer exact, the disk included.

use super::{
    front::{Front, Key, bucket_of},
    grid::{BUCKETS, Bucket, COLS, Kind, KindKey, ROWS, Shape},
    mix::Mix,
    sets::{NIL, Sets},
};
use domain::{HostId, ProjectId, flavor::Size, host::MemoryOverhead};
use std::collections::HashMap;

/// Starts in progress per thread beyond which hosts aren't told apart.
pub const QUEUE_MOST: u8 = 3;
/// Shapes of claims whose fronts a cell keeps; the least lately used gives way.
const SHAPES: usize = if cfg!(test) { 4 } else { 64 };

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
    /// One bit per row, for each column: the buckets that aren't empty.
    bits: [u128; COLS],
    roots: Box<[u32]>,
    /// By which the fronts are found.
    shapes: Vec<Shape>,
    /// With the time of their last use.
    fronts: Vec<(Front, u64)>,
    clock: u64,
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
    sets: Sets,
    scratch: Vec<Key>,
}

impl Index {
    /// A new host in this slot, in no cell yet.
    pub fn put(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, None);
        }
        debug_assert!(self.places[at].is_none(), "taken out first");
    }

    pub fn take_out(&mut self, slot: u32, id: HostId) {
        if let Some(place) = self.places[slot as usize].take() {
            let cell = &mut self.cells[place.cell as usize];
            cell.leave(&mut self.sets, place.bucket, id);
            cell.hosts -= 1;
        }
    }

    /// What a host is stayed as it was, its room didn't.
    pub fn resize(&mut self, slot: u32, id: HostId, free: Size) {
        let Some(place) = &mut self.places[slot as usize] else { return };
        let cell = &mut self.cells[place.cell as usize];
        let kind = &self.kinds[cell.kind];
        let bucket = kind.bucket_of(free);
        if place.bucket == bucket {
            self.sets.update(cell.roots[usize::from(bucket)], id, free);
            return;
        }
        cell.leave(&mut self.sets, place.bucket, id);
        cell.join(&mut self.sets, kind, bucket, id, slot, free);
        place.bucket = bucket;
    }

    /// What the host is and its room. Allocates only for a cell never seen.
    pub fn place(&mut self, slot: u32, id: HostId, kind: KindKey, key: CellKey, free: Size, mix: &Mix) {
        let known = self.places[slot as usize].filter(|place| {
            let cell = &self.cells[place.cell as usize];
            cell.key == key && self.kinds[cell.kind].key == kind
        });
        if known.is_some() {
            self.resize(slot, id, free);
            return;
        }
        self.take_out(slot, id);
        let cell_at = self.cell_for(kind, key, mix);
        let cell = &mut self.cells[cell_at as usize];
        let kind = &self.kinds[cell.kind];
        let bucket = kind.bucket_of(free);
        cell.join(&mut self.sets, kind, bucket, id, slot, free);
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
        let cell = Cell {
            key,
            kind: kind_at,
            hosts: 0,
            bits: [0; COLS],
            roots,
            shapes: Vec::new(),
            fronts: Vec::new(),
            clock: 0,
        };
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
        let Self { kinds, cells, sets, scratch, .. } = self;
        let mut best: Option<(Found, HostId)> = None;
        for cell in cells.iter_mut().filter(|cell| cell.hosts > 0) {
            if best.is_some_and(|(b, _)| b.queue < cell.key.queue) || !suits(&cell.key) {
                continue;
            }
            let kind = &kinds[cell.kind];
            let claim = kind.key.claim_of(size);
            let shape = kind.shape_of(claim);
            let Some((bucket, id, slot)) = cell.cheapest(kind, shape, &claim, sets, scratch, &mut wanted) else {
                continue;
            };
            let found = Found { slot, queue: cell.key.queue, packing: kind.cost(shape, bucket), bucket };
            let rank = |f: &Found, id: HostId| (f.queue, f.packing, f.bucket, id);
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
    fn join(&mut self, sets: &mut Sets, kind: &Kind, bucket: Bucket, id: HostId, slot: u32, free: Size) {
        let at = usize::from(bucket);
        if self.roots[at] == NIL {
            self.bits[at / ROWS] |= 1 << (at % ROWS);
            self.fronts.iter_mut().for_each(|(front, _)| front.came(kind, bucket));
        }
        self.roots[at] = sets.insert(self.roots[at], id, slot, free);
    }

    fn leave(&mut self, sets: &mut Sets, bucket: Bucket, id: HostId) {
        let at = usize::from(bucket);
        self.roots[at] = sets.remove(self.roots[at], id);
        if self.roots[at] == NIL {
            self.bits[at / ROWS] &= !(1 << (at % ROWS));
            self.fronts.iter_mut().for_each(|(front, _)| front.went(bucket));
        }
    }

    fn occupied(&self) -> impl Iterator<Item = Bucket> {
        self.bits.iter().enumerate().flat_map(|(col, rows)| {
            let mut left = *rows;
            std::iter::from_fn(move || {
                let row = (left != 0).then(|| left.trailing_zeros())?;
                left &= left - 1;
                Some((col * ROWS) as Bucket + row as Bucket)
            })
        })
    }

    /// Where the shape's front is; it is filled. Allocates only for a shape never seen.
    fn front(&mut self, kind: &Kind, shape: Shape) -> usize {
        self.clock += 1;
        let at = match self.shapes.iter().position(|known| *known == shape) {
            Some(at) => at,
            None if self.shapes.len() < SHAPES => {
                self.shapes.push(shape);
                self.fronts.push((Front::new(shape), 0));
                self.shapes.len() - 1
            }
            None => {
                let oldest = (0..SHAPES).min_by_key(|at| self.fronts[*at].1).unwrap_or(0);
                (self.shapes[oldest], self.fronts[oldest].0) = (shape, Front::new(shape));
                oldest
            }
        };
        self.fronts[at].1 = self.clock;
        if self.fronts[at].0.must_be_filled(kind) {
            let mut front = std::mem::replace(&mut self.fronts[at].0, Front::new(shape));
            front.fill(kind, self.occupied());
            self.fronts[at].0 = front;
        }
        at
    }

    fn cheapest(
        &mut self,
        kind: &Kind,
        shape: Shape,
        claim: &Size,
        sets: &mut Sets,
        scratch: &mut Vec<Key>,
        wanted: &mut impl FnMut(u32) -> bool,
    ) -> Option<(Bucket, HostId, u32)> {
        let front = self.front(kind, shape);
        let front = &self.fronts[front].0;
        let mut first = |key: &Key| {
            let bucket = bucket_of(*key);
            let (id, slot) = sets.first(self.roots[usize::from(bucket)], claim, wanted)?;
            Some((bucket, id, slot))
        };
        if let Some(found) = front.keys().iter().find_map(&mut first) {
            return Some(found);
        }
        if front.bound() == Key::MAX {
            return None;
        }
        scratch.clear();
        let rest = self.occupied().filter(|b| shape.may_fit(*b)).map(|b| kind.key(shape, b));
        scratch.extend(rest.filter(|key| *key > front.bound()));
        scratch.sort_unstable();
        scratch.iter().find_map(first)
    }
}

/// Hosts of equal capacity and overhead share a grid.
#[must_use]
pub fn kind_of(capacity: Size, overhead: MemoryOverhead) -> KindKey {
    KindKey::of(capacity, overhead)
}
