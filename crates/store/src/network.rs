//! Networks, their subnets, and which projects got their defaults. Written by the resource-manager.
//!
//! A network's generation rises with its subnets, router and peerings: those changes carry a [`NetworkBump`], so two that would overlap
//! can't both commit.

use crate::{Page, ReadError, Store, engine::read::text_array};
use domain::{
    Name, NetworkId, ProjectId, SubnetId, Timestamp,
    network::{Network, Subnet, SubnetSpec, Vni},
};
use sqlx::AssertSqlSafe;

op! {
    /// Starts at generation 1.
    NetworkInsert {
        id: NetworkId,
        project_id: ProjectId,
        name: Name,
        description: String,
        vni: Vni,
        mtu: Option<u32>,
        created_at: Timestamp,
    }
    on network, Insert by (id):
    "INSERT INTO network (id, project_id, name, description, vni, mtu, generation, created_at)
     SELECT r.id, r.project_id, r.name, r.description, r.vni, r.mtu, 1, r.created_at FROM {rows}"
}

op! {
    /// Raises the generation.
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
    /// Starts at generation 1.
    SubnetInsert {
        id: SubnetId,
        project_id: ProjectId,
        network_id: NetworkId,
        name: Name,
        spec: SubnetSpec,
        dhcp: bool,
        created_at: Timestamp,
    }
    on subnet, Insert by (id):
    "INSERT INTO subnet (id, project_id, network_id, name, spec, dhcp, generation, created_at)
     SELECT r.id, r.project_id, r.network_id, r.name, r.spec, r.dhcp, 1, r.created_at FROM {rows}"
}

op! {
    /// Raises the generation.
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
    on project_network_default, Insert by (project_id):
    "INSERT INTO project_network_default (project_id, made_at) SELECT r.project_id, r.made_at FROM {rows}"
}

row! {
    struct NetworkRow {
        id: NetworkId,
        project_id: ProjectId,
        name: Name,
        description: String,
        vni: Vni,
        mtu: Option<u32>,
        generation: i64,
        created_at: Timestamp,
    }
}

row! {
    struct SubnetRow {
        id: SubnetId,
        project_id: ProjectId,
        network_id: NetworkId,
        name: Name,
        spec: SubnetSpec,
        dhcp: bool,
        generation: i64,
        created_at: Timestamp,
    }
}

row! {
    struct ProjectIdRow { id: ProjectId }
}

impl From<NetworkRow> for Network {
    fn from(row: NetworkRow) -> Self {
        let NetworkRow { id, project_id, name, description, vni, mtu, generation, created_at } = row;
        Self { id, project_id, name, description, vni, mtu, generation, created_at }
    }
}

impl From<SubnetRow> for Subnet {
    fn from(row: SubnetRow) -> Self {
        let SubnetRow { id, project_id, network_id, name, spec, dhcp, generation, created_at } = row;
        Self { id, project_id, network_id, name, spec, dhcp, generation, created_at }
    }
}

macro_rules! network_columns {
    ($rest:literal) => {
        concat!("SELECT id, project_id, name, description, vni, mtu, generation, created_at FROM network ", $rest)
    };
}

macro_rules! subnet_columns {
    ($rest:literal) => {
        concat!("SELECT id, project_id, network_id, name, spec, dhcp, generation, created_at FROM subnet ", $rest)
    };
}

impl Store {
    pub async fn network_find(&self, id: NetworkId) -> Result<Option<Network>, ReadError> {
        let row: Option<NetworkRow> =
            self.pool().fetch_optional(network_columns!("WHERE id = $1"), [id.into()]).await?;
        Ok(row.map(Network::from))
    }

    pub async fn network_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Network>, ReadError> {
        let sql = network_columns!("WHERE project_id = $1 AND name = $2");
        let row: Option<NetworkRow> = self.pool().fetch_optional(sql, [project_id.into(), name.into()]).await?;
        Ok(row.map(Network::from))
    }

    pub async fn network_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Network>, ReadError> {
        let sql = network_columns!("WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let binds = [project_id.into(), page.after_text().into(), page.limit.into()];
        let rows: Vec<NetworkRow> = self.pool().fetch_all(sql, binds).await?;
        Ok(rows.into_iter().map(Network::from).collect())
    }

    /// Of all projects, for the resource-manager's memory.
    pub async fn network_load_all(&self) -> Result<Vec<Network>, ReadError> {
        let rows: Vec<NetworkRow> = self.pool().fetch_all(network_columns!("ORDER BY id"), []).await?;
        Ok(rows.into_iter().map(Network::from).collect())
    }

    pub async fn subnet_find(&self, id: SubnetId) -> Result<Option<Subnet>, ReadError> {
        let row: Option<SubnetRow> = self.pool().fetch_optional(subnet_columns!("WHERE id = $1"), [id.into()]).await?;
        Ok(row.map(Subnet::from))
    }

    /// Names of subnets are unique in their network; the oldest of that name in the project.
    pub async fn subnet_find_by_name(&self, project_id: ProjectId, name: &str) -> Result<Option<Subnet>, ReadError> {
        let sql = subnet_columns!("WHERE project_id = $1 AND name = $2 ORDER BY id LIMIT 1");
        let row: Option<SubnetRow> = self.pool().fetch_optional(sql, [project_id.into(), name.into()]).await?;
        Ok(row.map(Subnet::from))
    }

    /// All of that name in the project, the oldest first.
    pub async fn subnet_list_by_name(&self, project_id: ProjectId, name: &str) -> Result<Vec<Subnet>, ReadError> {
        let sql = subnet_columns!("WHERE project_id = $1 AND name = $2 ORDER BY id");
        let rows: Vec<SubnetRow> = self.pool().fetch_all(sql, [project_id.into(), name.into()]).await?;
        Ok(rows.into_iter().map(Subnet::from).collect())
    }

    pub async fn subnet_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<Subnet>, ReadError> {
        let sql = subnet_columns!("WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let binds = [project_id.into(), page.after_text().into(), page.limit.into()];
        let rows: Vec<SubnetRow> = self.pool().fetch_all(sql, binds).await?;
        Ok(rows.into_iter().map(Subnet::from).collect())
    }

    pub async fn subnet_list_of_network(&self, network_id: NetworkId) -> Result<Vec<Subnet>, ReadError> {
        let sql = subnet_columns!("WHERE network_id = $1 ORDER BY id");
        let rows: Vec<SubnetRow> = self.pool().fetch_all(sql, [network_id.into()]).await?;
        Ok(rows.into_iter().map(Subnet::from).collect())
    }

    /// Of all these networks, by id.
    pub async fn subnet_load_many_of_networks(&self, ids: &[NetworkId]) -> Result<Vec<Subnet>, ReadError> {
        let sql = format!(subnet_columns!("WHERE network_id {} ORDER BY id"), self.pool().in_texts(1));
        let rows: Vec<SubnetRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(ids)]).await?;
        Ok(rows.into_iter().map(Subnet::from).collect())
    }

    /// Of all projects, for the resource-manager's memory.
    pub async fn subnet_load_all(&self) -> Result<Vec<Subnet>, ReadError> {
        let rows: Vec<SubnetRow> = self.pool().fetch_all(subnet_columns!("ORDER BY id"), []).await?;
        Ok(rows.into_iter().map(Subnet::from).collect())
    }

    /// Projects that haven't got their defaults yet, the oldest first.
    pub async fn project_without_network_default(&self, limit: u32) -> Result<Vec<ProjectId>, ReadError> {
        let sql = "SELECT id FROM project WHERE NOT EXISTS (SELECT 1 FROM project_network_default AS d
            WHERE d.project_id = project.id) ORDER BY id LIMIT $1";
        let rows: Vec<ProjectIdRow> = self.pool().fetch_all(sql, [limit.into()]).await?;
        Ok(rows.into_iter().map(|row| row.id).collect())
    }
}
