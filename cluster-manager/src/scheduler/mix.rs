//! What is usually asked: the sizes claimed lately, counted and slowly forgotten. Learned from claims alone, so that two inventories
//! that held the same claims in the same order price a host's room alike; it looks at no lifetime and at nothing that comes later.

use domain::flavor::Size;

/// Sizes remembered. Clouds have a few dozen flavors; the rare ones are forgotten first.
pub const SIZES: usize = 32;
/// Claims between two looks at the prices, at last. Doubles up to here from [`FIRST_LOOK`], so that a young cloud learns soon.
const LOOK_EVERY: u32 = 16_384;
const FIRST_LOOK: u32 = 64;
/// What is kept of a count at each look, in 256ths: with a look every 16,384 claims a half-life of about 20,000.
const KEPT: u64 = 145;
/// What one claim counts, so that forgetting rounds little.
const ONE: u64 = 1 << 16;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Wanted {
    pub vcpus: u32,
    pub memory_mib: u64,
    pub count: u64,
}

#[derive(Debug)]
pub struct Mix {
    sizes: Vec<Wanted>,
    since_look: u32,
    next_look: u32,
}

impl Default for Mix {
    fn default() -> Self {
        Self { sizes: Vec::with_capacity(SIZES), since_look: 0, next_look: FIRST_LOOK }
    }
}

impl Mix {
    /// Counts a claim. True: it is time to price anew.
    pub fn learn(&mut self, claim: Size) -> bool {
        if claim.vcpus == 0 || claim.memory_mib == 0 {
            return false;
        }
        match self.sizes.iter_mut().find(|s| s.vcpus == claim.vcpus && s.memory_mib == claim.memory_mib) {
            Some(known) => known.count += ONE,
            None => {
                let fresh = Wanted { vcpus: claim.vcpus, memory_mib: claim.memory_mib, count: ONE };
                if self.sizes.len() < SIZES {
                    self.sizes.push(fresh);
                } else if let Some(rarest) = self.sizes.iter_mut().min_by_key(|s| s.count) {
                    *rarest = fresh;
                }
            }
        }
        self.since_look += 1;
        if self.since_look < self.next_look {
            return false;
        }
        self.since_look = 0;
        if self.next_look < LOOK_EVERY {
            self.next_look *= 2;
        } else {
            for size in &mut self.sizes {
                size.count = size.count * KEPT / 256;
            }
            self.sizes.retain(|s| s.count > ONE / 64);
        }
        true
    }

    #[must_use]
    pub fn sizes(&self) -> &[Wanted] {
        &self.sizes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rare_sizes_give_way_and_old_ones_fade() {
        let mut mix = Mix::default();
        let size = |n: u32| Size { vcpus: n, memory_mib: u64::from(n) * 1024, disk_gib: 0 };
        for n in 1..=SIZES as u32 {
            mix.learn(size(n));
            mix.learn(size(1));
        }
        mix.learn(size(99));
        assert_eq!(mix.sizes().len(), SIZES);
        assert!(mix.sizes().iter().any(|s| s.vcpus == 99) && mix.sizes().iter().any(|s| s.vcpus == 1));
        let looks = (0..300_000).filter(|_| mix.learn(size(7))).count();
        assert!((18..40).contains(&looks), "{looks}");
        assert_eq!(mix.sizes().len(), 1, "only what is still asked: {:?}", mix.sizes());
    }
}
