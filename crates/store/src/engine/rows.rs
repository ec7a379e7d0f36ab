//! How a Rust value is a column, in both directions, on both databases.
//!
//! Written values travel as JSON (the row source of every statement), read ones come back as text, 64-bit integer or boolean. One trait
//! says both, so that a type can't be written in one shape and read in another. NUL can't be stored by PostgreSQL, so it is written as
//! U+FFFD on both: a guest's garbage in a `reason` must not make the row unwritable.

use domain::{
    Name, Timestamp,
    cpu::CpuBaseline,
    explain::PlacementRecord,
    flavor::Pinning,
    host::{HostFacts, HostState, MemoryOverhead},
    image::{DiskFormat, ImageKind, ImagePart, ImageState, Visibility},
    instance::{InstanceSpec, InstanceState, OnHostLoss},
    network::{
        Cidr, ExternalSubnet, FixedIp, MacAddr, PortState, PortStatus, RateLimit, SecurityRule, SubnetSpec, Vni,
    },
    placement::{GroupPolicy, GroupScope, GroupStrength, PlacementOutcome},
    policy::Role,
    recovery::{LossProof, RecoveryPhase},
};
use serde::Serialize;
use std::{collections::BTreeMap, io, net::IpAddr};

/// The SQL type of a column, as far as the row source cares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SqlType {
    Text,
    Int,
    Bool,
}

impl SqlType {
    pub(crate) fn postgres(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Int => "bigint",
            Self::Bool => "boolean",
        }
    }
}

/// The database held a value that this column's type can't be.
#[derive(Debug, thiserror::Error)]
#[error("`{value}` is not a valid {what}")]
pub(crate) struct BadColumn {
    what: &'static str,
    value: String,
}

impl BadColumn {
    pub(crate) fn new(what: &'static str, value: impl std::fmt::Display) -> Self {
        Self { what, value: value.to_string().chars().take(120).collect() }
    }
}

/// A type that can be a column.
pub(crate) trait Column: Sized {
    const TYPE: SqlType;
    /// What the database gives: `String`, `i64`, `bool` or an `Option` of these.
    type Raw;
    fn from_raw(raw: Self::Raw) -> Result<Self, BadColumn>;
    /// What goes into the JSON row.
    type Json<'a>: Serialize
    where
        Self: 'a;
    fn json(&self) -> Self::Json<'_>;
}

impl<T: Column> Column for Option<T> {
    const TYPE: SqlType = T::TYPE;
    type Raw = Option<T::Raw>;
    fn from_raw(raw: Self::Raw) -> Result<Self, BadColumn> {
        raw.map(T::from_raw).transpose()
    }
    type Json<'a>
        = Option<T::Json<'a>>
    where
        T: 'a;
    fn json(&self) -> Self::Json<'_> {
        self.as_ref().map(T::json)
    }
}

impl Column for String {
    const TYPE: SqlType = SqlType::Text;
    type Raw = String;
    fn from_raw(raw: String) -> Result<Self, BadColumn> {
        Ok(raw)
    }
    type Json<'a> = &'a str;
    fn json(&self) -> &str {
        self
    }
}

impl Column for bool {
    const TYPE: SqlType = SqlType::Bool;
    type Raw = bool;
    fn from_raw(raw: bool) -> Result<Self, BadColumn> {
        Ok(raw)
    }
    type Json<'a> = bool;
    fn json(&self) -> bool {
        *self
    }
}

impl Column for Timestamp {
    const TYPE: SqlType = SqlType::Int;
    type Raw = i64;
    fn from_raw(raw: i64) -> Result<Self, BadColumn> {
        Ok(Self(raw))
    }
    type Json<'a> = i64;
    fn json(&self) -> i64 {
        self.0
    }
}

macro_rules! integers {
    ($($ty:ty),+) => {$(
        impl Column for $ty {
            const TYPE: SqlType = SqlType::Int;
            type Raw = i64;
            fn from_raw(raw: i64) -> Result<Self, BadColumn> {
                <$ty>::try_from(raw).map_err(|_| BadColumn::new(stringify!($ty), raw))
            }
            type Json<'a> = i64;
            fn json(&self) -> i64 {
                i64::try_from(*self).unwrap_or(i64::MAX)
            }
        }
    )+};
}
integers!(i64, u64, u32);

impl Column for Vni {
    const TYPE: SqlType = SqlType::Int;
    type Raw = i64;

    fn from_raw(raw: i64) -> Result<Self, BadColumn> {
        let number = u32::try_from(raw).map_err(|_| BadColumn::new("VNI", raw))?;
        Self::try_from(number).map_err(|_| BadColumn::new("VNI", raw))
    }

    type Json<'a> = i64;

    fn json(&self) -> i64 {
        i64::from(self.get())
    }
}

/// Types that are one text in a column and the same text in JSON.
macro_rules! texts {
    ($($ty:ty => $parse:expr),+ $(,)?) => {$(
        impl Column for $ty {
            const TYPE: SqlType = SqlType::Text;
            type Raw = String;
            fn from_raw(raw: String) -> Result<Self, BadColumn> {
                let parse: fn(&str) -> Option<$ty> = $parse;
                parse(&raw).ok_or_else(|| BadColumn::new(stringify!($ty), raw))
            }
            type Json<'a> = &'a $ty;
            fn json(&self) -> &$ty {
                self
            }
        }
    )+};
}
macro_rules! id_texts {
    ($($(#[$doc:meta])* $id:ident),+ $(,)?) => {
        texts! { $(domain::$id => |t| t.parse().ok()),+ }
    };
}
domain::for_each_id!(id_texts);
texts! {
    Name => |t| t.parse().ok(),
    Role => Role::parse,
    GroupPolicy => GroupPolicy::parse,
    GroupScope => GroupScope::parse,
    GroupStrength => GroupStrength::parse,
    PlacementOutcome => PlacementOutcome::parse,
    HostState => HostState::parse,
    Pinning => Pinning::parse,
    InstanceState => InstanceState::parse,
    LossProof => LossProof::parse,
    OnHostLoss => OnHostLoss::parse,
    RecoveryPhase => RecoveryPhase::parse,
    ImageKind => ImageKind::parse,
    ImageState => ImageState::parse,
    DiskFormat => DiskFormat::parse,
    Visibility => Visibility::parse,
    IpAddr => |t| t.parse().ok(),
    MacAddr => |t| t.parse().ok(),
    PortState => PortState::parse,
    PortStatus => PortStatus::parse,
    crate::AddressOwner => crate::AddressOwner::parse,
    crate::DiskState => crate::DiskState::parse,
    crate::InstanceTodo => crate::InstanceTodo::parse,
    crate::ManagerRole => crate::ManagerRole::parse,
}

/// Types that are a JSON document in a text column.
macro_rules! documents {
    ($($ty:ty),+ $(,)?) => {$(
        impl Column for $ty {
            const TYPE: SqlType = SqlType::Text;
            type Raw = String;
            fn from_raw(raw: String) -> Result<Self, BadColumn> {
                serde_json::from_str(&raw).map_err(|e| BadColumn::new(stringify!($ty), e))
            }
            type Json<'a> = &'a $ty;
            fn json(&self) -> &$ty {
                self
            }
        }
    )+};
}
documents!(
    BTreeMap<String, String>,
    Vec<String>,
    Vec<ImagePart>,
    Vec<Cidr>,
    Vec<IpAddr>,
    Vec<ExternalSubnet>,
    Vec<FixedIp>,
    HostFacts,
    CpuBaseline,
    MemoryOverhead,
    InstanceSpec,
    RateLimit,
    SecurityRule,
    SubnetSpec
);

/// `None` is the empty document: the column itself is never NULL.
impl Column for Option<PlacementRecord> {
    const TYPE: SqlType = SqlType::Text;
    type Raw = String;
    fn from_raw(raw: String) -> Result<Self, BadColumn> {
        if raw == "{}" {
            return Ok(None);
        }
        serde_json::from_str(&raw).map(Some).map_err(|e| BadColumn::new("placement record", e))
    }
    type Json<'a> = OrEmpty<'a, PlacementRecord>;
    fn json(&self) -> OrEmpty<'_, PlacementRecord> {
        OrEmpty(self.as_ref())
    }
}

/// Any small JSON; `null` is stored as the empty document.
impl Column for serde_json::Value {
    const TYPE: SqlType = SqlType::Text;
    type Raw = String;
    fn from_raw(raw: String) -> Result<Self, BadColumn> {
        serde_json::from_str(&raw).map_err(|e| BadColumn::new("JSON document", e))
    }
    type Json<'a> = OrEmpty<'a, serde_json::Value>;
    fn json(&self) -> OrEmpty<'_, serde_json::Value> {
        OrEmpty(Some(self).filter(|v| !v.is_null()))
    }
}

pub(crate) struct OrEmpty<'a, T>(Option<&'a T>);

impl<T: Serialize> Serialize for OrEmpty<'_, T> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0 {
            Some(value) => value.serialize(serializer),
            None => serde_json::Map::new().serialize(serializer),
        }
    }
}

/// Compact JSON, NUL replaced.
pub(crate) fn write_json<T: Serialize>(value: &T, out: &mut Vec<u8>) -> serde_json::Result<()> {
    value.serialize(&mut serde_json::Serializer::with_formatter(out, WithoutNul))
}

struct WithoutNul;

impl serde_json::ser::Formatter for WithoutNul {
    fn write_char_escape<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        escape: serde_json::ser::CharEscape,
    ) -> io::Result<()> {
        if matches!(escape, serde_json::ser::CharEscape::AsciiControl(0)) {
            return writer.write_all(b"\\ufffd");
        }
        serde_json::ser::CompactFormatter.write_char_escape(writer, escape)
    }
}

/// Reads one column by its name.
pub(crate) fn get<'r, R, T>(row: &'r R, name: &'static str) -> sqlx::Result<T>
where
    R: sqlx::Row,
    &'static str: sqlx::ColumnIndex<R>,
    T: Column,
    T::Raw: sqlx::Decode<'r, R::Database> + sqlx::Type<R::Database>,
{
    let raw = row.try_get::<T::Raw, _>(name)?;
    T::from_raw(raw).map_err(|e| sqlx::Error::ColumnDecode { index: name.to_owned(), source: Box::new(e) })
}

/// A type that is read from the columns of a query, by their names. Its two functions are concrete, so that each is compiled once, here, and not again in
/// every crate that reads.
pub(crate) trait Record: Sized {
    fn from_sqlite(row: &sqlx::sqlite::SqliteRow) -> sqlx::Result<Self>;
    fn from_postgres(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self>;
}

/// A record that is a whole row of one table.
pub(crate) trait TableRecord: Record {
    /// `SELECT … FROM … `, to be followed by conditions and an order.
    const SELECT: &'static str;
}

/// `SELECT column, … FROM table `.
macro_rules! select {
    ($table:ident: $first:ident $(, $rest:ident)*) => {
        concat!("SELECT ", stringify!($first), $(", ", stringify!($rest),)* " FROM ", stringify!($table), " ")
    };
}

/// How an existing struct is read whose fields are columns of the same names: `record! { Router, of router { id, … } }`.
macro_rules! record {
    ($name:ty, of $table:ident { $($field:ident),* $(,)? }) => {
        record! { $name { $($field),* } }

        impl $crate::engine::rows::TableRecord for $name {
            const SELECT: &'static str = select!($table: $($field),*);
        }
    };
    ($name:ty { $($field:ident),* $(,)? }) => {
        impl $crate::engine::rows::Record for $name {
            fn from_sqlite(row: &sqlx::sqlite::SqliteRow) -> sqlx::Result<Self> {
                Ok(Self { $($field: $crate::engine::rows::get(row, stringify!($field))?),* })
            }

            fn from_postgres(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                Ok(Self { $($field: $crate::engine::rows::get(row, stringify!($field))?),* })
            }
        }
    };
    // A type that is made of a struct of columns.
    ($name:ty, from $columns:ty) => {
        impl $crate::engine::rows::Record for $name {
            fn from_sqlite(row: &sqlx::sqlite::SqliteRow) -> sqlx::Result<Self> {
                <$columns as $crate::engine::rows::Record>::from_sqlite(row).map(Self::from)
            }

            fn from_postgres(row: &sqlx::postgres::PgRow) -> sqlx::Result<Self> {
                <$columns as $crate::engine::rows::Record>::from_postgres(row).map(Self::from)
            }
        }

        impl $crate::engine::rows::TableRecord for $name {
            const SELECT: &'static str = <$columns as $crate::engine::rows::TableRecord>::SELECT;
        }
    };
}

/// A struct whose fields are columns of the same names; with `of table`, all that is read of that table.
macro_rules! row {
    ($(#[$meta:meta])* $vis:vis struct $name:ident $(of $table:ident)? { $($(#[$fmeta:meta])* $fvis:vis $field:ident : $ty:ty),* $(,)? }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, PartialEq)]
        $vis struct $name { $($(#[$fmeta])* $fvis $field: $ty),* }

        row!(@record $name [$($table)?] $($field),*);
    };
    (@record $name:ident [] $($field:ident),*) => { record! { $name { $($field),* } } };
    (@record $name:ident [$table:ident] $($field:ident),*) => { record! { $name, of $table { $($field),* } } };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nul_is_replaced_and_nothing_else_is() {
        let mut out = Vec::new();
        write_json(&"a\0b\u{1}\\u0000\n", &mut out).expect("serialises");
        assert_eq!(String::from_utf8(out).expect("UTF-8"), r#""a\ufffdb\u0001\\u0000\n""#);
    }

    #[test]
    fn absent_documents_are_empty_ones() {
        let none: Option<PlacementRecord> = None;
        let mut out = Vec::new();
        write_json(&none.json(), &mut out).expect("serialises");
        assert_eq!(out, b"{}");
        assert_eq!(<Option<PlacementRecord> as Column>::from_raw("{}".into()).expect("reads"), None);
    }
}
