//! QEMU: what it is told ([`argv`]), what it costs ([`overhead`]), which one there is ([`version`]), how it is started
//! ([`launch`]), how it is told apart from every other process ([`process`]), and which accelerator serves ([`accel`],
//! [`probe`]).

pub mod accel;
pub mod argv;
pub mod handover;
pub mod launch;
pub mod leftover;
pub mod overhead;
pub mod probe;
pub mod process;
pub mod shim;
pub mod version;
