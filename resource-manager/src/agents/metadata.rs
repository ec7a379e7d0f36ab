//! What a host's metadata service serves to an instance, as it travels with the instance's ports.

use base64::{Engine as _, prelude::BASE64_STANDARD};
use domain::metadata::InstanceMetadata;
use proto::network::v1 as pb;

/// What the metadata service of a port's host serves to the port's instance.
#[must_use]
pub fn metadata(of: InstanceMetadata<'_>) -> pb::Metadata {
    let InstanceMetadata { name, tags, ssh_keys, user_data_base64, zone, flavor } = of;
    let ssh_keys = ssh_keys.iter().enumerate().map(|(at, line)| {
        // The comment, if the key has one.
        let comment = line.splitn(3, ' ').nth(2).map(str::trim).filter(|comment| !comment.is_empty());
        pb::SshKey { name: comment.map_or_else(|| format!("key-{at}"), str::to_owned), public_key: line.clone() }
    });
    pb::Metadata {
        instance_name: name.to_string(),
        ssh_keys: ssh_keys.collect(),
        user_data: BASE64_STANDARD.decode(user_data_base64).unwrap_or_default().into(),
        zone: zone.unwrap_or_default().to_owned(),
        flavor: flavor.to_owned(),
        tags: tags.clone().into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use domain::{
        instance::{Instance, InstanceSpec, InstanceState},
        testing,
    };

    #[test]
    fn guests_can_read_every_field_of_their_metadata() {
        let row = testing::instance(InstanceState::Running);
        let instance = Instance {
            tags: [("role".into(), "web".into())].into(),
            spec: InstanceSpec {
                ssh_keys: vec!["ssh-ed25519 AAAA ann@laptop".into(), "ssh-ed25519 BBBB".into()],
                user_data_base64: "aGk=".into(),
                zone: Some("a".into()),
                ..row.spec.clone()
            },
            ..row
        };
        let key = |name: &str, public_key: &str| pb::SshKey { name: name.into(), public_key: public_key.into() };
        let expected = pb::Metadata {
            instance_name: "web".into(),
            ssh_keys: vec![key("ann@laptop", "ssh-ed25519 AAAA ann@laptop"), key("key-1", "ssh-ed25519 BBBB")],
            user_data: b"hi".to_vec().into(),
            zone: "a".into(),
            flavor: "small".into(),
            tags: [("role".to_owned(), "web".to_owned())].into(),
        };
        assert_eq!(metadata(InstanceMetadata::from(&instance)), expected);
    }
}
