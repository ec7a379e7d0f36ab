//! A kind of hosts (equal vCPUs, about equal memory, equal overhead) and the grid of its free capacity: columns of vCPUs, rows of memory.
//! What a claim costs on a host depends on the host's bucket and the claim alone, so the cheapest buckets can be known per shape of
//! claim ([`super::bucket_cache`]), and serve a hundred thousand hosts until prices change.
//!
//! The price (smaller is better) of a claim that takes a host from free capacity `b` to free capacity `a`:
//!
//! `left(a) + worth(b) - worth(a)`
//!
//! `left` is best fit: the square roots of the shares of the host left, each weighted by how much of a host the hard requests take
//! of that resource (the root of the eighth moment of their shares: few large requests decide when a cloud is full). `worth(x)` is what `x`
//! is still good for, over the sizes requested lately: how many of them fit, less the part of `x` that none of them could use
//! (fragmentation: Weng et al., "Beware of Fragmentation", ATC 2023, for GPUs). It was measured on the Azure trace against best fit
//! (`iaas-bench packing`); docs/adr/2026-11-25-placement-index-and-price.md describes what did not help.

use super::demand::DemandedSize;
use domain::{flavor::Size, host::MemoryOverhead};

/// Columns of free vCPUs, 0 to 64 units.
pub const COLS: usize = 65;
/// Rows of free memory, 0 to 127 units.
pub const ROWS: usize = 128;
pub const BUCKETS: usize = COLS * ROWS;
/// The fixed point of prices.
const UNIT: f64 = 1_000_000.0;
/// How much large requests outweigh small ones in what is scarce.
const MOMENT: i32 = 8;
/// The weight of fragmentation, where best fit weighs 1.
const FRAGMENTATION: f64 = 0.1;
/// The weight of what still fits.
const SLOTS: f64 = 0.2;

/// `col * ROWS + row`.
pub type Bucket = u16;

/// What a bucket costs, then its number: buckets in order of their keys are in order of preference.
pub type BucketKey = u64;

#[must_use]
pub fn bucket_of(key: BucketKey) -> Bucket {
    key as Bucket
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct KindKey {
    pub vcpus: u32,
    /// The memory of one row in MiB, rounded up to five significant bits: machines of one model differ by a few MiB.
    pub row_mib: u64,
    pub overhead: MemoryOverhead,
}

impl KindKey {
    #[must_use]
    pub fn of(capacity: Size, overhead: MemoryOverhead) -> Self {
        let exact = capacity.memory_mib.div_ceil(ROWS as u64 - 1).max(1);
        let step = 1_u64 << exact.ilog2().saturating_sub(4);
        Self { vcpus: capacity.vcpus, row_mib: exact.div_ceil(step).saturating_mul(step), overhead }
    }

    #[must_use]
    pub fn claim_of(&self, size: Size) -> Size {
        Size { memory_mib: self.overhead.claim_mib(size), ..size }
    }
}

#[derive(Debug)]
pub struct Kind {
    pub key: KindKey,
    col_vcpus: u32,
    /// The prices of so many columns left, and of so many rows.
    left_cols: [i32; COLS],
    left_rows: [i32; ROWS],
    worth: Box<[i32]>,
    age: u32,
}

/// A claim in the grid's units: the lowest bucket that could hold it, and how far it moves a host.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    low: (u8, u8),
    shift: (u8, u8),
}

impl Shape {
    /// Whether the claim may fit a host in this bucket.
    #[must_use]
    pub fn may_fit(&self, bucket: Bucket) -> bool {
        let (col, row) = (usize::from(bucket) / ROWS, usize::from(bucket) % ROWS);
        col >= usize::from(self.low.0) && row >= usize::from(self.low.1)
    }
}

/// This is a square root, since the most requested size shouldn't be all that counts.
fn popularity(size: &DemandedSize) -> f64 {
    (size.count as f64).sqrt()
}

fn units(amount: u64, unit: u64, most: usize) -> u8 {
    u8::try_from((amount / unit).min(most as u64 - 1)).unwrap_or(u8::MAX)
}

impl Kind {
    #[must_use]
    pub fn new(key: KindKey, demand: &[DemandedSize]) -> Self {
        let mut kind = Self {
            key,
            col_vcpus: key.vcpus.div_ceil(COLS as u32 - 1).max(1),
            left_cols: [0; COLS],
            left_rows: [0; ROWS],
            worth: vec![0; BUCKETS].into_boxed_slice(),
            age: 0,
        };
        kind.price(demand);
        kind
    }

    /// Computes the prices again, from what is requested now.
    pub fn price(&mut self, demand: &[DemandedSize]) {
        let (host_vcpus, host_mib) = (f64::from(self.key.vcpus.max(1)), (self.key.row_mib * (ROWS as u64 - 1)) as f64);
        let fits_empty = |s: &&DemandedSize| f64::from(s.vcpus) <= host_vcpus && s.memory_mib as f64 <= host_mib;
        let (mut scarce, mut weights) = ((0.0_f64, 0.0_f64), 0.0);
        for size in demand.iter().filter(fits_empty) {
            let (c, m) = (f64::from(size.vcpus) / host_vcpus, size.memory_mib as f64 / host_mib);
            scarce.0 += size.count as f64 * c.powi(MOMENT);
            scarce.1 += size.count as f64 * m.powi(MOMENT);
            weights += popularity(size);
        }
        let (cpu, memory) = (scarce.0.sqrt(), scarce.1.sqrt());
        let total: f64 = cpu + memory;
        let (cpu, memory) = if total > 0.0 { (cpu / total, memory / total) } else { (0.5, 0.5) };
        for (col, left) in self.left_cols.iter_mut().enumerate() {
            *left = (UNIT * cpu * (col as f64 * f64::from(self.col_vcpus) / host_vcpus).sqrt()) as i32;
        }
        for (row, left) in self.left_rows.iter_mut().enumerate() {
            *left = (UNIT * memory * (row as f64 / (ROWS - 1) as f64).sqrt()) as i32;
        }
        for (bucket, worth) in self.worth.iter_mut().enumerate() {
            let vcpus = (bucket / ROWS) as u32 * self.col_vcpus;
            let mib = (bucket % ROWS) as u64 * self.key.row_mib;
            let mut sum = 0.0;
            for size in demand.iter().filter(fits_empty) {
                let slots = u64::from(vcpus / size.vcpus).min(mib / size.memory_mib);
                let unusable = (u64::from(vcpus) - slots * u64::from(size.vcpus)) as f64 / host_vcpus
                    + (mib - slots * size.memory_mib) as f64 / host_mib;
                sum += popularity(size) * (SLOTS * slots as f64 - FRAGMENTATION * unusable);
            }
            *worth = if weights > 0.0 { (UNIT * sum / weights) as i32 } else { 0 };
        }
        self.age = self.age.wrapping_add(1).max(1);
    }

    /// The age of the prices: it rises when they change and is never 0.
    #[must_use]
    pub fn age(&self) -> u32 {
        self.age
    }

    #[must_use]
    pub fn bucket_of(&self, free: Size) -> Bucket {
        let col = units(u64::from(free.vcpus), u64::from(self.col_vcpus), COLS);
        let row = units(free.memory_mib, self.key.row_mib, ROWS);
        u16::from(col) * ROWS as u16 + u16::from(row)
    }

    #[must_use]
    pub fn shape_of(&self, claim: Size) -> Shape {
        let (col, row) = (u64::from(self.col_vcpus), self.key.row_mib);
        let vcpus = u64::from(claim.vcpus);
        Shape {
            low: (units(vcpus, col, COLS), units(claim.memory_mib, row, ROWS)),
            shift: (units(vcpus + col / 2, col, COLS), units(claim.memory_mib + row / 2, row, ROWS)),
        }
    }

    /// What the claim costs on a host in this bucket.
    #[must_use]
    pub fn cost(&self, shape: Shape, bucket: Bucket) -> i32 {
        let (col, row) = (usize::from(bucket) / ROWS, usize::from(bucket) % ROWS);
        let col = col.saturating_sub(usize::from(shape.shift.0));
        let row = row.saturating_sub(usize::from(shape.shift.1));
        let left = self.left_cols[col] + self.left_rows[row];
        left.saturating_add(self.worth[usize::from(bucket)]).saturating_sub(self.worth[col * ROWS + row])
    }

    /// The bucket's place in the order of preference: the cheaper one comes first, and of equal prices the lower bucket.
    #[must_use]
    pub fn key(&self, shape: Shape, bucket: Bucket) -> BucketKey {
        let cost = (i64::from(self.cost(shape, bucket)) - i64::from(i32::MIN)) as u64;
        cost << 16 | u64::from(bucket)
    }
}
