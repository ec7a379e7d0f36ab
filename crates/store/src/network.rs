//! Networks, their subnets, and which projects got their defaults. Written by the resource-manager.
//!
//! A network's generation rises with its subnets, router and peerings: those changes carry a [`NetworkBump`], so two that would overlap
//! can't both commit.

use crate::{Page, ReadError, Store};
use domain::{
    Name, NetworkId, ProjectId, SubnetId, Timestamp,
    network::{Network, Subnet, SubnetSpec, Vni},
};

op! {
    /// The row starts at generation 1.
    NetworkInsert {
        id: NetworkId,
        project_id: ProjectId,
        name: Name,
        description: String,
        vni: Vni,
        mtu: Option<u32>,
        created_at: Timestamp,
    }
    on network, Insert by (id): insert { generation = "1" }
}

op! {
    /// This raises the generation.
    NetworkChange { id: NetworkId, expected_generation: i64, name: Name, description: String }
    on network, Change by (id), guard NetworkGeneration:
    "UPDATE network SET name = r.name, description = r.description, generation = r.expected_generation + 1
     FROM {rows} WHERE network.id = r.id AND network.generation = r.expected_generation"
}

op! {
    /// Something that hosts are told with the network changes: raises the generation.
    NetworkBump { id: NetworkId, expected_generation: i64 }
    on network, Change by (id), guard NetworkGeneration:
    "UPDATE network SET generation = r.expected_generation + 1
     FROM {rows} WHERE network.id = r.id AND network.generation = r.expected_generation"
}

op! {
    /// Only without ports, router and peerings (else, or when it is gone or changed: `NetworkInUse`). Subnets and uplinks go with it.
    NetworkDelete { id: NetworkId, expected_generation: i64 }
    on network, Change by (id), guard NetworkInUse:
    "DELETE FROM network WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM port WHERE port.network_id = network.id)
     AND NOT EXISTS (SELECT 1 FROM router WHERE router.network_id = network.id)
     AND NOT EXISTS (SELECT 1 FROM peering WHERE peering.network_id = network.id)
     AND NOT EXISTS (SELECT 1 FROM peering WHERE peering.peer_network_id = network.id)"
}

op! {
    /// The row starts at generation 1.
    SubnetInsert {
        id: SubnetId,
        project_id: ProjectId,
        network_id: NetworkId,
        name: Name,
        spec: SubnetSpec,
        dhcp: bool,
        created_at: Timestamp,
    }
    on subnet, Insert by (id): insert { generation = "1" }
}

op! {
    /// This raises the generation.
    SubnetUpdate { id: SubnetId, expected_generation: i64, name: Name, spec: SubnetSpec, dhcp: bool }
    on subnet, Change by (id), guard SubnetGeneration:
    "UPDATE subnet SET name = r.name, spec = r.spec, dhcp = r.dhcp, generation = r.expected_generation + 1
     FROM {rows} WHERE subnet.id = r.id AND subnet.generation = r.expected_generation"
}

op! {
    /// Only when nobody has an address of it (else, or when it is gone or changed: `SubnetInUse`).
    SubnetDelete { id: SubnetId, expected_generation: i64 }
    on subnet, Change by (id), guard SubnetInUse:
    "DELETE FROM subnet WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM address WHERE address.subnet_id = subnet.id AND address.free_at IS NULL)"
}

op! {
    /// The project got its defaults: once, whatever becomes of them.
    ProjectNetworkDefaultInsert { project_id: ProjectId, made_at: Timestamp }
    on project_network_default, Insert by (project_id): insert
}

record! { Network, of network { id, project_id, name, description, vni, mtu, generation, created_at } }

record! { Subnet, of subnet { id, project_id, network_id, name, spec, dhcp, generation, created_at } }

row! {
    struct DefaultRow { id: ProjectId, made: i64 }
}

impl Store {
    pub async fn network_find(&self, id: NetworkId) -> Result<Option<Network>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn network_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Network>, ReadError> {
        self.pool().find("WHERE project_id = $1 AND name = $2", [project_id.into(), name.into()]).await
    }

    pub async fn network_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Network>, ReadError> {
        self.pool().page(project_id, page).await
    }

    /// Rows of all projects.
    pub async fn network_list_all(&self, page: Page) -> Result<Vec<Network>, ReadError> {
        self.pool().page(None, page).await
    }

    /// All rows of all projects, for the resource-manager's memory.
    pub async fn network_load_all(&self) -> Result<Vec<Network>, ReadError> {
        self.pool().list("ORDER BY id", []).await
    }

    pub async fn subnet_find(&self, id: SubnetId) -> Result<Option<Subnet>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    /// Names of subnets are unique in their network; the oldest of that name in the project.
    pub async fn subnet_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Subnet>, ReadError> {
        let sql = "WHERE project_id = $1 AND name = $2 ORDER BY id LIMIT 1";
        self.pool().find(sql, [project_id.into(), name.into()]).await
    }

    /// All of that name in the project, the oldest first.
    pub async fn subnet_list_by_name(&self, project_id: ProjectId, name: &str) -> Result<Vec<Subnet>, ReadError> {
        self.pool().list("WHERE project_id = $1 AND name = $2 ORDER BY id", [project_id.into(), name.into()]).await
    }

    pub async fn subnet_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Subnet>, ReadError> {
        self.pool().page(project_id, page).await
    }

    pub async fn subnet_list_of_network(&self, network_id: NetworkId) -> Result<Vec<Subnet>, ReadError> {
        self.pool().list("WHERE network_id = $1 ORDER BY id", [network_id.into()]).await
    }

    /// All that belong to these networks, by id.
    pub async fn subnet_load_many_of_networks(&self, ids: &[NetworkId]) -> Result<Vec<Subnet>, ReadError> {
        self.pool().list_among("network_id", ids).await
    }

    /// All rows of all projects, for the resource-manager's memory.
    pub async fn subnet_load_all(&self) -> Result<Vec<Subnet>, ReadError> {
        self.pool().list("ORDER BY id", []).await
    }

    /// A page of projects, by id: for each whether it got its defaults.
    pub async fn project_network_default_list(
        &self,
        after: Option<ProjectId>,
        limit: u32,
    ) -> Result<Vec<(ProjectId, bool)>, ReadError> {
        let sql = "SELECT p.id, (SELECT count(*) FROM project_network_default AS d WHERE d.project_id = p.id) AS made
            FROM project AS p WHERE p.id > $1 ORDER BY p.id LIMIT $2";
        let after = after.map(|id| id.to_string()).unwrap_or_default();
        let rows: Vec<DefaultRow> = self.pool().fetch_all(sql, [after.into(), limit.into()]).await?;
        Ok(rows.into_iter().map(|row| (row.id, row.made > 0)).collect())
    }
}
