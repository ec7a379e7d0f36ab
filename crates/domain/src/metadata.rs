//! What an instance may read about itself through the metadata service.
//!
//! Two services depend on this list. The cluster-manager stores its digest with the instance's ports: when the digest changes, the hosts of the
//! ports are sent the ports again. The resource-manager renders what the hosts are sent. Both take it from [`InstanceMetadata`]: the digest
//! covers the whole struct because it serializes it, and the rendering destructures it without `..`. So a field that is added here reaches
//! guests and is noticed when it changes, or the code doesn't compile.

use crate::{Name, instance::Instance};
use serde::Serialize;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct InstanceMetadata<'a> {
    pub name: &'a Name,
    pub tags: &'a BTreeMap<String, String>,
    /// Lines of `authorized_keys`.
    pub ssh_keys: &'a [String],
    pub user_data_base64: &'a str,
    pub zone: Option<&'a str>,
    pub flavor: &'a str,
}

impl<'a> From<&'a Instance> for InstanceMetadata<'a> {
    fn from(instance: &'a Instance) -> Self {
        let spec = &instance.spec;
        Self {
            name: &instance.name,
            tags: &instance.tags,
            ssh_keys: &spec.ssh_keys,
            user_data_base64: &spec.user_data_base64,
            zone: spec.zone.as_deref(),
            flavor: &spec.flavor,
        }
    }
}

impl InstanceMetadata<'_> {
    /// Differs whenever a field differs: 64 lower-case hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> String {
        // Plain data with text keys always serializes, and JSON keeps the fields apart.
        hex::encode(Sha256::digest(serde_json::to_vec(self).unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{instance::InstanceState, testing};

    #[test]
    fn the_digest_differs_with_every_field_and_with_nothing_else() {
        let row = testing::instance(InstanceState::Running);
        let digest = InstanceMetadata::from(&row).digest();
        assert_eq!(digest.len(), 64);
        assert!(digest.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)));
        let mut same = row.clone();
        (same.generation, same.epoch, same.host_id) = (9, 9, None);
        same.spec.boot_seq = 7;
        assert_eq!(InstanceMetadata::from(&same).digest(), digest, "guests can't read these fields");
        let changes: [fn(&mut Instance); 7] = [
            |i| i.name = "other".parse().expect("a name"),
            |i| drop(i.tags.insert("a".into(), "b".into())),
            |i| i.spec.ssh_keys = vec!["a".into(), "b".into()],
            |i| i.spec.ssh_keys = vec!["ab".into()],
            |i| i.spec.user_data_base64 = "aGk=".into(),
            |i| i.spec.zone = Some("a".into()),
            |i| i.spec.flavor = "large".into(),
        ];
        let mut digests: Vec<String> = changes
            .iter()
            .map(|change| {
                let mut other = row.clone();
                change(&mut other);
                InstanceMetadata::from(&other).digest()
            })
            .collect();
        digests.push(digest);
        digests.sort();
        digests.dedup();
        assert_eq!(digests.len(), 8);
    }
}
