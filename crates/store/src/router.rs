//! Routers and uplinks: how networks leave to the outside. Written by the resource-manager.

use crate::{Page, ReadError, Store};
use domain::{
    ExternalNetworkId, HostId, Name, NetworkId, ProjectId, RouterId, Timestamp,
    network::{MacAddr, Router},
};

op! {
    /// The row starts at generation 1.
    RouterInsert {
        id: RouterId,
        project_id: ProjectId,
        name: Name,
        network_id: NetworkId,
        external_network_id: ExternalNetworkId,
        source_nat: bool,
        created_at: Timestamp,
    }
    on router, Insert by (id): insert { generation = "1" }
}

op! {
    /// This raises the generation.
    RouterUpdate { id: RouterId, expected_generation: i64, name: Name, source_nat: bool }
    on router, Change by (id), guard RouterGeneration:
    "UPDATE router SET name = r.name, source_nat = r.source_nat, generation = r.expected_generation + 1
     FROM {rows} WHERE router.id = r.id AND router.generation = r.expected_generation"
}

op! {
    /// It is decided on this generation, since quota is released with it. Not while a floating IP stands for a port of its network.
    RouterDelete { id: RouterId, expected_generation: i64 }
    on router, Change by (id), guard RouterGeneration:
    "DELETE FROM router WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM port JOIN floating_ip ON floating_ip.port_id = port.id
        WHERE port.network_id = router.network_id)"
}

op! {
    UplinkPut {
        network_id: NetworkId,
        host_id: HostId,
        external_network_id: ExternalNetworkId,
        /// The addresses have prefix lengths.
        addresses: Vec<String>,
        mac: MacAddr,
    }
    on uplink, Insert by (network_id, host_id): insert
    "WHERE TRUE ON CONFLICT (network_id, host_id) DO UPDATE SET external_network_id = excluded.external_network_id, addresses = excluded.addresses, mac = excluded.mac"
}

op! {
    UplinkDelete { network_id: NetworkId, host_id: HostId }
    on uplink, Change by (network_id, host_id):
    "DELETE FROM uplink WHERE (network_id, host_id) IN (SELECT r.network_id, r.host_id FROM {rows})"
}

record! {
    Router, of router {
        id, project_id, name, network_id, external_network_id, source_nat, generation, created_at
    }
}

row! {
    #[derive(Eq)]
    pub struct UplinkRow of uplink {
        pub network_id: NetworkId,
        pub host_id: HostId,
        pub external_network_id: ExternalNetworkId,
        /// The addresses have prefix lengths.
        pub addresses: Vec<String>,
        pub mac: MacAddr,
    }
}

impl Store {
    pub async fn router_find(&self, id: RouterId) -> Result<Option<Router>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn router_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Router>, ReadError> {
        self.pool().find("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await
    }

    pub async fn router_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Router>, ReadError> {
        self.pool().page(project_id, page).await
    }

    /// All that belong to these networks, by id.
    pub async fn router_load_many_of_networks(&self, ids: &[NetworkId]) -> Result<Vec<Router>, ReadError> {
        self.pool().list_among("network_id", ids).await
    }

    /// All rows of all projects, for the resource-manager's memory.
    pub async fn router_load_all(&self) -> Result<Vec<Router>, ReadError> {
        self.pool().list("ORDER BY id", []).await
    }

    pub async fn uplink_load_all(&self) -> Result<Vec<UplinkRow>, ReadError> {
        self.pool().list("ORDER BY network_id, host_id", []).await
    }
}
