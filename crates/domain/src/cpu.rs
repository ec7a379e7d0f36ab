//! The CPU that a host's guests see, and where a running guest may therefore go.
//!
//! A guest looks at its CPU once, when it boots, and then uses what it found. So an instance records the baseline of the host that it was
//! placed on, and may only move, running, to a host whose guests get at least that: the same architecture, vendor and model, and every
//! feature. A host that has more is fine. An instance that starts anew elsewhere looks again, and is bound to nothing but its own constraints.
//!
//! Hardware virtualization gives guests the host's own CPU: its model is `host`, and its features are the host's. Emulation gives every
//! host's guests the same CPU, which the model says entirely: an emulated guest may go to any host that emulates the same model.
//! Rejected: comparing model names of hosts (two steppings of one name differ by a feature, two names may not differ at all), and
//! the levels x86-64-v2 to v4 (they say too little: a guest uses what is beyond them).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct CpuBaseline {
    pub architecture: String,
    /// The vendor that the guest sees.
    pub vendor: String,
    /// The hypervisor's name for the CPU: `host`, or the emulated model with its changes.
    pub model: String,
    /// The features that guests see, sorted; empty where the model implies them all.
    pub features: Vec<String>,
}

impl CpuBaseline {
    /// Names it: readable, and the same for equal ones alone.
    #[must_use]
    pub fn id(&self) -> String {
        let part = |text: &str| -> String {
            let plain = text.chars().take_while(|c| *c != ',').filter(char::is_ascii_alphanumeric);
            plain.take(24).collect::<String>().to_ascii_lowercase()
        };
        let mut sum = Sha256::new();
        let whole = [&self.architecture, &self.vendor, &self.model].into_iter().chain(&self.features);
        whole.for_each(|text| {
            sum.update((text.len() as u64).to_le_bytes());
            sum.update(text.as_bytes());
        });
        format!("{}-{}-{}", part(&self.vendor), part(&self.model), hex::encode(&sum.finalize()[..6]))
    }

    /// Whether a guest that booted on this may go on, running, on a host whose guests get `host`.
    #[must_use]
    pub fn may_run(&self, host: &Self) -> bool {
        let same = |of: fn(&Self) -> &str| of(self) == of(host);
        same(|c| &c.architecture)
            && same(|c| &c.vendor)
            && same(|c| &c.model)
            && self.features.iter().all(|feature| host.features.binary_search(feature).is_ok())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(model: &str, features: &[&str]) -> CpuBaseline {
        CpuBaseline {
            architecture: "x86_64".into(),
            vendor: "GenuineIntel".into(),
            model: model.into(),
            features: features.iter().map(|f| (*f).to_owned()).collect(),
        }
    }

    #[test]
    fn a_guest_goes_where_nothing_is_lost() {
        let (old, new) = (cpu("host", &["avx", "sse2"]), cpu("host", &["avx", "avx2", "sse2"]));
        assert!(old.may_run(&old) && old.may_run(&new) && !new.may_run(&old));
        assert!(!old.may_run(&CpuBaseline { vendor: "AuthenticAMD".into(), ..new.clone() }), "another vendor");
        assert!(!old.may_run(&CpuBaseline { architecture: "aarch64".into(), ..new.clone() }), "another architecture");
        let emulated = cpu("EPYC-v1,svm=off", &[]);
        assert!(emulated.may_run(&emulated), "emulation is the same everywhere");
        assert!(!emulated.may_run(&cpu("EPYC-v1", &[])) && !emulated.may_run(&new) && !new.may_run(&emulated));
    }

    #[test]
    fn the_id_tells_baselines_apart_and_is_readable() {
        let ids = [
            cpu("host", &["avx", "sse2"]),
            cpu("host", &["avxsse2"]),
            cpu("EPYC-v1,svm=off", &[]),
            cpu("EPYC-v1", &[]),
        ]
        .map(|cpu| cpu.id());
        for (at, id) in ids.iter().enumerate() {
            assert!(!ids[..at].contains(id), "{ids:?}");
        }
        assert!(ids[0].starts_with("genuineintel-host-") && ids[2].starts_with("genuineintel-epycv1-"), "{ids:?}");
        assert_eq!(cpu("host", &["avx", "sse2"]).id(), ids[0]);
    }
}
