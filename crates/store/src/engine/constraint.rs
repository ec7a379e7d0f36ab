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
    /// The table's name.
    PrimaryKey(&'static str),
    /// The constraint's name, `<table>_<parent>_fk`: the parent isn't there.
    ForeignKey(&'static str),
    /// More was given back than was taken: a defect of the caller.
    UsedNotNegative,
    /// `event_head` has one row.
    EventHeadOne,
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

macro_rules! ids {
    ($($table:literal . $column:literal),+) => { [$(named(
        concat!($table, "_pkey"),
        concat!($table, ".", $column),
        Constraint::PrimaryKey($table),
    )),+] };
}

macro_rules! parents {
    ($($name:literal = $table:literal . $column:literal -> $parent:literal),+ $(,)?) => { [$(named(
        $name,
        concat!($table, ".", $column, " -> ", $parent),
        Constraint::ForeignKey($name),
    )),+] };
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
            Constraint::PrimaryKey("placement_member"),
        ),
        named(
            "placement_anchor_members_not_negative",
            "placement_anchor_members_not_negative",
            Constraint::UsedNotNegative,
        ),
        named(
            "port_security_group_pk",
            "port_security_group.port_id, port_security_group.security_group_id",
            Constraint::PrimaryKey("port_security_group"),
        ),
        named("address_pk", "address.scope_id, address.address", Constraint::PrimaryKey("address")),
        named("uplink_pk", "uplink.network_id, uplink.host_id", Constraint::PrimaryKey("uplink")),
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
            Constraint::PrimaryKey("role_binding"),
        ),
        named("orphan_pk", "orphan.host_id, orphan.instance_id", Constraint::PrimaryKey("orphan")),
        named("host_used_not_negative", "host_used_not_negative", Constraint::UsedNotNegative),
        named("compute_usage_not_negative", "compute_usage_not_negative", Constraint::UsedNotNegative),
        named("storage_usage_not_negative", "storage_usage_not_negative", Constraint::UsedNotNegative),
        named("event_head_one", "event_head_one", Constraint::EventHeadOne),
    ],
    &ids![
        "project"."id",
        "user_account"."id",
        "api_key"."id",
        "refresh_token"."secret_hash",
        "signing_key"."kid",
        "ssh_key"."id",
        "flavor"."id",
        "quota_limit"."project_id",
        "host"."id",
        "cpu_baseline"."id",
        "host_token"."id",
        "host_admission"."host_id",
        "instance"."id",
        "compute_usage"."project_id",
        "image"."id",
        "disk"."id",
        "placement_group"."id",
        "placement_anchor"."group_id",
        "placement_record"."id",
        "external_network"."id",
        "network"."id",
        "subnet"."id",
        "router"."id",
        "security_group"."id",
        "security_rule"."id",
        "port"."id",
        "floating_ip"."id",
        "peering"."id",
        "network_host"."host_id",
        "project_network_default"."project_id",
        "network_usage"."project_id",
        "storage_usage"."project_id",
        "event_head"."one",
        "event"."id",
        "audit"."id"
    ],
    &parents![
        "placement_group_project_fk" = "placement_group"."project_id" -> "project",
        "placement_member_group_fk" = "placement_member"."group_id" -> "placement_group",
        "placement_member_instance_fk" = "placement_member"."instance_id" -> "instance",
        "placement_anchor_group_fk" = "placement_anchor"."group_id" -> "placement_group",
        "role_binding_project_fk" = "role_binding"."project_id" -> "project",
        "role_binding_user_fk" = "role_binding"."user_id" -> "user_account",
        "api_key_user_fk" = "api_key"."user_id" -> "user_account",
        "api_key_project_fk" = "api_key"."project_id" -> "project",
        "refresh_token_user_fk" = "refresh_token"."user_id" -> "user_account",
        "ssh_key_project_fk" = "ssh_key"."project_id" -> "project",
        "quota_limit_project_fk" = "quota_limit"."project_id" -> "project",
        "host_admission_host_fk" = "host_admission"."host_id" -> "host",
        "instance_project_fk" = "instance"."project_id" -> "project",
        "compute_usage_project_fk" = "compute_usage"."project_id" -> "project",
        "image_project_fk" = "image"."project_id" -> "project",
        "disk_project_fk" = "disk"."project_id" -> "project",
        "storage_usage_project_fk" = "storage_usage"."project_id" -> "project",
        "network_project_fk" = "network"."project_id" -> "project",
        "subnet_network_fk" = "subnet"."network_id" -> "network",
        "router_network_fk" = "router"."network_id" -> "network",
        "router_external_network_fk" = "router"."external_network_id" -> "external_network",
        "security_group_project_fk" = "security_group"."project_id" -> "project",
        "security_rule_group_fk" = "security_rule"."security_group_id" -> "security_group",
        "security_rule_remote_fk" = "security_rule"."remote_group_id" -> "security_group",
        "port_network_fk" = "port"."network_id" -> "network",
        "port_project_fk" = "port"."project_id" -> "project",
        "port_security_group_port_fk" = "port_security_group"."port_id" -> "port",
        "port_security_group_group_fk" = "port_security_group"."security_group_id" -> "security_group",
        "floating_ip_port_fk" = "floating_ip"."port_id" -> "port",
        "floating_ip_external_network_fk" = "floating_ip"."external_network_id" -> "external_network",
        "floating_ip_project_fk" = "floating_ip"."project_id" -> "project",
        "peering_network_fk" = "peering"."network_id" -> "network",
        "peering_peer_fk" = "peering"."peer_network_id" -> "network",
        "uplink_network_fk" = "uplink"."network_id" -> "network",
        "uplink_external_network_fk" = "uplink"."external_network_id" -> "external_network",
        "project_network_default_project_fk" = "project_network_default"."project_id" -> "project",
        "network_usage_project_fk" = "network_usage"."project_id" -> "project",
    ],
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

/// A foreign key of a table: its name, its column, its parent table.
pub(crate) struct Parent {
    pub name: &'static str,
    pub column: &'static str,
    pub table: &'static str,
}

/// The parents that a new row of `table` must have.
pub(crate) fn parents_of(table: &str) -> impl Iterator<Item = Parent> {
    all().filter_map(move |c| {
        let (child, parent) = c.sqlite.split_once(" -> ")?;
        let (child_table, column) = child.split_once('.')?;
        (child_table == table).then_some(Parent { name: c.name, column, table: parent })
    })
}
