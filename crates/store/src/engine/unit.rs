//! Units, ops and kinds: what callers hand in, as plain data.
//!
//! A *kind* is one op struct: its columns with their types, one SQL text with `{rows}` where the rows come in, and what the statement must
//! touch. `{rows}` is the only thing in which the databases differ: `jsonb_to_recordset` on PostgreSQL, `jsonb_each` on SQLite
//! (its rows stay parsed; `json_each` would print and parse each row again for each column: a third of the writer's speed).

use super::{
    error::Guard,
    rows::{SqlType, write_json},
};
use crate::*;
use serde::Serialize;
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::LazyLock,
};

/// How the rows of a kind meet those of other units.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    /// Makes the row it names. Kept in the order of arrival.
    Insert,
    /// Changes or removes the row it names: two units that name the same one never share a batch.
    Change,
    /// Adds to the row it names: summed over the batch.
    Add,
}

/// One kind of op.
#[derive(Debug)]
pub(crate) struct Kind {
    pub name: &'static str,
    pub table: &'static str,
    pub class: Class,
    /// Fails the unit when the statement touches fewer rows than are named.
    pub guard: Option<Guard>,
    pub columns: &'static [(&'static str, SqlType)],
    pub sql: &'static str,
    /// Run before `sql`, with the same rows.
    pub ensure: Option<&'static str>,
}

impl Kind {
    /// `text` (`sql` or `ensure`) for SQLite: parameter 1 is the JSON array.
    pub(crate) fn sqlite(&self, text: &str) -> String {
        let columns: Vec<String> =
            self.columns.iter().map(|(name, _)| format!("value->>'$.{name}' AS {name}")).collect();
        text.replace("{rows}", &format!("(SELECT {} FROM jsonb_each(?1)) AS r", columns.join(", ")))
    }

    /// `text` (`sql` or `ensure`) for PostgreSQL: parameter 1 is the JSON array.
    pub(crate) fn postgres(&self, text: &str) -> String {
        let columns: Vec<String> = self.columns.iter().map(|(name, ty)| format!("{name} {}", ty.postgres())).collect();
        text.replace("{rows}", &format!("jsonb_to_recordset($1::jsonb) AS r({})", columns.join(", ")))
    }
}

/// What the `op!` macro gives each op struct.
pub(crate) trait OpKind: Serialize {
    const KIND: Kind;
    /// The row it names, hashed together with the table.
    fn target(&self) -> u64;
}

pub(crate) fn target_of(table: &str, key: impl Hash) -> u64 {
    // Without random keys: processes that sort by it take PostgreSQL's row locks in the same order.
    let mut hasher = DefaultHasher::new();
    table.hash(&mut hasher);
    key.hash(&mut hasher);
    hasher.finish()
}

/// Declares an op: its columns, its table and class, what names its row, its guard and its SQL. `insert` stands for the statement that
/// inserts these columns, and the further ones in braces with their values; a text that follows goes behind it. `expire id by created_at` stands
/// for the deletion of at most 2,000 rows that are older than `before` (see [`crate::Retention`]).
macro_rules! op {
    (
        $(#[$meta:meta])*
        $name:ident { $($(#[$fmeta:meta])* $field:ident : $ty:ty),* $(,)? }
        on $table:ident, $class:ident by ($($key:ident),+)
        $(, guard $guard:ident)?
        $(, ensure $ensure:literal)?
        : $($sql:tt)+
    ) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        pub struct $name { $($(#[$fmeta])* pub $field: $ty),* }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeMap as _;
                let mut map = serializer.serialize_map(None)?;
                $(map.serialize_entry(stringify!($field), &$crate::engine::rows::Column::json(&self.$field))?;)*
                map.end()
            }
        }

        impl $crate::engine::unit::OpKind for $name {
            const KIND: $crate::engine::unit::Kind = $crate::engine::unit::Kind {
                name: stringify!($name),
                table: stringify!($table),
                class: $crate::engine::unit::Class::$class,
                guard: op!(@optional $($crate::engine::error::Guard::$guard)?),
                columns: &[$((stringify!($field), <$ty as $crate::engine::rows::Column>::TYPE)),*],
                sql: op!(@sql $table [$($field),*] $($sql)+),
                ensure: op!(@optional $($ensure)?),
            };
            fn target(&self) -> u64 {
                $crate::engine::unit::target_of(stringify!($table), ($(&self.$key,)+))
            }
        }
    };
    (@sql $table:ident [$($field:ident),*] $sql:literal) => { $sql };
    (@sql $table:ident [$before:ident] expire $key:ident by $time:ident) => {
        concat!(
            "DELETE FROM ", stringify!($table), " WHERE ", stringify!($key), " IN (SELECT ", stringify!($key), " FROM ",
            stringify!($table), " WHERE ", stringify!($time), " < (SELECT max(r.before) FROM {rows}) ORDER BY ",
            stringify!($time), " LIMIT 2000)"
        )
    };
    (@sql $table:ident [$first:ident $(, $rest:ident)*] insert $({ $($column:ident = $value:literal),+ })? $($tail:literal)?) => {
        concat!(
            "INSERT INTO ", stringify!($table), " (", stringify!($first), $(", ", stringify!($rest),)*
            $($(", ", stringify!($column),)+)? ") SELECT r.", stringify!($first), $(", r.", stringify!($rest),)*
            $($(", ", $value,)+)? " FROM {rows}" $(, " ", $tail)?
        )
    };
    (@optional) => { None };
    (@optional $some:expr) => { Some($some) };
}

macro_rules! kinds {
    ($($name:ident),+ $(,)?) => {
        /// One change of one row (or of the rows it says). One variant per op struct.
        #[derive(Debug, Clone, PartialEq)]
        pub enum Op { $($name($name)),+ }

        #[derive(Clone, Copy)]
        #[repr(u8)]
        enum Index { $($name),+ }

        /// In the order in which a batch runs them.
        pub(crate) static KINDS: &[Kind] = &[$($name::KIND),+];

        impl Op {
            /// The names of all kinds, for tests that must cover each.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            fn index(&self) -> u8 {
                (match self { $(Self::$name(_) => Index::$name),+ }) as u8
            }

            fn target(&self) -> u64 {
                match self { $(Self::$name(op) => op.target()),+ }
            }

            fn write(&self, out: &mut Vec<u8>) -> serde_json::Result<()> {
                match self { $(Self::$name(op) => write_json(op, out)),+ }
            }
        }

        $(impl From<$name> for Op {
            fn from(op: $name) -> Self {
                Self::$name(op)
            }
        })+
    };
}

kinds! {
    // Repeats are found first: a repeated create must say so, not that its name is taken.
    IdempotencyInsert, IdentityOperationInsert, ComputeOperationInsert, StorageOperationInsert, ResourceOperationInsert,
    // New rows, parents before children.
    ProjectInsert, UserInsert, FlavorInsert, SigningKeyInsert, ImageInsert, ImageObjectPut, PlacementGroupInsert, InstanceInsert, PlacementMemberInsert, InstanceTodoPut, DiskInsert,
    PlacementRecordInsert,
    RoleBindingPut, ApiKeyInsert, RefreshTokenInsert, SshKeyInsert, QuotaLimitPut,
    ManagerLeaseTake, ManagerStandbyPut, CpuBaselinePut, HostVerdictInsert, HostTakenPut, RecoveryInsert, HostExpect, HostTokenInsert, HostAdmissionPut,
    ProjectNetworkDefaultInsert, ExternalNetworkInsert, ExternalBlockInsert, NetworkInsert, SubnetInsert, RouterInsert, SecurityGroupInsert,
    SecurityRuleInsert, PortInsert, PortSecurityGroupPut, AddressTake, FloatingIpInsert, PeeringInsert, UplinkPut,
    NetworkHostPut,
    // Changes.
    ProjectUpdate, UserUpdate, UserHomeDefault, SigningKeyRetire, RefreshTokenUse,
    PlacementAnchorJoin, PlacementAnchorMove, PlacementMemberMove, ImageChange, DiskConfirm, DiskResize, DiskRelease,
    HostLost, HostUpsert, HostStateSet, HostVerdictListed, RecoveryProgress, HostLedgerSet, HostLedgerAccept, HostChange, HostTokenRedeem, HostAdmissionHold,
    InstanceDesired, InstanceMove, InstanceLift, InstanceObserved, InstanceProgress, OrphanPut,
    ExternalNetworkChange, NetworkChange, NetworkBump, SubnetUpdate, RouterUpdate, SecurityGroupChange,
    PortUpdate, PortTake, PortBind, PortLift, PortRelease, FloatingIpChange, PortDetach, PortObserved,
    // Ends, children before parents.
    PortSecurityGroupDelete, FloatingIpDelete, PortDelete, AddressRelease, UplinkDelete, PeeringDelete, RouterDelete,
    SubnetDelete, NetworkDelete, SecurityRuleDelete, SecurityGroupDelete, ExternalBlockDelete, ExternalNetworkDelete, NetworkHostDelete,
    PlacementAnchorLeave, OrphanDelete, DiskExpire, DiskDelete, PlacementRecordKeep, InstanceTodoDone, InstanceDelete, PlacementGroupDelete, ImageDelete,
    HostTokenDelete, HostTakenProven, HostVerdictEnd, HostReturn, HostDelete, ManagerStandbyDelete,
    UserHomeClear, RoleBindingDelete, ApiKeyDelete, ApiKeyUserRevoke, RefreshFamilyRevoke, RefreshUserRevoke, RefreshUserTrim, SshKeyDelete, FlavorDelete,
    UserDelete, ProjectDelete,
    // Sums on hot rows, late, so that their locks are held briefly.
    HostRelease, HostClaim, HostRevision, ImageReserve, ComputeUsageAdd, StorageUsageAdd, NetworkUsageAdd,
    IdentityUsageAdd,
    // Retention.
    RefreshExpire, IdempotencyExpire, IdentityOperationExpire, ComputeOperationExpire, StorageOperationExpire,
    ResourceOperationExpire, AddressSweep, ManagerStandbyExpire, HostTokenExpire, PlacementRecordExpire, RecoveryExpire,
    PlacementRecordTrim, EventExpire, AuditExpire,
    // Append-only; the lock on the head of the events comes last.
    AuditInsert, AuditAdd, EventInsert,
}

/// The kind whose rows get their ids from the head of the events.
pub(crate) const EVENT_KIND: usize = Index::EventInsert as usize;

/// The kinds that make an object, or a record of one that nobody needs for going on: with a full disk they are refused, so that what room is left
/// goes to the rest: changes and deletions, what hosts report, logins, and the operations and events that belong to these.
const MAKES_NEW: &[&str] = &[
    "ProjectInsert",
    "UserInsert",
    "FlavorInsert",
    "ImageInsert",
    "ImageObjectPut",
    "PlacementGroupInsert",
    "InstanceInsert",
    "PlacementMemberInsert",
    "DiskInsert",
    "PlacementRecordInsert",
    "RoleBindingPut",
    "ApiKeyInsert",
    "SshKeyInsert",
    "HostTokenInsert",
    "ProjectNetworkDefaultInsert",
    "ExternalNetworkInsert",
    "ExternalBlockInsert",
    "NetworkInsert",
    "SubnetInsert",
    "RouterInsert",
    "SecurityGroupInsert",
    "SecurityRuleInsert",
    "PortInsert",
    "PortSecurityGroupPut",
    "AddressTake",
    "FloatingIpInsert",
    "PeeringInsert",
];

/// What only tells of a change. By itself it is no reason to use the reserve.
const TELLS: &[&str] = &["AuditAdd", "AuditInsert", "EventInsert"];

static WITH_FULL_DISK: LazyLock<Vec<(bool, bool)>> =
    LazyLock::new(|| KINDS.iter().map(|kind| (MAKES_NEW.contains(&kind.name), TELLS.contains(&kind.name))).collect());

impl Op {
    /// The kind's name.
    #[must_use]
    pub fn name(&self) -> &'static str {
        KINDS[usize::from(self.index())].name
    }
}

/// A change that is applied whole or not at all: a list of ops. Plain data; order among its ops doesn't matter.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Unit {
    ops: Vec<Op>,
}

impl Unit {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn op(mut self, op: impl Into<Op>) -> Self {
        self.push(op);
        self
    }

    pub fn push(&mut self, op: impl Into<Op>) {
        self.ops.push(op.into());
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ops.is_empty()
    }

    #[must_use]
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }
}

impl<T: Into<Op>> Extend<T> for Unit {
    fn extend<I: IntoIterator<Item = T>>(&mut self, ops: I) {
        self.ops.extend(ops.into_iter().map(Into::into));
    }
}

/// A unit ready for the writer: rendered by the caller's task, so that the writer only joins.
#[derive(Debug)]
pub(crate) struct Prepared {
    json: String,
    rows: Vec<PreparedRow>,
}

#[derive(Debug, Clone, Copy)]
struct PreparedRow {
    kind: u8,
    target: u64,
    from: u32,
    to: u32,
}

/// One row of a prepared unit.
pub(crate) struct RowRef<'a> {
    pub kind: usize,
    pub target: u64,
    pub json: &'a str,
}

impl Prepared {
    pub(crate) fn new(unit: &Unit) -> serde_json::Result<Self> {
        let mut json = Vec::with_capacity(unit.ops.len() * 256);
        let mut rows = Vec::with_capacity(unit.ops.len());
        for op in &unit.ops {
            let from = offset(&json)?;
            op.write(&mut json)?;
            rows.push(PreparedRow { kind: op.index(), target: op.target(), from, to: offset(&json)? });
        }
        let json = String::from_utf8(json).map_err(serde::ser::Error::custom)?;
        Ok(Self { json, rows })
    }

    pub(crate) fn rows(&self) -> impl Iterator<Item = RowRef<'_>> {
        self.rows.iter().map(|row| RowRef {
            kind: usize::from(row.kind),
            target: row.target,
            json: &self.json[row.from as usize..row.to as usize],
        })
    }

    /// Whether it is refused while the disk is full: it makes something new, or only tells of something.
    pub(crate) fn makes_new(&self) -> bool {
        let said = |row: &PreparedRow| WITH_FULL_DISK[usize::from(row.kind)];
        self.rows.iter().any(|row| said(row).0) || self.rows.iter().all(|row| said(row).1)
    }

    /// The rows that no other unit of its batch may name.
    pub(crate) fn exclusive_targets(&self) -> impl Iterator<Item = u64> {
        self.rows.iter().filter(|row| KINDS[usize::from(row.kind)].class != Class::Add).map(|row| row.target)
    }
}

fn offset(json: &[u8]) -> serde_json::Result<u32> {
    u32::try_from(json.len()).map_err(serde::ser::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is inserted and goes on with a full disk.
    const GOES_ON: &[&str] = &[
        "IdempotencyInsert",
        "IdentityOperationInsert",
        "ComputeOperationInsert",
        "StorageOperationInsert",
        "ResourceOperationInsert",
        "SigningKeyInsert",
        "RefreshTokenInsert",
        "QuotaLimitPut",
        "CpuBaselinePut",
        "HostUpsert",
        "OrphanPut",
        "ManagerLeaseTake",
        "ManagerStandbyPut",
        "InstanceTodoPut",
        "PlacementRecordKeep",
        "HostExpect",
        "HostVerdictInsert",
        "HostTakenPut",
        "RecoveryInsert",
        "HostAdmissionPut",
        "UplinkPut",
        "NetworkHostPut",
    ];

    #[test]
    fn of_each_kind_that_inserts_it_is_said_whether_a_full_disk_refuses_it() {
        for kind in KINDS {
            let said = [MAKES_NEW, TELLS, GOES_ON].iter().filter(|list| list.contains(&kind.name)).count();
            let expected = usize::from(kind.class == Class::Insert || TELLS.contains(&kind.name));
            assert_eq!(said, expected, "{}: say in unit.rs whether a full disk refuses it", kind.name);
        }
        for name in [MAKES_NEW, TELLS, GOES_ON].concat() {
            assert!(KINDS.iter().any(|kind| kind.name == name), "{name} is no kind");
        }
    }
}
