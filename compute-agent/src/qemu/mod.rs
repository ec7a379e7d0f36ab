//! QEMU: its command line ([`argv`]), the memory it needs ([`overhead`]), the installed version ([`version`]), how it is started
//! ([`launch`]), how its process is identified ([`process`]), and which accelerator it uses ([`accel`], [`probe`]).

pub mod accel;
pub mod argv;
pub mod handover;
pub mod isolate;
pub mod keeper;
pub mod launch;
pub mod leftover;
pub mod overhead;
pub mod probe;
pub mod process;
pub mod shim;
pub mod socket;
pub mod throttle;
pub mod version;
