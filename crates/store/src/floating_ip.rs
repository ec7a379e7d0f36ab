//! Floating IPs. Written by the resource-manager.

use crate::{Page, ReadError, Store};
use core::net::IpAddr;
use domain::{ExternalNetworkId, FloatingIpId, PortId, ProjectId, Timestamp, network::FloatingIp};

op! {
    /// The row starts at generation 1. One that stands for a port needs a router from the port's network to its external network (else, or
    /// when the port is gone: `FloatingIpRoute`).
    FloatingIpInsert {
        id: FloatingIpId,
        project_id: ProjectId,
        external_network_id: ExternalNetworkId,
        address: IpAddr,
        description: String,
        port_id: Option<PortId>,
        fixed_ip: Option<IpAddr>,
        created_at: Timestamp,
    }
    on floating_ip, Insert by (id), guard FloatingIpRoute: insert { generation = "1" }
    "WHERE r.port_id IS NULL OR EXISTS (SELECT 1 FROM port JOIN router ON router.network_id = port.network_id
        WHERE port.id = r.port_id AND router.external_network_id = r.external_network_id)"
}

op! {
    /// This raises the generation. A port that it stands for needs a router as in [`FloatingIpInsert`].
    FloatingIpChange {
        id: FloatingIpId,
        expected_generation: i64,
        description: String,
        port_id: Option<PortId>,
        fixed_ip: Option<IpAddr>,
    }
    on floating_ip, Change by (id), guard FloatingIpGeneration:
    "UPDATE floating_ip SET description = r.description, port_id = r.port_id, fixed_ip = r.fixed_ip,
        generation = r.expected_generation + 1
     FROM {rows} WHERE floating_ip.id = r.id AND floating_ip.generation = r.expected_generation
     AND (r.port_id IS NULL OR EXISTS (SELECT 1 FROM port JOIN router ON router.network_id = port.network_id
        WHERE port.id = r.port_id AND router.external_network_id = floating_ip.external_network_id))"
}

op! {
    /// It is decided on this generation, since quota is released with it.
    FloatingIpDelete { id: FloatingIpId, expected_generation: i64 }
    on floating_ip, Change by (id), guard FloatingIpGeneration:
    "DELETE FROM floating_ip WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})"
}

record! {
    FloatingIp, of floating_ip {
        id, project_id, external_network_id, address, description, port_id, fixed_ip, generation, created_at
    }
}

impl Store {
    pub async fn floating_ip_find(&self, id: FloatingIpId) -> Result<Option<FloatingIp>, ReadError> {
        self.pool().find("WHERE id = $1", [id.into()]).await
    }

    /// Floating IPs have no names: their address says which. The oldest, should two external networks overlap.
    pub async fn floating_ip_find_by_address(
        &self,
        project_id: ProjectId,
        address: IpAddr,
    ) -> Result<Option<FloatingIp>, ReadError> {
        let sql = "WHERE project_id = $1 AND address = $2 ORDER BY id LIMIT 1";
        self.pool().find(sql, [project_id.into(), address.to_string().into()]).await
    }

    pub async fn floating_ip_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<FloatingIp>, ReadError> {
        self.pool().page(project_id, page).await
    }

    /// Those that stand for one of these ports, by id.
    pub async fn floating_ip_load_many_of_ports(&self, ids: &[PortId]) -> Result<Vec<FloatingIp>, ReadError> {
        self.pool().list_among("port_id", ids).await
    }

    /// All rows of all projects, for the resource-manager's memory.
    pub async fn floating_ip_load_all(&self) -> Result<Vec<FloatingIp>, ReadError> {
        self.pool().list("ORDER BY id", []).await
    }
}
