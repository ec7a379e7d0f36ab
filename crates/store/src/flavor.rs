//! Flavors: named sizes. Written by the api-gateway. Instances keep the numbers, so deleting one changes no instance.

use crate::{Page, ReadError, Store};
use domain::{
    FlavorId, Name, Timestamp,
    flavor::{Flavor, Pinning, Size},
};

op! {
    /// The row starts at generation 1.
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
    on flavor, Insert by (id): insert { generation = "1" }
}

op! {
    FlavorDelete { id: FlavorId }
    on flavor, Change by (id):
    "DELETE FROM flavor WHERE id IN (SELECT r.id FROM {rows})"
}

row! {
    struct FlavorRow of flavor {
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

record! { Flavor, from FlavorRow }

impl Store {
    pub async fn flavor_find(&self, id: FlavorId) -> Result<Option<Flavor>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn flavor_find_by_name(&self, name: &str) -> Result<Option<Flavor>, ReadError> {
        self.pool().find("WHERE name = $1", [name.into()]).await
    }

    pub async fn flavor_list(&self, page: Page) -> Result<Vec<Flavor>, ReadError> {
        self.pool().page(None, page).await
    }
}
