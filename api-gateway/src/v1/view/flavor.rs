//! Flavors.

pub use api_types::Flavor as FlavorView;

use super::names::PinningName;
use domain::{
    Name, Problem, Violations,
    flavor::{Pinning, Size},
    validate,
};
use serde::Deserialize;
use utoipa::ToSchema;

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
