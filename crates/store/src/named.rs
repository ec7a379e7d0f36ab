//! Names for ids: what a page of a list says beside the ids in it, in one read for each kind of object.

use crate::{ReadError, Store, engine::read::text_array};
use domain::Name;
use sqlx::AssertSqlSafe;
use std::{collections::HashMap, fmt::Display, hash::Hash, str::FromStr};

/// Kinds of objects whose names are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Named {
    ExternalNetwork,
    Instance,
    Network,
    SecurityGroup,
}

impl Named {
    fn table(self) -> &'static str {
        match self {
            Self::ExternalNetwork => "external_network",
            Self::Instance => "instance",
            Self::Network => "network",
            Self::SecurityGroup => "security_group",
        }
    }
}

row! {
    struct NamedRow { id: String, name: Name }
}

impl Store {
    /// Of those that exist. `Id` is the id of the kind.
    pub async fn name_load_many<Id>(&self, of: Named, ids: &[Id]) -> Result<HashMap<Id, Name>, ReadError>
    where
        Id: Display + FromStr + Eq + Hash + Sync,
    {
        if ids.is_empty() {
            return Ok(HashMap::new());
        }
        let sql = format!("SELECT id, name FROM {} WHERE id {}", of.table(), self.pool().in_texts(1));
        let rows: Vec<NamedRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(ids)]).await?;
        // Only this crate writes the column, from an id.
        Ok(rows.into_iter().filter_map(|row| Some((row.id.parse().ok()?, row.name))).collect())
    }
}
