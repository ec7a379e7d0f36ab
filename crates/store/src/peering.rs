//! Peerings of networks. Written by the resource-manager; each change carries a [`crate::NetworkBump`] of both networks.

use crate::{Page, ReadError, Store, engine::read::text_array};
use domain::{Name, NetworkId, PeeringId, ProjectId, Timestamp, network::Peering};

op! {
    /// The row starts at generation 1. The lower id first.
    PeeringInsert {
        id: PeeringId,
        project_id: ProjectId,
        name: Name,
        network_id: NetworkId,
        peer_network_id: NetworkId,
        created_at: Timestamp,
    }
    on peering, Insert by (id): insert { generation = "1" }
}

op! {
    /// It is guarded, since quota is released with it.
    PeeringDelete { id: PeeringId, expected_generation: i64 }
    on peering, Change by (id), guard PeeringGeneration:
    "DELETE FROM peering WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})"
}

record! { Peering, of peering { id, project_id, name, network_id, peer_network_id, generation, created_at } }

impl Store {
    pub async fn peering_find(&self, id: PeeringId) -> Result<Option<Peering>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn peering_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Peering>, ReadError> {
        self.pool().find("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await
    }

    pub async fn peering_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Peering>, ReadError> {
        self.pool().page(project_id, page).await
    }

    /// Those that one of these networks is an end of, by id.
    pub async fn peering_load_many_of_networks(&self, ids: &[NetworkId]) -> Result<Vec<Peering>, ReadError> {
        let among = self.pool().in_texts(1);
        let sql = format!("WHERE network_id {among} OR peer_network_id {among} ORDER BY id");
        self.pool().list(&sql, [text_array(ids)]).await
    }

    /// All rows of all projects, for the resource-manager's memory.
    pub async fn peering_load_all(&self) -> Result<Vec<Peering>, ReadError> {
        self.pool().list("ORDER BY id", []).await
    }
}
