//! How many more instances the cloud can take, for system admins.

pub use api_types::{Capacity as CapacityView, RebalancePlan as RebalancePlanView, ZoneCapacity as ZoneCapacityView};
