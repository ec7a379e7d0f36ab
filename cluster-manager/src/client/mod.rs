//! The other managers as this service uses them.

pub mod coalesce;
pub mod resource;
pub mod storage;
