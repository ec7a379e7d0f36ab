//! Which processes lead the managers' roles, and which wait to: as the database has it.

use crate::{app::App, failure::ApiError};
use domain::Timestamp;
use store::{ManagerLease, ManagerStandby};

/// A standby says that it is there every five seconds.
const STANDBY_SILENT_MS: i64 = 20_000;

pub struct Managers {
    /// Of each role that was ever led, with whether nobody leads it now.
    pub leases: Vec<(ManagerLease, bool)>,
    pub standbys: Vec<ManagerStandby>,
}

pub async fn list(app: &App) -> Result<Managers, ApiError> {
    let now = Timestamp::now();
    let leases = app.store().manager_lease_list().await?;
    let leases = leases.into_iter().map(|lease| {
        let vacant = lease.vacant(now);
        (lease, vacant)
    });
    let standbys = app.store().manager_standby_list(Timestamp(now.0 - STANDBY_SILENT_MS)).await?;
    Ok(Managers { leases: leases.collect(), standbys })
}
