//! Orphans: what a host runs and the database doesn't know. Written by the cluster-manager; kept and shown until the host says that it is
//! gone, or the instance is known again.

use crate::{
    ReadError, Store,
    engine::read::{Count, text_array},
};
use domain::{HostId, InstanceId, Timestamp};

op! {
    OrphanPut { host_id: HostId, instance_id: InstanceId, epoch: i64, detail: String, last_seen_at: Timestamp }
    on orphan, Insert by (host_id, instance_id): insert
    "WHERE TRUE ON CONFLICT (host_id, instance_id) DO UPDATE SET epoch = excluded.epoch, detail = excluded.detail, last_seen_at = excluded.last_seen_at"
}

op! {
    OrphanDelete { host_id: HostId, instance_id: InstanceId }
    on orphan, Change by (host_id, instance_id):
    "DELETE FROM orphan WHERE (host_id, instance_id) IN (SELECT r.host_id, r.instance_id FROM {rows})"
}

row! {
    pub struct OrphanRow of orphan {
        pub host_id: HostId,
        pub instance_id: InstanceId,
        pub epoch: i64,
        pub detail: String,
        pub last_seen_at: Timestamp,
    }
}

impl Store {
    /// Those of some hosts, at most 1,000.
    pub async fn orphan_list_of_hosts(&self, hosts: &[HostId]) -> Result<Vec<OrphanRow>, ReadError> {
        let sql = format!("WHERE host_id {} ORDER BY host_id, instance_id LIMIT 1000", self.pool().in_texts(1));
        self.pool().list(&sql, [text_array(hosts)]).await
    }

    pub async fn orphan_count(&self) -> Result<i64, ReadError> {
        let count: Count = self.pool().fetch_one("SELECT count(*) AS n FROM orphan", []).await?;
        Ok(count.n)
    }
}
