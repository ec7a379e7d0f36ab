//! Networks and all that is in them: which addresses are free (`ipam`), what a change comes to (`plan`, pure), and what each host must
//! know (`topology`).

pub mod ipam;
pub mod plan;
pub mod topology;
