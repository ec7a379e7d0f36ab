//! What is usually requested: the sizes claimed lately, counted and slowly forgotten. Only claims are counted, so that two inventories
//! that held the same claims in the same order price a host's free capacity alike; neither lifetimes nor later events count.

use domain::flavor::Size;

/// Sizes remembered. Clouds have a few dozen flavors; the rare ones are forgotten first.
pub const SIZES_MAX: usize = 32;
/// Claims between two repricings, in the end. It doubles up to here from [`FIRST_REPRICING`], so that a young cloud learns soon.
const REPRICE_EVERY: u32 = 16_384;
const FIRST_REPRICING: u32 = 64;
/// What is kept of a count at each repricing, in 256ths: with one every 16,384 claims that is a half-life of about 20,000.
const KEPT: u64 = 145;
/// What one claim counts, so that forgetting rounds little.
const CLAIM_WEIGHT: u64 = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DemandedSize {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub count: u64,
}

#[derive(Debug)]
pub struct Demand {
    sizes: Vec<DemandedSize>,
    claims: u32,
    claims_to_repricing: u32,
}

impl Default for Demand {
    fn default() -> Self {
        Self { sizes: Vec::with_capacity(SIZES_MAX), claims: 0, claims_to_repricing: FIRST_REPRICING }
    }
}

impl Demand {
    /// Counts a claim. True: it is time to compute prices again.
    pub fn count(&mut self, claim: Size) -> bool {
        if claim.vcpus == 0 || claim.memory_mib == 0 {
            return false;
        }
        match self.sizes.iter_mut().find(|s| s.vcpus == claim.vcpus && s.memory_mib == claim.memory_mib) {
            Some(known) => known.count += CLAIM_WEIGHT,
            None => {
                let new = DemandedSize { vcpus: claim.vcpus, memory_mib: claim.memory_mib, count: CLAIM_WEIGHT };
                if self.sizes.len() < SIZES_MAX {
                    self.sizes.push(new);
                } else if let Some(rarest) = self.sizes.iter_mut().min_by_key(|s| s.count) {
                    *rarest = new;
                }
            }
        }
        self.claims += 1;
        if self.claims < self.claims_to_repricing {
            return false;
        }
        self.claims = 0;
        if self.claims_to_repricing < REPRICE_EVERY {
            self.claims_to_repricing *= 2;
        } else {
            for size in &mut self.sizes {
                size.count = size.count * KEPT / 256;
            }
            self.sizes.retain(|s| s.count > CLAIM_WEIGHT / 64);
        }
        true
    }

    #[must_use]
    pub fn sizes(&self) -> &[DemandedSize] {
        &self.sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_sizes_are_replaced_and_old_ones_fade() {
        let mut demand = Demand::default();
        let size = |n: u32| Size { vcpus: n, memory_mib: u64::from(n) * 1024, disk_gib: 0 };
        for n in 1..=SIZES_MAX as u32 {
            demand.count(size(n));
            demand.count(size(1));
        }
        demand.count(size(99));
        assert_eq!(demand.sizes().len(), SIZES_MAX);
        assert!(demand.sizes().iter().any(|s| s.vcpus == 99) && demand.sizes().iter().any(|s| s.vcpus == 1));
        let repricings = (0..300_000).filter(|_| demand.count(size(7))).count();
        assert!((18..40).contains(&repricings), "{repricings}");
        assert_eq!(demand.sizes().len(), 1, "only what is still requested: {:?}", demand.sizes());
    }
}
