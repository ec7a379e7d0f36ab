//! An instance's disks on a local file system: overlays on cached images ([`overlay`]), how they are erased ([`erase`]), and the config
//! drive ([`config_drive`], rendered by [`iso`]).

pub mod config_drive;
pub mod erase;
pub mod header;
pub mod iso;
pub mod overlay;
