//! Floating IPs. Written by the resource-manager.

use crate::{Page, ReadError, Store, engine::read::text_array};
use core::net::IpAddr;
use domain::{ExternalNetworkId, FloatingIpId, PortId, ProjectId, Timestamp, network::FloatingIp};
use sqlx::AssertSqlSafe;

op! {
    /// Starts at generation 1.
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
    on floating_ip, Insert by (id):
    "INSERT INTO floating_ip (id, project_id, external_network_id, address, description, port_id, fixed_ip, generation,
        created_at)
     SELECT r.id, r.project_id, r.external_network_id, r.address, r.description, r.port_id, r.fixed_ip, 1, r.created_at
     FROM {rows}"
}

op! {
    /// Raises the generation.
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
     FROM {rows} WHERE floating_ip.id = r.id AND floating_ip.generation = r.expected_generation"
}

op! {
    /// Decided on this generation, as quota comes back with it.
    FloatingIpDelete { id: FloatingIpId, expected_generation: i64 }
    on floating_ip, Change by (id), guard FloatingIpGeneration:
    "DELETE FROM floating_ip WHERE (id, generation) IN (SELECT r.id, r.expected_generation FROM {rows})"
}

row! {
    struct FloatingIpRow {
        id: FloatingIpId,
        project_id: ProjectId,
        external_network_id: ExternalNetworkId,
        address: IpAddr,
        description: String,
        port_id: Option<PortId>,
        fixed_ip: Option<IpAddr>,
        generation: i64,
        created_at: Timestamp,
    }
}

impl From<FloatingIpRow> for FloatingIp {
    fn from(row: FloatingIpRow) -> Self {
        Self {
            id: row.id,
            project_id: row.project_id,
            external_network_id: row.external_network_id,
            address: row.address,
            description: row.description,
            port_id: row.port_id,
            fixed_ip: row.fixed_ip,
            generation: row.generation,
            created_at: row.created_at,
        }
    }
}

macro_rules! floating_ip_columns {
    ($rest:literal) => {
        concat!(
            "SELECT id, project_id, external_network_id, address, description, port_id, fixed_ip, generation, created_at ",
            "FROM floating_ip ",
            $rest
        )
    };
}

impl Store {
    pub async fn floating_ip_find(&self, id: FloatingIpId) -> Result<Option<FloatingIp>, ReadError> {
        let row: Option<FloatingIpRow> =
            self.pool().fetch_optional(floating_ip_columns!("WHERE id = $1"), [id.into()]).await?;
        Ok(row.map(FloatingIp::from))
    }

    /// Floating IPs have no names: their address says which. The oldest, should two external networks overlap.
    pub async fn floating_ip_find_by_address(
        &self,
        project_id: ProjectId,
        address: IpAddr,
    ) -> Result<Option<FloatingIp>, ReadError> {
        let sql = floating_ip_columns!("WHERE project_id = $1 AND address = $2 ORDER BY id LIMIT 1");
        let binds = [project_id.into(), address.to_string().into()];
        let row: Option<FloatingIpRow> = self.pool().fetch_optional(sql, binds).await?;
        Ok(row.map(FloatingIp::from))
    }

    pub async fn floating_ip_list(&self, project_id: ProjectId, page: Page) -> Result<Vec<FloatingIp>, ReadError> {
        let sql = floating_ip_columns!("WHERE project_id = $1 AND id > $2 ORDER BY id LIMIT $3");
        let binds = [project_id.into(), page.after_text().into(), page.limit.into()];
        let rows: Vec<FloatingIpRow> = self.pool().fetch_all(sql, binds).await?;
        Ok(rows.into_iter().map(FloatingIp::from).collect())
    }

    /// Those that stand for one of these ports, by id.
    pub async fn floating_ip_load_many_of_ports(&self, ids: &[PortId]) -> Result<Vec<FloatingIp>, ReadError> {
        let sql = format!(floating_ip_columns!("WHERE port_id {} ORDER BY id"), self.pool().in_texts(1));
        let rows: Vec<FloatingIpRow> = self.pool().fetch_all(AssertSqlSafe(sql), [text_array(ids)]).await?;
        Ok(rows.into_iter().map(FloatingIp::from).collect())
    }

    /// Of all projects, for the resource-manager's memory.
    pub async fn floating_ip_load_all(&self) -> Result<Vec<FloatingIp>, ReadError> {
        let rows: Vec<FloatingIpRow> = self.pool().fetch_all(floating_ip_columns!("ORDER BY id"), []).await?;
        Ok(rows.into_iter().map(FloatingIp::from).collect())
    }
}
