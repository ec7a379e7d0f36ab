//! All of the rows, in memory, with the indexes that say which hosts a change affects.
//!
//! **The problem.** A change of one port must reach the hosts that have its network within milliseconds, among a hundred thousand ports. To
//! ask the database for what a host must know on each change costs as much as the host has; so the rows are kept here.
//!
//! **Rejected.** A cache that is filled on demand: what is missing in it can't be distinguished from what isn't there, and a host
//! would learn that an object is gone. Change events through the database: another hop, another order.
//!
//! **Invariants**
//! 1. It follows commits and never goes before one: [`Topology::apply`] is called with rows that are committed.
//! 2. A row of a lower generation never replaces one of a higher (`row`).
//! 3. What a host must know ([`Topology::render`]) is a pure function of it (and of the instances' rows, for their metadata).
//!
//! A kind of row is a file here and a line in `rows!`; one that hosts are sent has a line in `host_objects!` as well.

mod external_network;
mod floating_ip;
mod host;
mod network;
mod peering;
mod port;
mod protected;
mod router;
mod row;
mod security_group;
mod subnet;
#[cfg(test)]
pub(crate) mod tests;
mod uplink;

pub use port::bound_to;
pub use row::{NamedRow, Row, Table, described};

use domain::{
    ExternalNetworkId, FloatingIpId, HostId, InstanceId, NetworkId, PeeringId, PortId, ProjectId, RouterId,
    SecurityGroupId, SubnetId,
    network::{
        ExternalNetwork, FloatingIp, Network, ObjectKind, Peering, Port, ProtectedPart, Resource, Router,
        SecurityGroup, Subnet,
    },
};
use proto::sync::v1 as pb;
use row::{Return, Tombstones};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use store::{NetworkHostRow, ReadError, Store, UplinkRow};

/// The name of the group that ports are in when none is requested, and of the network that instances are in.
pub const DEFAULT: &str = "default";

macro_rules! rows {
    ($($get:ident, $all:ident: $kind:ident($row:ty, $id:ty) of $key:expr, $find:path, $load_all:path;)+) => {
        /// Which row.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum RowKey {
            $($kind($id)),+
        }

        /// A row as it was committed, or which one is gone.
        #[derive(Debug, Clone)]
        pub enum RowChange {
            $($kind($row),)+
            Gone(RowKey),
        }

        #[derive(Debug, Default)]
        struct Tables {
            $($all: HashMap<$id, $row>),+
        }

        $(impl Table for $row {
            type RowId = $id;
            const KEY: fn($id) -> RowKey = RowKey::$kind;

            fn row_id(&self) -> $id {
                let key: fn(&$row) -> ($id, i64) = $key;
                key(self).0
            }

            fn row_generation(&self) -> i64 {
                let key: fn(&$row) -> ($id, i64) = $key;
                key(self).1
            }

            fn table(topology: &Topology) -> &HashMap<$id, $row> {
                &topology.tables.$all
            }

            fn table_mut(topology: &mut Topology) -> &mut HashMap<$id, $row> {
                &mut topology.tables.$all
            }
        }

        impl From<$row> for RowChange {
            fn from(row: $row) -> Self {
                Self::$kind(row)
            }
        })+

        impl RowChange {
            #[must_use]
            pub fn key(&self) -> RowKey {
                match self {
                    $(Self::$kind(row) => RowKey::$kind(row.row_id()),)+
                    Self::Gone(key) => *key,
                }
            }
        }

        impl RowKey {
            /// What the database says of it. None: rows of its kind are not read one by one.
            pub async fn read(self, store: &Store) -> Result<Option<RowChange>, ReadError> {
                match self {
                    $(Self::$kind(_) if <$row>::RETURN == Return::Always => Ok(None),
                    Self::$kind(id) => {
                        let row = $find(store, id).await?;
                        Ok(Some(row.map_or(RowChange::Gone(self), RowChange::$kind)))
                    })+
                }
            }
        }

        impl Topology {
            $(#[must_use]
            pub fn $get(&self, id: $id) -> Option<&$row> {
                self.tables.$all.get(&id)
            }

            pub fn $all(&self) -> impl Iterator<Item = &$row> {
                self.tables.$all.values()
            }
            )+

            #[must_use]
            pub fn contains(&self, key: RowKey) -> bool {
                match key {
                    $(RowKey::$kind(id) => self.tables.$all.contains_key(&id)),+
                }
            }

            /// Everything that is in the database, at start. Parents are read first: a child that is committed meanwhile comes with its
            /// own commit.
            pub async fn load(store: &Store) -> Result<Self, ReadError> {
                let mut topology = Self::default();
                $(for row in $load_all(store).await? {
                    // No host is connected yet, so nobody has to know what this affects.
                    let _ = topology.put(row);
                })+
                Ok(topology)
            }

            /// Takes in a committed change; what it affects may hold a pair twice.
            pub fn apply(&mut self, change: RowChange) -> Vec<Affected> {
                match change {
                    $(RowChange::$kind(row) => self.put(row),)+
                    RowChange::Gone(key) => match key {
                        $(RowKey::$kind(id) => self.remove::<$row>(id)),+
                    },
                }
            }
        }
    };
}

/// Rows without a generation are never read one by one.
async fn never_read<Id, R>(_: &Store, _: Id) -> Result<Option<R>, ReadError> {
    Ok(None)
}

rows! {
    external_network, external_networks: ExternalNetwork(ExternalNetwork, ExternalNetworkId)
        of |n| (n.id, n.generation), Store::external_network_find, external_network::load_all;
    host, hosts: Host(NetworkHostRow, HostId)
        of |h| (h.host_id, 0), never_read, Store::network_host_load_all;
    network, networks: Network(Network, NetworkId)
        of |n| (n.id, n.generation), Store::network_find, Store::network_load_all;
    subnet, subnets: Subnet(Subnet, SubnetId)
        of |s| (s.id, s.generation), Store::subnet_find, Store::subnet_load_all;
    router, routers: Router(Router, RouterId)
        of |r| (r.id, r.generation), Store::router_find, Store::router_load_all;
    peering, peerings: Peering(Peering, PeeringId)
        of |p| (p.id, p.generation), Store::peering_find, Store::peering_load_all;
    security_group, security_groups: SecurityGroup(SecurityGroup, SecurityGroupId)
        of |g| (g.id, g.generation), Store::security_group_find, Store::security_group_load_all;
    port, ports: Port(Port, PortId)
        of |p| (p.id, p.generation), Store::port_find, Store::port_load_all;
    floating_ip, floating_ips: FloatingIp(FloatingIp, FloatingIpId)
        of |f| (f.id, f.generation), Store::floating_ip_find, Store::floating_ip_load_all;
    uplink, uplinks: Uplink(UplinkRow, (NetworkId, HostId))
        of |u| ((u.network_id, u.host_id), 0), never_read, Store::uplink_load_all;
}

/// What a host must know of one object, as it travels, but for its version.
#[derive(Debug, Clone, PartialEq)]
pub struct Rendered {
    pub epoch: i64,
    pub object: pb::desired_object::Object,
    /// The instance whose metadata belongs to it: that of a port that is bound there.
    pub instance_id: Option<InstanceId>,
}

/// A kind of object that hosts are sent.
pub trait HostObject: NamedRow {
    /// None: the host must not know it; if it does, a tombstone ends that.
    fn render(&self, topology: &Topology, host_id: HostId) -> Option<Rendered>;

    /// Those that the host may have to know.
    fn for_host(topology: &Topology, host_id: HostId) -> Vec<<Self as Resource>::Id>;
}

macro_rules! host_objects {
    ($($get:ident: $kind:ident($id:ty);)+) => {
        /// An object that hosts are sent. Their order is that in which a host gets them: what others refer to comes first, and what no instance may
        /// reach before any instance.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum ObjectKey {
            Protected(ProtectedPart),
            $($kind($id)),+
        }

        impl ObjectKey {
            /// None: no such kind, or no id.
            #[must_use]
            pub fn parse(kind: i32, id: &str) -> Option<Self> {
                match pb::ObjectKind::try_from(kind).ok()? {
                    pb::ObjectKind::Protected => Some(Self::Protected(id.parse().ok()?)),
                    $(pb::ObjectKind::$kind => Some(Self::$kind(id.parse().ok()?)),)+
                    pb::ObjectKind::Instance | pb::ObjectKind::Unspecified => None,
                }
            }

            #[must_use]
            pub fn wire_kind(self) -> pb::ObjectKind {
                match self {
                    Self::Protected(_) => pb::ObjectKind::Protected,
                    $(Self::$kind(_) => pb::ObjectKind::$kind),+
                }
            }

            #[must_use]
            pub fn kind_name(self) -> &'static str {
                match self {
                    Self::Protected(_) => "protected_addresses",
                    $(Self::$kind(_) => ObjectKind::$kind.as_str()),+
                }
            }

            #[must_use]
            pub fn id(self) -> String {
                match self {
                    Self::Protected(part) => part.to_string(),
                    $(Self::$kind(id) => id.to_string()),+
                }
            }
        }

        impl Topology {
            #[must_use]
            pub fn render(&self, host_id: HostId, key: ObjectKey) -> Option<Rendered> {
                match key {
                    ObjectKey::Protected(part) => self.render_protected(host_id, part),
                    $(ObjectKey::$kind(id) => self.$get(id)?.render(self, host_id)),+
                }
            }

            #[must_use]
            pub fn project_of(&self, key: ObjectKey) -> Option<ProjectId> {
                match key {
                    ObjectKey::Protected(_) => None,
                    $(ObjectKey::$kind(id) => self.$get(id)?.project_id()),+
                }
            }

            /// Everything that a host may have to know.
            #[must_use]
            pub fn objects_for_host(&self, host_id: HostId) -> BTreeSet<ObjectKey> {
                let mut keys: BTreeSet<ObjectKey> = self.protected_parts().map(ObjectKey::Protected).collect();
                $(keys.extend($kind::for_host(self, host_id).into_iter().map(ObjectKey::$kind));)+
                keys
            }
        }
    };
}

host_objects! {
    network: Network(NetworkId);
    security_group: SecurityGroup(SecurityGroupId);
    port: Port(PortId);
    floating_ip: FloatingIp(FloatingIpId);
}

/// This host may have to be sent this object.
pub type Affected = (HostId, ObjectKey);

/// The rows, and the indexes beside them.
#[derive(Debug, Default)]
pub struct Topology {
    tables: Tables,
    tombstones: Tombstones,
    /// Each project's group that ports are in when none is requested.
    default_groups: HashMap<ProjectId, SecurityGroupId>,
    subnets_of: HashMap<NetworkId, BTreeSet<SubnetId>>,
    ports_of: HashMap<NetworkId, BTreeSet<PortId>>,
    ports_on: HashMap<HostId, BTreeSet<PortId>>,
    /// How many ports of each network are bound to a host.
    port_counts: HashMap<HostId, BTreeMap<NetworkId, u32>>,
    hosts_of: HashMap<NetworkId, BTreeSet<HostId>>,
    router_of: HashMap<NetworkId, RouterId>,
    uplinks_of: HashMap<NetworkId, BTreeSet<HostId>>,
    floating_ips_of: HashMap<PortId, BTreeSet<FloatingIpId>>,
    ports_in: HashMap<SecurityGroupId, BTreeSet<PortId>>,
    peers: HashMap<NetworkId, BTreeSet<NetworkId>>,
    headroom: host::Headroom,
    protected: protected::Protected,
}
