//! The schema's named constraints, and the errors they are. PostgreSQL says a violated constraint's name; SQLite says the columns of a
//! UNIQUE one, the name of a CHECK, and nothing at all of a foreign key (then the parents are looked up, see `engine/sqlite.rs`).
//! A test reads both schemas' catalogs and fails for a constraint that isn't here.

/// Which rule of the schema a unit broke.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Constraint {
    ProjectName,
    UserName,
    ApiKeyName,
    ApiKeyPrefix,
    SshKeyName,
    FlavorName,
    HostName,
    HostTokenSecret,
    InstanceName,
    ImageName,
    ExternalNetworkName,
    NetworkName,
    NetworkVni,
    SubnetName,
    RouterName,
    /// The network has a router already.
    RouterNetwork,
    SecurityGroupName,
    PortName,
    PortMac,
    UplinkMac,
    /// Another host has that underlay address.
    HostUnderlay,
    /// Another floating IP stands for that address of the port.
    FloatingIpTarget,
    PeeringName,
    PeeringPair,
    PlacementGroupName,
    /// A member of the hard anti-affinity group is at that place already.
    PlacementPlace,
    /// The instance has a disk of that role already.
    DiskRole,
    /// The operation was committed before: read its outcome.
    OperationRepeated,
    /// The principal used the key before.
    IdempotencyRepeated,
    /// The table has a row of that key already.
    PrimaryKey(Table),
    /// The parent doesn't exist.
    ForeignKey(ForeignKey),
    /// A change that a row forbids which refers to the changed one.
    ChildExists,
    /// More was released than was taken, which is a defect of the caller.
    UsedNotNegative,
    /// `event_head` has a single row.
    EventHeadSingle,
}

impl Constraint {
    /// An object has that name already.
    #[must_use]
    pub fn is_name(self) -> bool {
        let named = NAMED_CONSTRAINTS.iter().copied().flatten().find(|named| named.constraint == self);
        named.is_some_and(|named| named.name.ends_with("_name_unique"))
    }
}

/// One constraint of the schema: its name on PostgreSQL, what SQLite's message says, and what it means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ConstraintName {
    pub name: &'static str,
    /// After `UNIQUE constraint failed: ` or `CHECK constraint failed: `. For a foreign key: `table.column -> parent`.
    pub sqlite: &'static str,
    pub constraint: Constraint,
}

const fn named(name: &'static str, sqlite: &'static str, constraint: Constraint) -> ConstraintName {
    ConstraintName { name, sqlite, constraint }
}

/// Declares the tables: those whose primary key is one column with that column, then those with a key of several.
macro_rules! tables {
    ($($one:ident = $table:literal . $column:literal),+; $($many:ident = $many_table:literal),+ $(,)?) => {
        /// The tables whose primary keys a unit can break.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Table { $($one,)+ $($many),+ }

        impl Table {
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$one => $table,)+ $(Self::$many => $many_table),+ }
            }
        }

        const PRIMARY_KEYS: &[ConstraintName] = &[$(named(
            concat!($table, "_pkey"),
            concat!($table, ".", $column),
            Constraint::PrimaryKey(Table::$one),
        )),+];
    };
}

tables! {
    Project = "project"."id",
    UserAccount = "user_account"."id",
    ApiKey = "api_key"."id",
    RefreshToken = "refresh_token"."secret_hash",
    SigningKey = "signing_key"."kid",
    SshKey = "ssh_key"."id",
    Flavor = "flavor"."id",
    QuotaLimit = "quota_limit"."project_id",
    Host = "host"."id",
    ManagerLease = "manager_lease"."role",
    ManagerStandby = "manager_standby"."id",
    CpuBaseline = "cpu_baseline"."id",
    HostToken = "host_token"."id",
    HostAdmission = "host_admission"."host_id",
    HostVerdict = "host_verdict"."host_id",
    Recovery = "recovery"."id",
    Instance = "instance"."id",
    ComputeUsage = "compute_usage"."project_id",
    Image = "image"."id",
    Disk = "disk"."id",
    PlacementGroup = "placement_group"."id",
    PlacementAnchor = "placement_anchor"."group_id",
    PlacementRecord = "placement_record"."id",
    ExternalNetwork = "external_network"."id",
    ExternalBlock = "external_block"."id",
    Network = "network"."id",
    Subnet = "subnet"."id",
    Router = "router"."id",
    SecurityGroup = "security_group"."id",
    SecurityRule = "security_rule"."id",
    Port = "port"."id",
    FloatingIp = "floating_ip"."id",
    Peering = "peering"."id",
    NetworkHost = "network_host"."host_id",
    ProjectNetworkDefault = "project_network_default"."project_id",
    NetworkUsage = "network_usage"."project_id",
    StorageUsage = "storage_usage"."project_id",
    IdentityUsage = "identity_usage"."project_id",
    EventHead = "event_head"."id",
    Event = "event"."id",
    Audit = "audit"."id";
    PlacementMember = "placement_member", ImageObject = "image_object", InstanceTodo = "instance_todo", PortSecurityGroup = "port_security_group", Address = "address", Uplink = "uplink", RoleBinding = "role_binding", Orphan = "orphan", HostTaken = "host_taken",
}

/// Declares the foreign keys: the constraint's name, the child's column, and the parent's table.
macro_rules! foreign_keys {
    ($($key:ident = $name:literal: $table:literal . $column:literal -> $parent:ident = $parent_table:literal),+ $(,)?) => {
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum ForeignKey { $($key),+ }

        impl ForeignKey {
            /// The table whose row is missing.
            #[must_use]
            pub fn parent(self) -> Table {
                match self { $(Self::$key => Table::$parent),+ }
            }
        }

        const FOREIGN_KEYS: &[ConstraintName] = &[$(named(
            $name,
            concat!($table, ".", $column, " -> ", $parent_table),
            Constraint::ForeignKey(ForeignKey::$key),
        )),+];
    };
}

foreign_keys! {
    PlacementGroupProject = "placement_group_project_fk": "placement_group"."project_id" -> Project = "project",
    PlacementMemberGroup = "placement_member_group_fk": "placement_member"."group_id" -> PlacementGroup = "placement_group",
    PlacementMemberInstance = "placement_member_instance_fk": "placement_member"."instance_id" -> Instance = "instance",
    PlacementAnchorGroup = "placement_anchor_group_fk": "placement_anchor"."group_id" -> PlacementGroup = "placement_group",
    RoleBindingProject = "role_binding_project_fk": "role_binding"."project_id" -> Project = "project",
    RoleBindingUser = "role_binding_user_fk": "role_binding"."user_id" -> UserAccount = "user_account",
    ApiKeyUser = "api_key_user_fk": "api_key"."user_id" -> UserAccount = "user_account",
    ApiKeyProject = "api_key_project_fk": "api_key"."project_id" -> Project = "project",
    RefreshTokenUser = "refresh_token_user_fk": "refresh_token"."user_id" -> UserAccount = "user_account",
    SshKeyProject = "ssh_key_project_fk": "ssh_key"."project_id" -> Project = "project",
    QuotaLimitProject = "quota_limit_project_fk": "quota_limit"."project_id" -> Project = "project",
    HostAdmissionHost = "host_admission_host_fk": "host_admission"."host_id" -> Host = "host",
    HostVerdictHost = "host_verdict_host_fk": "host_verdict"."host_id" -> Host = "host",
    HostTakenHost = "host_taken_host_fk": "host_taken"."host_id" -> Host = "host",
    InstanceProject = "instance_project_fk": "instance"."project_id" -> Project = "project",
    InstanceImage = "instance_image_fk": "instance"."image_id" -> Image = "image",
    ComputeUsageProject = "compute_usage_project_fk": "compute_usage"."project_id" -> Project = "project",
    ImageProject = "image_project_fk": "image"."project_id" -> Project = "project",
    ImageObjectImage = "image_object_image_fk": "image_object"."image_id" -> Image = "image",
    DiskProject = "disk_project_fk": "disk"."project_id" -> Project = "project",
    StorageUsageProject = "storage_usage_project_fk": "storage_usage"."project_id" -> Project = "project",
    NetworkProject = "network_project_fk": "network"."project_id" -> Project = "project",
    SubnetNetwork = "subnet_network_fk": "subnet"."network_id" -> Network = "network",
    RouterNetwork = "router_network_fk": "router"."network_id" -> Network = "network",
    ExternalBlockNetwork = "external_block_external_network_fk": "external_block"."external_network_id" -> ExternalNetwork = "external_network",
    AddressBlock = "address_block_fk": "address"."block_id" -> ExternalBlock = "external_block",
    RouterExternalNetwork = "router_external_network_fk": "router"."external_network_id" -> ExternalNetwork = "external_network",
    SecurityGroupProject = "security_group_project_fk": "security_group"."project_id" -> Project = "project",
    SecurityRuleGroup = "security_rule_group_fk": "security_rule"."security_group_id" -> SecurityGroup = "security_group",
    SecurityRuleRemote = "security_rule_remote_fk": "security_rule"."remote_group_id" -> SecurityGroup = "security_group",
    PortNetwork = "port_network_fk": "port"."network_id" -> Network = "network",
    PortProject = "port_project_fk": "port"."project_id" -> Project = "project",
    PortSecurityGroupPort = "port_security_group_port_fk": "port_security_group"."port_id" -> Port = "port",
    PortSecurityGroupGroup = "port_security_group_group_fk": "port_security_group"."security_group_id" -> SecurityGroup = "security_group",
    FloatingIpPort = "floating_ip_port_fk": "floating_ip"."port_id" -> Port = "port",
    FloatingIpExternalNetwork = "floating_ip_external_network_fk": "floating_ip"."external_network_id" -> ExternalNetwork = "external_network",
    FloatingIpProject = "floating_ip_project_fk": "floating_ip"."project_id" -> Project = "project",
    PeeringNetwork = "peering_network_fk": "peering"."network_id" -> Network = "network",
    PeeringPeer = "peering_peer_fk": "peering"."peer_network_id" -> Network = "network",
    UplinkNetwork = "uplink_network_fk": "uplink"."network_id" -> Network = "network",
    UplinkExternalNetwork = "uplink_external_network_fk": "uplink"."external_network_id" -> ExternalNetwork = "external_network",
    ProjectNetworkDefaultProject = "project_network_default_project_fk": "project_network_default"."project_id" -> Project = "project",
    IdentityUsageProject = "identity_usage_project_fk": "identity_usage"."project_id" -> Project = "project",
    NetworkUsageProject = "network_usage_project_fk": "network_usage"."project_id" -> Project = "project",
}

/// Every constraint of the schema.
pub const NAMED_CONSTRAINTS: &[&[ConstraintName]] = &[
    &[
        named("project_name_unique", "project.name", Constraint::ProjectName),
        named("user_account_name_unique", "user_account.name", Constraint::UserName),
        named("api_key_name_unique", "api_key.user_id, api_key.name", Constraint::ApiKeyName),
        named("api_key_prefix_unique", "api_key.prefix", Constraint::ApiKeyPrefix),
        named("ssh_key_name_unique", "ssh_key.project_id, ssh_key.name", Constraint::SshKeyName),
        named("flavor_name_unique", "flavor.name", Constraint::FlavorName),
        named("host_name_unique", "host.name", Constraint::HostName),
        named("host_token_secret_unique", "host_token.secret_hash", Constraint::HostTokenSecret),
        named("instance_name_unique", "instance.project_id, instance.name", Constraint::InstanceName),
        named("image_name_unique", "image.project_id, image.name", Constraint::ImageName),
        named("external_network_name_unique", "external_network.name", Constraint::ExternalNetworkName),
        named("network_name_unique", "network.project_id, network.name", Constraint::NetworkName),
        named("network_vni_unique", "network.vni", Constraint::NetworkVni),
        named("subnet_name_unique", "subnet.network_id, subnet.name", Constraint::SubnetName),
        named("router_name_unique", "router.project_id, router.name", Constraint::RouterName),
        named("router_network_unique", "router.network_id", Constraint::RouterNetwork),
        named(
            "security_group_name_unique",
            "security_group.project_id, security_group.name",
            Constraint::SecurityGroupName,
        ),
        named("port_name_unique", "port.project_id, port.name", Constraint::PortName),
        named("port_mac_unique", "port.mac", Constraint::PortMac),
        named("uplink_mac_unique", "uplink.mac", Constraint::UplinkMac),
        named("network_host_underlay_unique", "network_host.exclusive_underlay", Constraint::HostUnderlay),
        named("floating_ip_target_unique", "floating_ip.port_id, floating_ip.fixed_ip", Constraint::FloatingIpTarget),
        named("peering_name_unique", "peering.project_id, peering.name", Constraint::PeeringName),
        named("peering_pair_unique", "peering.network_id, peering.peer_network_id", Constraint::PeeringPair),
        named(
            "placement_group_name_unique",
            "placement_group.project_id, placement_group.name",
            Constraint::PlacementGroupName,
        ),
        named(
            "placement_member_place_unique",
            "placement_member.group_id, placement_member.exclusive_place",
            Constraint::PlacementPlace,
        ),
        named(
            "placement_member_pk",
            "placement_member.group_id, placement_member.instance_id",
            Constraint::PrimaryKey(Table::PlacementMember),
        ),
        named(
            "instance_todo_pk",
            "instance_todo.todo, instance_todo.instance_id",
            Constraint::PrimaryKey(Table::InstanceTodo),
        ),
        named(
            "placement_anchor_members_not_negative",
            "placement_anchor_members_not_negative",
            Constraint::UsedNotNegative,
        ),
        named(
            "port_security_group_pk",
            "port_security_group.port_id, port_security_group.security_group_id",
            Constraint::PrimaryKey(Table::PortSecurityGroup),
        ),
        named(
            "image_object_pk",
            "image_object.sha256, image_object.image_id",
            Constraint::PrimaryKey(Table::ImageObject),
        ),
        named("address_pk", "address.scope_id, address.address", Constraint::PrimaryKey(Table::Address)),
        named("uplink_pk", "uplink.network_id, uplink.host_id", Constraint::PrimaryKey(Table::Uplink)),
        named("resource_operation_pk", "resource_operation.id", Constraint::OperationRepeated),
        named("network_usage_not_negative", "network_usage_not_negative", Constraint::UsedNotNegative),
        named("disk_role_unique", "disk.instance_id, disk.role", Constraint::DiskRole),
        named("identity_operation_pk", "identity_operation.id", Constraint::OperationRepeated),
        named("compute_operation_pk", "compute_operation.id", Constraint::OperationRepeated),
        named("storage_operation_pk", "storage_operation.id", Constraint::OperationRepeated),
        named("idempotency_pk", "idempotency.principal, idempotency.idem_key", Constraint::IdempotencyRepeated),
        named(
            "role_binding_pk",
            "role_binding.project_id, role_binding.user_id",
            Constraint::PrimaryKey(Table::RoleBinding),
        ),
        named("host_taken_pk", "host_taken.host_id, host_taken.instance_id", Constraint::PrimaryKey(Table::HostTaken)),
        named("orphan_pk", "orphan.host_id, orphan.instance_id", Constraint::PrimaryKey(Table::Orphan)),
        named("host_used_not_negative", "host_used_not_negative", Constraint::UsedNotNegative),
        named("compute_usage_not_negative", "compute_usage_not_negative", Constraint::UsedNotNegative),
        named("identity_usage_not_negative", "identity_usage_not_negative", Constraint::UsedNotNegative),
        named("storage_usage_not_negative", "storage_usage_not_negative", Constraint::UsedNotNegative),
        named("event_head_single", "event_head_single", Constraint::EventHeadSingle),
    ],
    PRIMARY_KEYS,
    FOREIGN_KEYS,
];

fn all() -> impl Iterator<Item = &'static ConstraintName> {
    NAMED_CONSTRAINTS.iter().flat_map(|part| part.iter())
}

pub(crate) fn by_name(name: &str) -> Option<Constraint> {
    all().find(|c| c.name == name).map(|c| c.constraint)
}

pub(crate) fn by_sqlite_text(text: &str) -> Option<Constraint> {
    all().find(|c| c.sqlite == text).map(|c| c.constraint)
}

/// A foreign key of a table: what it means, its column, and its parent table.
pub(crate) struct Parent {
    pub constraint: Constraint,
    pub column: &'static str,
    pub table: &'static str,
}

/// The parents that a new row of `table` must have.
pub(crate) fn parents_of(table: &str) -> impl Iterator<Item = Parent> {
    all().filter_map(move |c| {
        let (child, parent) = c.sqlite.split_once(" -> ")?;
        let (child_table, column) = child.split_once('.')?;
        (child_table == table).then_some(Parent { constraint: c.constraint, column, table: parent })
    })
}
