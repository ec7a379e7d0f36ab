//! External networks: the operator's description of what hosts are wired to. Written by the resource-manager.

use crate::{Page, ReadError, Store};
use domain::{
    ExternalNetworkId, Name, Timestamp,
    network::{Cidr, ExternalNetwork, ExternalSubnet},
};

op! {
    /// The row starts at generation 1.
    ExternalNetworkInsert {
        id: ExternalNetworkId,
        name: Name,
        description: String,
        subnets: Vec<ExternalSubnet>,
        created_at: Timestamp,
    }
    on external_network, Insert by (id): insert { generation = "1" }
}

op! {
    /// This raises the generation.
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

/// How the database names a block of an external network.
#[must_use]
pub fn external_block_id(external_network_id: ExternalNetworkId, block: Cidr) -> String {
    format!("{external_network_id}/{block}")
}

op! {
    ExternalBlockInsert {
        /// It is made by [`external_block_id`].
        id: String,
        external_network_id: ExternalNetworkId,
    }
    on external_block, Insert by (id): insert
}

op! {
    /// Only when nobody has an address of it (else, or when it is gone already: `ExternalNetworkInUse`).
    ExternalBlockDelete { id: String }
    on external_block, Change by (id), guard ExternalNetworkInUse:
    "DELETE FROM external_block WHERE id IN (SELECT r.id FROM {rows})
     AND NOT EXISTS (SELECT 1 FROM address WHERE address.block_id = external_block.id)"
}

record! { ExternalNetwork, of external_network { id, name, description, subnets, generation, created_at } }

impl Store {
    pub async fn external_network_find(&self, id: ExternalNetworkId) -> Result<Option<ExternalNetwork>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    pub async fn external_network_find_by_name(&self, name: &str) -> Result<Option<ExternalNetwork>, ReadError> {
        self.pool().find("WHERE name = $1", [name.into()]).await
    }

    pub async fn external_network_list(&self, page: Page) -> Result<Vec<ExternalNetwork>, ReadError> {
        self.pool().page(None, page).await
    }
}
