//! External networks: the operator's description of what hosts are wired to. Written by the resource-manager.

use crate::{Page, ReadError, Store};
use domain::{
    ExternalNetworkId, Name, Timestamp,
    network::{ExternalNetwork, ExternalSubnet},
};

op! {
    /// Starts at generation 1.
    ExternalNetworkInsert {
        id: ExternalNetworkId,
        name: Name,
        description: String,
        subnets: Vec<ExternalSubnet>,
        created_at: Timestamp,
    }
    on external_network, Insert by (id):
    "INSERT INTO external_network (id, name, description, subnets, generation, created_at)
     SELECT r.id, r.name, r.description, r.subnets, 1, r.created_at FROM {rows}"
}

op! {
    /// Raises the generation.
    ExternalNetworkChange {
        id: ExternalNetworkId,
        expected_generation: i64,
        description: String,
        subnets: Vec<ExternalSubnet>,
    }
    on external_network, Change by (id), guard ExternalNetworkGeneration:
    "UPDATE external_network SET description = r.description, subnets = r.subnets, generation = r.expected_generation + 1
     FROM {rows} WHERE external_network.id = r.id AND external_network.generation = r.expected_generation"
}

op! {
    /// Only when no router leads to it and no floating IP is of it (else, or when it is gone already: `ExternalNetworkInUse`).
    ExternalNetworkDelete { id: ExternalNetworkId }
    on external_network, Change by (id), guard ExternalNetworkInUse:
    "DELETE FROM external_network WHERE id IN (SELECT r.id FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM router WHERE router.external_network_id = external_network.id)
     AND NOT EXISTS (SELECT 1 FROM uplink WHERE uplink.external_network_id = external_network.id)
     AND NOT EXISTS (SELECT 1 FROM floating_ip WHERE floating_ip.external_network_id = external_network.id)"
}

row! {
    struct ExternalNetworkRow {
        id: ExternalNetworkId,
        name: Name,
        description: String,
        subnets: Vec<ExternalSubnet>,
        generation: i64,
        created_at: Timestamp,
    }
}

impl From<ExternalNetworkRow> for ExternalNetwork {
    fn from(row: ExternalNetworkRow) -> Self {
        let ExternalNetworkRow { id, name, description, subnets, generation, created_at } = row;
        Self { id, name, description, subnets, generation, created_at }
    }
}

macro_rules! external_network_columns {
    ($rest:literal) => {
        concat!("SELECT id, name, description, subnets, generation, created_at FROM external_network ", $rest)
    };
}

impl Store {
    pub async fn external_network_find(&self, id: ExternalNetworkId) -> Result<Option<ExternalNetwork>, ReadError> {
        let row: Option<ExternalNetworkRow> =
            self.pool().fetch_optional(external_network_columns!("WHERE id = $1"), [id.into()]).await?;
        Ok(row.map(ExternalNetwork::from))
    }

    pub async fn external_network_find_by_name(&self, name: &str) -> Result<Option<ExternalNetwork>, ReadError> {
        let row: Option<ExternalNetworkRow> =
            self.pool().fetch_optional(external_network_columns!("WHERE name = $1"), [name.into()]).await?;
        Ok(row.map(ExternalNetwork::from))
    }

    pub async fn external_network_list(&self, page: Page) -> Result<Vec<ExternalNetwork>, ReadError> {
        let sql = external_network_columns!("WHERE id > $1 ORDER BY id LIMIT $2");
        let rows: Vec<ExternalNetworkRow> =
            self.pool().fetch_all(sql, [page.after_text().into(), page.limit.into()]).await?;
        Ok(rows.into_iter().map(ExternalNetwork::from).collect())
    }
}
