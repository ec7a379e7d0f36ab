//! How much of the host's storage one disk may use.
//!
//! Without a limit one guest that reads and writes as fast as it can makes every other guest of the host wait. QEMU's own limits (a leaky bucket
//! per disk) are used rather than the control group's `io.max`: that one needs the device below the file system to be found, misses what goes through the
//! page cache, and counts the reads of shared images for whoever comes first.
//!
//! The limits are set over QMP each time the agent connects to a QEMU, so that what an older agent started, or one with another
//! configuration, has them too. The guest runs without them for the milliseconds before that.

use crate::qmp::{
    QmpClient, QmpError,
    commands::{BlockDevice, DiskLimits},
};

/// Devices that stand on the command line or were plugged in are below this path.
const PERIPHERALS: &str = "/machine/peripheral/";

/// The devices whose limits are others. Pure.
fn differing(devices: &[BlockDevice], limits: DiskLimits) -> impl Iterator<Item = &str> {
    devices.iter().filter_map(move |device| {
        let (path, inserted) = (device.qdev.as_deref()?, device.inserted.as_ref()?);
        let found = DiskLimits { iops: inserted.iops, bytes_per_sec: inserted.bytes_per_sec };
        (path.starts_with(PERIPHERALS) && found != limits).then_some(path)
    })
}

/// Sets the limits of every disk that has others, and answers how many had.
pub async fn limit_disks(qmp: &QmpClient, limits: DiskLimits) -> Result<usize, QmpError> {
    let devices = qmp.query_block().await?;
    let mut changed = 0;
    for path in differing(&devices, limits) {
        qmp.block_set_io_throttle(path, limits).await?;
        changed += 1;
    }
    Ok(changed)
}
