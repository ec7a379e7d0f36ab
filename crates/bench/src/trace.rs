//! The Azure trace of virtual machine requests, as `data/README.md` describes it.

use anyhow::{Context, ensure};
use std::{collections::HashMap, fs, path::Path};

/// One request. Times in seconds; memory in MiB.
#[derive(Debug, Clone, Copy)]
pub struct Arrival {
    pub at: u64,
    /// None: still there at the end.
    pub leaves_at: Option<u64>,
    pub vcpus: u32,
    pub memory_mib: u64,
}

/// Repeatable random numbers (splitmix64): the same trace on every machine.
pub struct Seeded(u64);

impl Seeded {
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n.max(1)
    }
}

fn flavors(dir: &Path) -> anyhow::Result<HashMap<String, (u32, u64)>> {
    let path = dir.join("flav_map.txt");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let one = |line: &str| {
        let (size, letter) = line.split_once(' ')?;
        let (vcpus, gib) = size.split_once(',')?;
        Some((letter.to_owned(), (vcpus.parse().ok()?, (gib.parse::<f64>().ok()? * 1024.0) as u64)))
    };
    text.lines().map(|line| one(line).with_context(|| format!("{}: {line:?}", path.display()))).collect()
}

/// Where each bin of lifetimes begins, in seconds; the end of the last one closes the list.
fn bins(dir: &Path) -> anyhow::Result<Vec<u64>> {
    let path = dir.join("v1.interval_map.txt");
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    let mut begins: Vec<u64> = Vec::new();
    let mut last = 0;
    for line in text.lines() {
        let pair = line.split_once(' ').and_then(|(s, b)| Some((s.parse::<u64>().ok()?, b.parse::<usize>().ok()?)));
        let (seconds, bin) = pair.with_context(|| format!("{}: {line:?}", path.display()))?;
        if bin >= begins.len() {
            ensure!(bin == begins.len(), "{}: bin {bin} comes before {}", path.display(), begins.len());
            begins.push(seconds);
        }
        last = seconds;
    }
    begins.push(last + 300);
    Ok(begins)
}

/// All requests in order of arrival, lifetimes drawn with `seed`.
pub fn load(dir: &Path, seed: u64) -> anyhow::Result<Vec<Arrival>> {
    let (flavors, bins) = (flavors(dir)?, bins(dir)?);
    let read = |name: &str| fs::read_to_string(dir.join(name)).with_context(|| dir.join(name).display().to_string());
    let (requests, lifetimes) = (read("v1.dev.txt")?, read("v1.dev.c2100000.txt")?);
    let mut random = Seeded::new(seed);
    let mut arrivals = Vec::new();
    for (requests, lifetimes) in requests.lines().zip(lifetimes.lines()) {
        let (at, requests) = requests.split_once(' ').context("a line without its time")?;
        let (_, lifetimes) = lifetimes.split_once(' ').context("a line without its time")?;
        let at: u64 = at.parse().context("a time")?;
        for (letter, lifetime) in requests.split(',').zip(lifetimes.split(',')) {
            if matches!(letter, "|" | "") {
                continue;
            }
            let (vcpus, memory_mib) = *flavors.get(letter).with_context(|| format!("flavor {letter:?}"))?;
            let leaves_at = match lifetime.strip_prefix('U') {
                Some(bin) => {
                    let bin: usize = bin.parse().with_context(|| format!("lifetime {lifetime:?}"))?;
                    let (from, to) = bins.get(bin).zip(bins.get(bin + 1)).with_context(|| format!("bin {bin}"))?;
                    Some(at + (from + random.below(to - from)).max(300))
                }
                None => None,
            };
            arrivals.push(Arrival { at, leaves_at, vcpus, memory_mib });
        }
    }
    ensure!(!arrivals.is_empty(), "{}: no requests", dir.display());
    Ok(arrivals)
}

/// `40x90`: vCPUs and GiB.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HostSize {
    pub vcpus: u32,
    pub memory_mib: u64,
}

impl std::str::FromStr for HostSize {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parsed = text.split_once('x').and_then(|(v, m)| Some((v.parse::<u32>().ok()?, m.parse::<u64>().ok()?)));
        match parsed {
            Some((vcpus, gib)) if vcpus > 0 && gib > 0 => Ok(Self { vcpus, memory_mib: gib * 1024 }),
            Some(_) | None => Err(format!("`{text}` is not vCPUs x GiB, like 40x90")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_trace_is_read_and_a_broken_one_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| fs::write(dir.path().join(name), text).expect("written");
        write("flav_map.txt", "1,1.75 a\n8,56 b\n");
        write("v1.interval_map.txt", "0 0\n300 1\n600 1\n900 2\n");
        write("v1.dev.txt", "600 a,b,|,a\n900 |,b\n");
        write("v1.dev.c2100000.txt", "600 U0,C45,|,U1\n900 |,U2\n");
        let all = load(dir.path(), 1).expect("read");
        assert_eq!(all.len(), 4);
        assert_eq!((all[0].vcpus, all[0].memory_mib, all[0].leaves_at), (1, 1792, Some(900)), "at least 300 s");
        assert_eq!((all[1].memory_mib, all[1].leaves_at), (57_344, None));
        assert!((900..1500).contains(&all[2].leaves_at.expect("leaves")));
        assert!((1800..2100).contains(&all[3].leaves_at.expect("leaves")));
        write("v1.dev.txt", "600 a,z\n");
        let error = load(dir.path(), 1).expect_err("unknown flavor").to_string();
        assert!(error.contains("\"z\""), "{error}");
    }

    #[test]
    fn host_sizes() {
        assert_eq!("40x90".parse(), Ok(HostSize { vcpus: 40, memory_mib: 92_160 }));
        assert!(
            "40".parse::<HostSize>().is_err()
                && "0x4".parse::<HostSize>().is_err()
                && "4xa".parse::<HostSize>().is_err()
        );
    }
}
