//! Flavors: named sizes. Written by the api-gateway. Instances keep the numbers, so deleting one changes no instance.

use crate::{Page, ReadError, Store};
use domain::{
    FlavorId, Name, Timestamp,
    flavor::{Flavor, Pinning, Size},
};

op! {
    /// Starts at generation 1.
    FlavorInsert {
        id: FlavorId,
        name: Name,
        vcpus: u32,
        memory_mib: u64,
        disk_gib: u64,
        pinning: Pinning,
        description: String,
        created_at: Timestamp,
    }
    on flavor, Insert by (id):
    "INSERT INTO flavor (id, name, vcpus, memory_mib, disk_gib, pinning, description, generation, created_at)
     SELECT r.id, r.name, r.vcpus, r.memory_mib, r.disk_gib, r.pinning, r.description, 1, r.created_at FROM {rows}"
}

op! {
    FlavorDelete { id: FlavorId }
    on flavor, Change by (id):
    "DELETE FROM flavor WHERE id IN (SELECT r.id FROM {rows})"
}

row! {
    struct FlavorRow {
        id: FlavorId,
        name: Name,
        vcpus: u32,
        memory_mib: u64,
        disk_gib: u64,
        pinning: Pinning,
        description: String,
        generation: i64,
        created_at: Timestamp,
    }
}

impl From<FlavorRow> for Flavor {
    fn from(row: FlavorRow) -> Self {
        let FlavorRow { id, name, vcpus, memory_mib, disk_gib, pinning, description, generation, created_at } = row;
        Self { id, name, size: Size { vcpus, memory_mib, disk_gib }, pinning, description, generation, created_at }
    }
}

impl Store {
    pub async fn flavor_find(&self, id: FlavorId) -> Result<Option<Flavor>, ReadError> {
        let sql = "SELECT id, name, vcpus, memory_mib, disk_gib, pinning, description, generation, created_at
            FROM flavor WHERE id = $1";
        let row: Option<FlavorRow> = self.pool().fetch_optional(sql, [id.into()]).await?;
        Ok(row.map(Flavor::from))
    }

    pub async fn flavor_find_by_name(&self, name: &str) -> Result<Option<Flavor>, ReadError> {
        let sql = "SELECT id, name, vcpus, memory_mib, disk_gib, pinning, description, generation, created_at
            FROM flavor WHERE name = $1";
        let row: Option<FlavorRow> = self.pool().fetch_optional(sql, [name.into()]).await?;
        Ok(row.map(Flavor::from))
    }

    pub async fn flavor_list(&self, page: Page) -> Result<Vec<Flavor>, ReadError> {
        let sql = "SELECT id, name, vcpus, memory_mib, disk_gib, pinning, description, generation, created_at
            FROM flavor WHERE id > $1 ORDER BY id LIMIT $2";
        let rows: Vec<FlavorRow> = self.pool().fetch_all(sql, [page.after_text().into(), page.limit.into()]).await?;
        Ok(rows.into_iter().map(Flavor::from).collect())
    }
}
