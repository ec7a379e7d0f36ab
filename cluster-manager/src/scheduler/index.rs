//! The usable hosts by what no request changes (zone, tags, features, dedication: a *cell*) and by free capacity (a bucket of the cell's
//! grid), each bucket an ordered tree ([`super::bucket_trees`]). A decision examines each cell that suits, walks its occupied buckets from
//! the cheapest, of which the first are known beforehand ([`super::bucket_cache`]), and takes the first host that has the capacity: what it
//! costs depends on how many cells and buckets there are, hardly on how many hosts.
//!
//! Rejected: all buckets in order of price for each shape, sorted again whenever prices change. That costs 0.3 ms a shape, and a
//! cloud of few sizes has hosts in 200 of 8,320 buckets.
//!
//! Buckets are coarser than sizes, so a bucket only says that its hosts *may* have the capacity; its tree skips those that haven't
//! ([`BucketTrees::first`]), which keeps the answer exact, the disk included.

use super::{
    bucket_cache::BucketCache,
    bucket_trees::{BucketTrees, NIL},
    demand::Demand,
    grid::{BUCKETS, Bucket, BucketKey, COLS, Kind, KindKey, ROWS, Shape, bucket_of},
    labels::RequestLabels,
    request::Request,
};
use domain::{HostId, ProjectId, flavor::Size};
use std::collections::HashMap;

/// Starts in progress per thread; hosts with more aren't told apart.
pub const QUEUE_MAX: u8 = 3;
/// Shapes of claims whose caches a cell keeps; the least recently used one is replaced.
const SHAPES_MAX: usize = if cfg!(test) { 4 } else { 64 };

/// What hosts of one cell have in common.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CellKey {
    pub zone: u16,
    /// Which of the labels that requests ever named its hosts have ([`super::labels`]).
    pub labels: u128,
    pub dedicated_to: Option<ProjectId>,
    /// Starts in progress per hardware thread, at most [`QUEUE_MAX`].
    pub queue: u8,
}

impl CellKey {
    /// Whether the request may go to hosts of the cell, as far as they are alike (its zone aside).
    #[must_use]
    pub fn suits(&self, labels: &RequestLabels, request: &Request) -> bool {
        let project = match self.dedicated_to {
            Some(project) => request.project == Some(project),
            None => !request.dedicated,
        };
        project && labels.suit(self.labels)
    }
}

#[derive(Debug)]
struct Cell {
    key: CellKey,
    kind: usize,
    hosts: u32,
    /// One bit per row, for each column, marks the buckets that aren't empty.
    bits: [u128; COLS],
    roots: Box<[u32]>,
    /// The shapes of the caches, in their order.
    shapes: Vec<Shape>,
    /// The caches with the time of their last use.
    caches: Vec<(BucketCache, u64)>,
    clock: u64,
}

#[derive(Debug, Clone, Copy)]
struct Place {
    cell: u32,
    bucket: Bucket,
}

/// A host that was found, and what its score is made of.
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
    /// The place of each slot's host; none where it isn't usable now.
    places: Vec<Option<Place>>,
    trees: BucketTrees,
    scratch: Vec<BucketKey>,
}

impl Index {
    /// Makes space for a new host in this slot, in no cell yet.
    pub fn add_slot(&mut self, slot: u32) {
        let at = slot as usize;
        if at >= self.places.len() {
            self.places.resize(at + 1, None);
        }
        debug_assert!(self.places[at].is_none(), "taken out first");
    }

    pub fn take_out(&mut self, slot: u32, id: HostId) {
        if let Some(place) = self.places[slot as usize].take() {
            let cell = &mut self.cells[place.cell as usize];
            cell.leave(&mut self.trees, place.bucket, id);
            cell.hosts -= 1;
        }
    }

    /// The host's free capacity changed, and nothing else.
    pub fn resize(&mut self, slot: u32, id: HostId, free: Size) {
        let Some(place) = &mut self.places[slot as usize] else { return };
        let cell = &mut self.cells[place.cell as usize];
        let kind = &self.kinds[cell.kind];
        let bucket = kind.bucket_of(free);
        if place.bucket == bucket {
            self.trees.update(cell.roots[usize::from(bucket)], id, free);
            return;
        }
        cell.leave(&mut self.trees, place.bucket, id);
        cell.join(&mut self.trees, kind, bucket, id, slot, free);
        place.bucket = bucket;
    }

    /// Puts the host where it belongs by what it is and by its free capacity. This allocates only for a cell that never was before.
    pub fn place(&mut self, slot: u32, id: HostId, kind: KindKey, key: CellKey, free: Size, demand: &Demand) {
        let known = self.places[slot as usize].filter(|place| {
            let cell = &self.cells[place.cell as usize];
            cell.key == key && self.kinds[cell.kind].key == kind
        });
        if known.is_some() {
            self.resize(slot, id, free);
            return;
        }
        self.take_out(slot, id);
        let cell_at = self.cell_for(kind, key, demand);
        let cell = &mut self.cells[cell_at as usize];
        let kind = &self.kinds[cell.kind];
        let bucket = kind.bucket_of(free);
        cell.join(&mut self.trees, kind, bucket, id, slot, free);
        cell.hosts += 1;
        self.places[slot as usize] = Some(Place { cell: cell_at, bucket });
    }

    fn cell_for(&mut self, kind: KindKey, key: CellKey, demand: &Demand) -> u32 {
        if let Some(at) = self.cell_of.get(&(kind, key)) {
            return *at;
        }
        let kind_at = self.kinds.iter().position(|k| k.key == kind).unwrap_or_else(|| {
            self.kinds.push(Kind::new(kind, demand.sizes()));
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
            caches: Vec::new(),
            clock: 0,
        };
        // A cell that lost its last host is reused: what tells hosts apart changes over the years.
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

    /// Computes the prices again.
    pub fn price(&mut self, demand: &Demand) {
        for kind in &mut self.kinds {
            kind.price(demand.sizes());
        }
    }

    /// The best host among the cells that suit and the hosts that are accepted.
    pub fn best(
        &mut self,
        size: Size,
        mut suits: impl FnMut(&CellKey) -> bool,
        mut accepts: impl FnMut(u32) -> bool,
    ) -> Option<Found> {
        let Self { kinds, cells, trees, scratch, .. } = self;
        let mut best: Option<(Found, HostId)> = None;
        for cell in cells.iter_mut().filter(|cell| cell.hosts > 0) {
            if best.is_some_and(|(b, _)| b.queue < cell.key.queue) || !suits(&cell.key) {
                continue;
            }
            let kind = &kinds[cell.kind];
            let claim = kind.key.claim_of(size);
            let shape = kind.shape_of(claim);
            let Some((bucket, id, slot)) = cell.cheapest(kind, shape, &claim, trees, scratch, &mut accepts) else {
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

    /// What the claim would cost on this host, if it is usable.
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
    fn join(&mut self, trees: &mut BucketTrees, kind: &Kind, bucket: Bucket, id: HostId, slot: u32, free: Size) {
        let at = usize::from(bucket);
        if self.roots[at] == NIL {
            self.bits[at / ROWS] |= 1 << (at % ROWS);
            self.caches.iter_mut().for_each(|(cache, _)| cache.bucket_occupied(kind, bucket));
        }
        self.roots[at] = trees.insert(self.roots[at], id, slot, free);
    }

    fn leave(&mut self, trees: &mut BucketTrees, bucket: Bucket, id: HostId) {
        let at = usize::from(bucket);
        self.roots[at] = trees.remove(self.roots[at], id);
        if self.roots[at] == NIL {
            self.bits[at / ROWS] &= !(1 << (at % ROWS));
            self.caches.iter_mut().for_each(|(cache, _)| cache.bucket_emptied(bucket));
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

    /// Fills the shape's cache where it must be, and answers where it is. This allocates only for a shape that never was before.
    fn cache_at(&mut self, kind: &Kind, shape: Shape) -> usize {
        self.clock += 1;
        let at = match self.shapes.iter().position(|known| *known == shape) {
            Some(at) => at,
            None if self.shapes.len() < SHAPES_MAX => {
                self.shapes.push(shape);
                self.caches.push((BucketCache::new(shape), 0));
                self.shapes.len() - 1
            }
            None => {
                let oldest = (0..SHAPES_MAX).min_by_key(|at| self.caches[*at].1).unwrap_or(0);
                (self.shapes[oldest], self.caches[oldest].0) = (shape, BucketCache::new(shape));
                oldest
            }
        };
        self.caches[at].1 = self.clock;
        if self.caches[at].0.must_be_filled(kind) {
            let mut cache = std::mem::replace(&mut self.caches[at].0, BucketCache::new(shape));
            cache.fill(kind, self.occupied());
            self.caches[at].0 = cache;
        }
        at
    }

    fn cheapest(
        &mut self,
        kind: &Kind,
        shape: Shape,
        claim: &Size,
        trees: &mut BucketTrees,
        scratch: &mut Vec<BucketKey>,
        accepts: &mut impl FnMut(u32) -> bool,
    ) -> Option<(Bucket, HostId, u32)> {
        let at = self.cache_at(kind, shape);
        let cache = &self.caches[at].0;
        let mut first = |key: &BucketKey| {
            let bucket = bucket_of(*key);
            let (id, slot) = trees.first(self.roots[usize::from(bucket)], claim, accepts)?;
            Some((bucket, id, slot))
        };
        if let Some(found) = cache.keys().iter().find_map(&mut first) {
            return Some(found);
        }
        if cache.bound() == BucketKey::MAX {
            return None;
        }
        scratch.clear();
        let rest = self.occupied().filter(|b| shape.may_fit(*b)).map(|b| kind.key(shape, b));
        scratch.extend(rest.filter(|key| *key > cache.bound()));
        scratch.sort_unstable();
        scratch.iter().find_map(first)
    }
}
