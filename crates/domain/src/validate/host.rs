//! Hosts: what an operator may decide about one.

use super::Violations;
use crate::limits;

/// Ratios of what guests are promised to what the host has, in thousandths. The gateway takes them as fractions.
pub fn overcommit(
    violations: &mut Violations,
    at: &str,
    cpu_permille: Option<u32>,
    memory_permille: Option<u32>,
    disk_permille: Option<u32>,
) {
    for (field, permille, bounds) in [
        ("cpu_overcommit", cpu_permille, limits::CPU_OVERCOMMIT_PERMILLE),
        ("memory_overcommit", memory_permille, limits::MEMORY_OVERCOMMIT_PERMILLE),
        ("disk_overcommit", disk_permille, limits::DISK_OVERCOMMIT_PERMILLE),
    ] {
        let (least, most) = (f64::from(*bounds.start()) / 1000.0, f64::from(*bounds.end()) / 1000.0);
        let fits = permille.is_none_or(|permille| bounds.contains(&permille));
        violations.unless(fits, &format!("{at}{field}"), || format!("{least} to {most}"));
    }
}
