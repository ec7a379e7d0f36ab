//! The domain's closed lists, as the API's description names them. The domain itself knows nothing of the description, so each list is
//! repeated here; a name that differs fails a test, and a variant that is missing doesn't compile.

use domain::{
    flavor::Pinning,
    host::HostState,
    image::{DiskFormat, ImageKind, ImagePartKind, ImageState, Visibility},
    instance::{DiskPool, InstanceState, OnCrash, OnHostLoss, Power},
    network::{Direction, Ethertype, PortState, PortStatus},
    placement::{Fill, GroupPolicy, GroupScope, GroupStrength, PlacementOutcome},
    policy::Role,
    recovery::RecoveryPhase,
};
use serde::Serialize;
use utoipa::ToSchema;

macro_rules! names {
    ($($(#[$doc:meta])* $schema:ident as $shown:ident of $domain:ident { $($variant:ident),+ $(,)? })+) => {
        $($(#[$doc])*
        #[derive(Serialize, ToSchema)]
        #[schema(as = $shown)]
        #[serde(rename_all = "snake_case")]
        #[allow(dead_code)]
        pub enum $schema { $($variant),+ }

        const _: fn($domain) = |x| match x { $($domain::$variant => {})+ };)+

        #[cfg(test)]
        mod tests {
            use super::*;

            #[test]
            fn the_described_names_are_the_domains() {
                $($(assert_eq!(
                    serde_json::to_value($schema::$variant).expect("a name"),
                    serde_json::to_value($domain::$variant).expect("a name"),
                );)+)+
            }
        }
    };
}

names! {
    /// What it is doing, as last observed.
    InstanceStateName as InstanceState of InstanceState {
        Pending, Scheduling, Building, Running, Paused, Stopped, Suspended, Migrating, Recovering, Resizing, Rebuilding,
        Deleting, Deleted, Error,
    }
    /// The desired power state.
    PowerName as Power of Power { On, Off, Paused }
    /// Whether vCPUs get hardware threads of their own.
    PinningName as Pinning of Pinning { None, Numa }
    /// What happens when QEMU ends although it should run.
    OnCrashName as OnCrash of OnCrash { Restart, Stop }
    /// What happens when the host is lost.
    OnHostLossName as OnHostLoss of OnHostLoss { Wait, Restart, Recreate }
    /// Where disks are. `local`: on the instance's host, and lost with it. `shared`: in the pool that several hosts mount, so that they outlive it.
    DiskPoolName as DiskPool of DiskPool { Local, Shared }
    /// Each includes the ones before it.
    RoleName as Role of Role { Reader, Member, Admin }
    ImageKindName as ImageKind of ImageKind { Disk, Kernel }
    ImagePartName as ImagePartKind of ImagePartKind { Disk, Kernel, Initrd }
    DiskFormatName as DiskFormat of DiskFormat { Qcow2, Raw }
    ImageStateName as ImageState of ImageState { Queued, Active, Deleting }
    VisibilityName as Visibility of Visibility { Private, Public }
    /// `up`: its agent is connected. `disconnected`: its instances go on, but no new ones are placed. `held`: its agent has lost what it knew, and it is
    /// given nothing until an operator decides. `disk_full`: its instances go on, but no new ones are placed. `lost`: it was declared lost, its instances
    /// are recovered elsewhere or wait.
    HostStateName as HostState of HostState { Up, Disconnected, Held, DiskFull, Lost }
    /// `waiting`: it has no place yet. `placed`: another host has it. `started`: it runs there. `reachable`: that host answers for its addresses.
    /// `verified`: its guest said that it is up. `returned`: its own host came back first. `deleted`: it was deleted before.
    RecoveryPhaseName as RecoveryPhase of RecoveryPhase { Waiting, Placed, Started, Reachable, Verified, Returned, Deleted }
    /// `reserved`: made for an instance that isn't accepted yet. `releasing`: its instance is being deleted.
    PortStateName as PortState of PortState { Reserved, Active, Releasing }
    /// `down`: on no host. `building`: its host is preparing it. `ready`: programmed, not yet in use. `active`: its instance uses it.
    PortStatusName as PortStatus of PortStatus { Down, Building, Ready, Active, Error }
    /// `ingress`: to the instance. `egress`: from it.
    DirectionName as Direction of Direction { Ingress, Egress }
    EthertypeName as Ethertype of Ethertype { Ipv4, Ipv6 }
    /// `affinity`: in the same place as the others. `anti_affinity`: where none of the others is.
    GroupPolicyName as PlacementPolicy of GroupPolicy { Affinity, AntiAffinity }
    /// `rack`: hosts with the same tag `rack`; a host without one is a rack of its own.
    GroupScopeName as PlacementScope of GroupScope { Host, Rack, Zone }
    /// `hard`: the instance is refused otherwise. `soft`: where capacity allows it.
    GroupStrengthName as PlacementStrength of GroupStrength { Hard, Soft }
    /// `all_or_nothing` (the default): when not all instances fit, none is created.
    FillName as Fill of Fill { AllOrNothing, AsManyAsFit }
    /// `placed`: the instance was deleted since. `refused`: no host could take it.
    PlacementOutcomeName as PlacementOutcome of PlacementOutcome { Placed, Refused }
}
