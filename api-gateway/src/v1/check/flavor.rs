//! What a request may say of a new flavor. Pure.

use crate::app::flavor::FlavorRequest;
use api_types::FlavorCreate;
use domain::{Problem, Violations, flavor::Size, validate};

pub fn create(body: FlavorCreate) -> Result<FlavorRequest, Problem> {
    let FlavorCreate { name, vcpus, memory_mib, disk_gib, pinning, description } = body;
    let name = super::name("/name", &name)?;
    let size = Size { vcpus, memory_mib, disk_gib };
    let mut violations = Violations::default();
    validate::instance::size(&mut violations, "/", size);
    violations.finish()?;
    Ok(FlavorRequest { name, size, pinning, description })
}
