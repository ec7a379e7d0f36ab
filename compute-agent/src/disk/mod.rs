//! An instance's disks: overlays on cached images ([`overlay`]), how they are erased ([`erase`]), the pool that hosts share ([`pool`]), and the config
//! drive ([`config_drive`], rendered by [`iso`]).

pub mod config_drive;
pub mod erase;
pub mod header;
pub mod iso;
pub mod overlay;
pub mod pool;
