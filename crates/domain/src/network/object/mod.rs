//! The objects of the virtual resource manager, a file each, and every change that may be requested of them: the contract between the
//! api-gateway, which names ids and checks form, and the resource-manager, which decides. A change travels as JSON in one call.
//!
//! Each object has its project, a name that is unique there, and a generation that rises with every desired-state write. A new object's
//! id comes from the caller, so that a repeat means the same object.
//!
//! Addresses have one owner each: `(scope, address)`, the scope being a network or an external network. The row of the address says who
//! owns it; what an object says of its addresses repeats that.
//!
//! A new kind of object is a file here and a line in `objects!`; `docs/how-to/add-a-noun.md` has the rest of the way.

mod external_network;
mod floating_ip;
mod network;
mod peering;
mod port;
mod router;
mod security_group;
mod subnet;

pub use external_network::*;
pub use floating_ip::*;
pub use network::*;
pub use peering::*;
pub use port::*;
pub use router::*;
pub use security_group::*;
pub use subnet::*;

use crate::{
    ExternalNetworkId, FloatingIpId, NetworkId, PeeringId, PortId, RouterId, SecurityGroupId, SecurityRuleId, SubnetId,
    Violations,
};
use core::fmt::Display;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// One change of one object.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action<Id, New, Patch> {
    Create(New),
    Update(Id, Patch),
    Delete(Id),
}

/// What is never changed after its creation has no patch.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum NoPatch {}

/// What can be judged of a request without knowing what exists.
pub trait Bounded {
    fn check(&self, _violations: &mut Violations) {}
}

impl Bounded for NoPatch {}

impl<Id, New: Bounded, Patch: Bounded> Bounded for Action<Id, New, Patch> {
    fn check(&self, violations: &mut Violations) {
        match self {
            Self::Create(new) => new.check(violations),
            Self::Update(_, patch) => patch.check(violations),
            Self::Delete(_) => {}
        }
    }
}

/// The [`Action`] of a kind of object.
pub type ActionOn<R> = Action<<R as Resource>::Id, <R as Resource>::New, <R as Resource>::Patch>;

/// A kind of object that can be created, changed and deleted by itself.
pub trait Resource: Sized + Send + Sync + 'static {
    const KIND: ObjectKind;
    type Id: Copy + Ord + Display + From<Uuid> + Into<Uuid> + Send + Sync + 'static;
    /// What a new one is made of.
    type New: Bounded + Send + Sync;
    /// What of it may change later. A field that is `None` stays as it is.
    type Patch: Bounded + Send + Sync;

    fn id(&self) -> Self::Id;
    fn change_of(action: ActionOn<Self>) -> Change;
    fn into_object(self) -> NetworkObject;
    /// None: it is an object of another kind.
    fn from_object(object: NetworkObject) -> Option<Self>;
}

macro_rules! objects {
    ($($kind:ident($object:ident, $id:ident, $new:ident, $patch:ident): $name:literal, $label:literal;)+) => {
        /// The kinds of objects, as events, quotas and problems name them.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum ObjectKind {
            $($kind),+
        }

        impl ObjectKind {
            /// As events, audit entries and problem codes have it.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$kind => $name),+
                }
            }

            /// As sentences have it.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self {
                    $(Self::$kind => $label),+
                }
            }
        }

        /// An object of any kind: what a change answers with.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum NetworkObject {
            $($kind($object)),+
        }

        impl NetworkObject {
            #[must_use]
            pub fn kind(&self) -> ObjectKind {
                match self {
                    $(Self::$kind(_) => ObjectKind::$kind),+
                }
            }
        }

        /// Everything that may be requested of the resource-manager.
        #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Change {
            /// The project's network and security group named `default`, once in its life. A repeat succeeds.
            ProjectDefaults,
            $($kind(Action<$id, $new, $patch>)),+
        }

        impl Bounded for Change {
            fn check(&self, violations: &mut Violations) {
                match self {
                    Self::ProjectDefaults => {}
                    $(Self::$kind(action) => action.check(violations)),+
                }
            }
        }

        $(impl Resource for $object {
            const KIND: ObjectKind = ObjectKind::$kind;
            type Id = $id;
            type New = $new;
            type Patch = $patch;

            fn id(&self) -> $id {
                self.id
            }

            fn change_of(action: ActionOn<Self>) -> Change {
                Change::$kind(action)
            }

            fn into_object(self) -> NetworkObject {
                NetworkObject::$kind(self)
            }

            fn from_object(object: NetworkObject) -> Option<Self> {
                if let NetworkObject::$kind(object) = object { Some(object) } else { None }
            }
        })+
    };
}

objects! {
    ExternalNetwork(ExternalNetwork, ExternalNetworkId, NewExternalNetwork, ExternalNetworkPatch):
        "external_network", "external network";
    Network(Network, NetworkId, NewNetwork, NetworkPatch): "network", "network";
    Subnet(Subnet, SubnetId, NewSubnet, SubnetPatch): "subnet", "subnet";
    Port(Port, PortId, NewPort, PortPatch): "port", "port";
    Router(Router, RouterId, NewRouter, RouterPatch): "router", "router";
    FloatingIp(FloatingIp, FloatingIpId, NewFloatingIp, FloatingIpPatch): "floating_ip", "floating IP";
    SecurityGroup(SecurityGroup, SecurityGroupId, NewSecurityGroup, SecurityGroupPatch):
        "security_group", "security group";
    SecurityRule(SecurityGroupRule, SecurityRuleId, SecurityGroupRule, NoPatch): "security_rule", "security rule";
    Peering(Peering, PeeringId, NewPeering, NoPatch): "peering", "peering";
}

impl Change {
    #[must_use]
    pub fn create<R: Resource>(new: R::New) -> Self {
        R::change_of(Action::Create(new))
    }

    #[must_use]
    pub fn update<R: Resource>(id: R::Id, patch: R::Patch) -> Self {
        R::change_of(Action::Update(id, patch))
    }

    #[must_use]
    pub fn delete<R: Resource>(id: R::Id) -> Self {
        R::change_of(Action::Delete(id))
    }
}

/// What a change came to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangeOutcome {
    /// As it is now; of a deletion: as it was. None for [`Change::ProjectDefaults`].
    pub object: Option<NetworkObject>,
    /// One sentence. Of a dry run: what would be done.
    pub summary: String,
    /// "network blue (0198…)": the objects that the change affects, for people.
    pub affects: Vec<String>,
}
