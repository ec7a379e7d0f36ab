//! Peerings of networks. Written by the resource-manager; each change carries a [`crate::NetworkBump`] of both networks.

use crate::{Page, ReadError, Store, engine::read::text_array};
use domain::{Name, NetworkId, PeeringId, ProjectId, Timestamp, network::Peering};
use sqlx::AssertSqlSafe;

op! {
    /// Starts at generation 1. The lower id first.
    PeeringInsert {
        id: PeeringId,
        project_id: ProjectId,
        name: Name,
        network_id: NetworkId,
        peer_network_id: NetworkId,
        created_at: Timestamp,
    }
    on peering, Insert by (id):
    "INSERT INTO peering (id, project_id, name, network_id, peer_network_id, generation, created_at)
     SELECT r.id, r.project_id, r.name, r.network_id, r.peer_network_id, 1, r.created_at FROM {rows}"
}

op! {
    /// Guarded, as quota comes back with it.
    PeeringDelete { id: PeeringId, expected_generation: i64 }
    on peering, Change by (id), guard PeeringGeneration:
    "DELETE FROM peering WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})"
}

row! {
    struct PeeringRow {
        id: PeeringId,
        project_id: ProjectId,
        name: Name,
        network_id: NetworkId,
        peer_network_id: NetworkId,
        generation: i64,
        created_at: Timestamp,
    }
}

impl From<PeeringRow> for Peering {
    fn from(row: PeeringRow) -> Self {
        let PeeringRow { id, project_id, name, network_id, peer_network_id, generation, created_at } = row;
        Self { id, project_id, name, network_id, peer_network_id, generation, created_at }
    }
}

macro_rules! peering_columns {
    ($rest:literal) => {
        concat!("SELECT id, project_id, name, network_id, peer_network_id, generation, created_at FROM peering ", $rest)
    };
}

impl Store {
    pub async fn peering_find(&self, id: PeeringId) -> Result<Option<Peering>, ReadError> {
        let row: Option<PeeringRow> =
            self.pool().fetch_optional(peering_columns!("WHERE id = $1"), [id.into()]).await?;
        Ok(row.map(Peering::from))
    }

    pub async fn peering_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Peering>, ReadError> {
        let sql = peering_columns!("WHERE project_id = $1 AND name = $2");
        let row: Option<PeeringRow> = self.pool().fetch_optional(sql, [project_id.into(), name.into()]).await?;
        Ok(row.map(Peering::from))
    }

    pub async fn peering_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Peering>, ReadError> {
        let sql = peering_columns!("WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let binds = [project_id.into(), page.after_text().into(), page.limit.into()];
        let rows: Vec<PeeringRow> = self.pool().fetch_all(sql, binds).await?;
        Ok(rows.into_iter().map(Peering::from).collect())
    }

    /// Those that one of these networks is an end of, by id.
    pub async fn peering_load_many_of_networks(&self, ids: &[NetworkId]) -> Result<Vec<Peering>, ReadError> {
        let sql = format!(
            peering_columns!("WHERE network_id {} OR peer_network_id {} ORDER BY id"),
            self.pool().in_texts(1),
            self.pool().in_texts(1)
        );
        let rows: Vec<PeeringRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(ids)]).await?;
        Ok(rows.into_iter().map(Peering::from).collect())
    }

    /// Of all projects, for the resource-manager's memory.
    pub async fn peering_load_all(&self) -> Result<Vec<Peering>, ReadError> {
        let rows: Vec<PeeringRow> = self.pool().fetch_all(peering_columns!("ORDER BY id"), []).await?;
        Ok(rows.into_iter().map(Peering::from).collect())
    }
}
