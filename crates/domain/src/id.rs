//! A newtype per id, so that a host can't be passed where an instance is meant. All are `UUIDv7`: ids sort by creation.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The text was not a UUID.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{text}` is not an id (a UUID is expected)")]
pub struct InvalidId {
    pub text: String,
}

macro_rules! ids {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A fresh, time-ordered id.
            #[must_use]
            #[allow(clippy::new_without_default)]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }
        }

        impl From<Uuid> for $name {
            fn from(id: Uuid) -> Self {
                Self(id)
            }
        }

        impl From<$name> for Uuid {
            fn from(id: $name) -> Self {
                id.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = InvalidId;
            fn from_str(text: &str) -> Result<Self, InvalidId> {
                Uuid::parse_str(text).map(Self).map_err(|_| InvalidId { text: text.chars().take(64).collect() })
            }
        }
    )+};
}

/// Calls a macro with all ids, so that no layer has a list of its own that could miss one.
#[macro_export]
macro_rules! for_each_id {
    ($with:ident) => {
        $with! {
            ApiKeyId, AuditId, DiskId, ExternalNetworkId, FlavorId, FloatingIpId, HostId, HostTokenId, ImageId, InstanceId,
            NetworkId,
            /// One accepted mutation. Unique per owning service, so that a repeat after a crash finds its answer.
            OperationId,
            PeeringId, PlacementGroupId, PlacementRecordId, PortId, ProjectId, RecoveryId, RouterId, SecurityGroupId, SecurityRuleId,
            SshKeyId, SubnetId, UserId,
        }
    };
}
for_each_id!(ids);
