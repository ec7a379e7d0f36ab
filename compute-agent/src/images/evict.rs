//! Decides which cached images are removed to free space. Pure.

/// One image in the cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cached {
    pub sha256: String,
    pub bytes: u64,
    /// The time of last use, by any rising clock.
    pub last_used: u64,
    /// Whether an instance in the ledger boots from it, or a disk lies on it.
    pub in_use: bool,
}

/// Even without all unused images there isn't enough space.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CacheFull {
    pub in_use_bytes: u64,
}

/// The images to remove so that `need` more bytes stay within `limit`: the least recently used are removed first, those in use never.
pub fn plan_eviction(cached: &[Cached], need: u64, limit: u64) -> Result<Vec<String>, CacheFull> {
    let mut total: u64 = cached.iter().map(|c| c.bytes).sum();
    let mut idle: Vec<&Cached> = cached.iter().filter(|c| !c.in_use).collect();
    idle.sort_by(|a, b| (a.last_used, &a.sha256).cmp(&(b.last_used, &b.sha256)));
    let mut evicted = Vec::new();
    for image in idle {
        if total.saturating_add(need) <= limit {
            break;
        }
        total -= image.bytes;
        evicted.push(image.sha256.clone());
    }
    if total.saturating_add(need) <= limit { Ok(evicted) } else { Err(CacheFull { in_use_bytes: total }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn image(name: &str, bytes: u64, last_used: u64, in_use: bool) -> Cached {
        Cached { sha256: name.into(), bytes, last_used, in_use }
    }

    #[test]
    fn the_oldest_idle_ones_go_and_only_as_many_as_needed() {
        let cached = [
            image("new", 30, 9, false),
            image("old", 30, 1, false),
            image("used", 30, 0, true),
            image("mid", 5, 5, false),
        ];
        assert_eq!(plan_eviction(&cached, 5, 100), Ok(vec![]));
        assert_eq!(plan_eviction(&cached, 10, 100), Ok(vec!["old".into()]));
        assert_eq!(plan_eviction(&cached, 40, 100), Ok(vec!["old".into(), "mid".into()]));
        assert_eq!(plan_eviction(&cached, 70, 100), Ok(vec!["old".into(), "mid".into(), "new".into()]));
        assert_eq!(plan_eviction(&cached, 71, 100), Err(CacheFull { in_use_bytes: 30 }));
        assert_eq!(plan_eviction(&cached, u64::MAX, 100), Err(CacheFull { in_use_bytes: 30 }));
    }
}
