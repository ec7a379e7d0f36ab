//! Images: what people may say of one. What its bytes may be is the storage-manager's.

use super::Violations;
use crate::{image::ImageKind, limits};

/// A kernel's command line reaches QEMU as one argument and the console as text, so it is printable ASCII.
pub fn cmdline(violations: &mut Violations, field: &str, kind: ImageKind, cmdline: &str) {
    let printable = cmdline.chars().all(|c| c == ' ' || c.is_ascii_graphic());
    let most = limits::KERNEL_CMDLINE_BYTES;
    violations.unless(cmdline.len() <= most && printable, field, || format!("printable ASCII of at most {most} bytes"));
    let kernel = kind == ImageKind::Kernel || cmdline.is_empty();
    violations.unless(kernel, field, || "only kernel images have one".to_owned());
}

pub fn min_memory_mib(violations: &mut Violations, field: &str, memory_mib: u64) {
    let most = limits::MEMORY_MIB_MAX;
    violations.unless(memory_mib <= most, field, || format!("at most {most}"));
}
