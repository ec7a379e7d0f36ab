//! Routers and uplinks: how networks leave to the outside. Written by the resource-manager.

use crate::{Page, ReadError, Store, engine::read::text_array};
use domain::{
    ExternalNetworkId, HostId, Name, NetworkId, ProjectId, RouterId, Timestamp,
    network::{MacAddr, Router},
};
use sqlx::AssertSqlSafe;

op! {
    /// Starts at generation 1.
    RouterInsert {
        id: RouterId,
        project_id: ProjectId,
        name: Name,
        network_id: NetworkId,
        external_network_id: ExternalNetworkId,
        source_nat: bool,
        created_at: Timestamp,
    }
    on router, Insert by (id):
    "INSERT INTO router (id, project_id, name, network_id, external_network_id, source_nat, generation, created_at)
     SELECT r.id, r.project_id, r.name, r.network_id, r.external_network_id, r.source_nat, 1, r.created_at FROM {rows}"
}

op! {
    /// Raises the generation.
    RouterUpdate { id: RouterId, expected_generation: i64, name: Name, source_nat: bool }
    on router, Change by (id), guard RouterGeneration:
    "UPDATE router SET name = r.name, source_nat = r.source_nat, generation = r.expected_generation + 1
     FROM {rows} WHERE router.id = r.id AND router.generation = r.expected_generation"
}

op! {
    /// Decided on this generation, as quota comes back with it.
    RouterDelete { id: RouterId, expected_generation: i64 }
    on router, Change by (id), guard RouterGeneration:
    "DELETE FROM router WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})"
}

op! {
    UplinkPut {
        network_id: NetworkId,
        host_id: HostId,
        external_network_id: ExternalNetworkId,
        /// With prefix lengths.
        addresses: Vec<String>,
        mac: MacAddr,
    }
    on uplink, Insert by (network_id, host_id):
    "INSERT INTO uplink (network_id, host_id, external_network_id, addresses, mac)
     SELECT r.network_id, r.host_id, r.external_network_id, r.addresses, r.mac FROM {rows} WHERE TRUE
     ON CONFLICT (network_id, host_id) DO UPDATE SET external_network_id = excluded.external_network_id,
        addresses = excluded.addresses, mac = excluded.mac"
}

op! {
    UplinkDelete { network_id: NetworkId, host_id: HostId }
    on uplink, Change by (network_id, host_id):
    "DELETE FROM uplink WHERE (network_id, host_id) IN (SELECT r.network_id, r.host_id FROM {rows})"
}

row! {
    struct RouterRow {
        id: RouterId,
        project_id: ProjectId,
        name: Name,
        network_id: NetworkId,
        external_network_id: ExternalNetworkId,
        source_nat: bool,
        generation: i64,
        created_at: Timestamp,
    }
}

row! {
    #[derive(Eq)]
    pub struct UplinkRow {
        pub network_id: NetworkId,
        pub host_id: HostId,
        pub external_network_id: ExternalNetworkId,
        /// With prefix lengths.
        pub addresses: Vec<String>,
        pub mac: MacAddr,
    }
}

impl From<RouterRow> for Router {
    fn from(row: RouterRow) -> Self {
        let RouterRow { id, project_id, name, network_id, external_network_id, source_nat, generation, created_at } =
            row;
        Self { id, project_id, name, network_id, external_network_id, source_nat, generation, created_at }
    }
}

macro_rules! router_columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, project_id, name, network_id, external_network_id, source_nat, generation, created_at FROM router ",
            $rest
        )
    };
}

impl Store {
    pub async fn router_find(&self, id: RouterId) -> Result<Option<Router>, ReadError> {
        let row: Option<RouterRow> = self.pool().fetch_optional(router_columns!("WHERE id = $1"), [id.into()]).await?;
        Ok(row.map(Router::from))
    }

    pub async fn router_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Router>, ReadError> {
        let sql = router_columns!("WHERE project_id = $1 AND name = $2");
        let row: Option<RouterRow> = self.pool().fetch_optional(sql, [project_id.into(), name.into()]).await?;
        Ok(row.map(Router::from))
    }

    pub async fn router_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Router>, ReadError> {
        let sql = router_columns!("WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let binds = [project_id.into(), page.after_text().into(), page.limit.into()];
        let rows: Vec<RouterRow> = self.pool().fetch_all(sql, binds).await?;
        Ok(rows.into_iter().map(Router::from).collect())
    }

    /// Of all these networks, by id.
    pub async fn router_load_many_of_networks(&self, ids: &[NetworkId]) -> Result<Vec<Router>, ReadError> {
        let sql = format!(router_columns!("WHERE network_id {} ORDER BY id"), self.pool().in_texts(1));
        let rows: Vec<RouterRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(ids)]).await?;
        Ok(rows.into_iter().map(Router::from).collect())
    }

    /// Of all projects, for the resource-manager's memory.
    pub async fn router_load_all(&self) -> Result<Vec<Router>, ReadError> {
        let rows: Vec<RouterRow> = self.pool().fetch_all(router_columns!("ORDER BY id"), []).await?;
        Ok(rows.into_iter().map(Router::from).collect())
    }

    pub async fn uplink_load_all(&self) -> Result<Vec<UplinkRow>, ReadError> {
        let sql =
            "SELECT network_id, host_id, external_network_id, addresses, mac FROM uplink ORDER BY network_id, host_id";
        self.pool().fetch_all(sql, []).await
    }
}
