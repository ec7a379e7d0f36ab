//! CPUs that guests see, each once: a cloud has a handful, and a million instances name them. Written by the cluster-manager when a host
//! says hello; never removed, for an instance may outlive the last host of its kind.

use crate::{ReadError, Store};
use domain::cpu::CpuBaseline;

op! {
    /// A known one stays as it is: its id is its content's.
    CpuBaselinePut { id: String, document: CpuBaseline }
    on cpu_baseline, Insert by (id): insert
    "WHERE TRUE ON CONFLICT (id) DO NOTHING"
}

row! {
    pub struct CpuBaselineRow of cpu_baseline {
        pub id: String,
        pub document: CpuBaseline,
    }
}

impl Store {
    /// All of them, by id.
    pub async fn cpu_baseline_list(&self) -> Result<Vec<CpuBaselineRow>, ReadError> {
        self.pool().list("ORDER BY id", []).await
    }
}
