//! Flavors.

use super::names::PinningName;
use domain::{
    FlavorId, Name, Problem, Timestamp, Violations,
    flavor::{Flavor, Pinning, Size},
    validate,
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = Flavor)]
pub struct FlavorView {
    #[schema(value_type = String, format = "uuid")]
    pub id: FlavorId,
    #[schema(value_type = String)]
    pub name: Name,
    pub vcpus: u32,
    pub memory_mib: u64,
    /// 0: no root disk (for kernel images, which run from memory).
    pub disk_gib: u64,
    #[schema(value_type = PinningName)]
    pub pinning: Pinning,
    pub description: String,
    pub generation: i64,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
}

impl From<Flavor> for FlavorView {
    fn from(flavor: Flavor) -> Self {
        Self {
            id: flavor.id,
            name: flavor.name,
            vcpus: flavor.size.vcpus,
            memory_mib: flavor.size.memory_mib,
            disk_gib: flavor.size.disk_gib,
            pinning: flavor.pinning,
            description: flavor.description,
            generation: flavor.generation,
            created_at: flavor.created_at,
        }
    }
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct FlavorCreate {
    #[schema(value_type = String)]
    pub name: Name,
    pub vcpus: u32,
    pub memory_mib: u64,
    pub disk_gib: u64,
    /// `numa`: each vCPU of its instances gets a hardware thread of its own, all of one NUMA node, with memory of that node.
    #[schema(value_type = PinningName)]
    #[serde(default)]
    pub pinning: Pinning,
    #[serde(default)]
    pub description: String,
}

impl FlavorCreate {
    pub fn size(&self) -> Result<Size, Problem> {
        let size = Size { vcpus: self.vcpus, memory_mib: self.memory_mib, disk_gib: self.disk_gib };
        check_size(size).map(|()| size)
    }
}

/// Refuses sizes that no instance can have. Fields are named as they stand at the top of a body.
pub fn check_size(size: Size) -> Result<(), Problem> {
    let mut violations = Violations::default();
    validate::instance::size(&mut violations, "/", size);
    violations.finish()
}
