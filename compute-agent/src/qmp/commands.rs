//! The commands that the agent uses, typed. What QEMU refuses is a [`QmpError::Refused`].

use std::os::fd::OwnedFd;
use std::time::Duration;

use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};

use super::client::{COMMAND_TIMEOUT, QmpClient, QmpError};

/// The state of the machine that QEMU reports; the names are QEMU's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RunState {
    Running,
    /// The machine was stopped by `stop`.
    Paused,
    /// The machine was started with `-S` and hasn't run yet.
    Prelaunch,
    /// The guest has powered itself off.
    Shutdown,
    GuestPanicked,
    /// The guest's watchdog expired.
    Watchdog,
    /// A disk error stopped the machine; most often the host's disk is full.
    IoError,
    /// KVM couldn't continue.
    InternalError,
    Suspended,
    /// A state that isn't used here, or of a newer QEMU.
    Other(String),
}

impl RunState {
    fn parse(name: &str) -> Self {
        match name {
            "running" => Self::Running,
            "paused" => Self::Paused,
            "prelaunch" => Self::Prelaunch,
            "shutdown" => Self::Shutdown,
            "guest-panicked" => Self::GuestPanicked,
            "watchdog" => Self::Watchdog,
            "io-error" => Self::IoError,
            "internal-error" => Self::InternalError,
            "suspended" => Self::Suspended,
            other => Self::Other(other.into()),
        }
    }

    /// Whether the guest has ended, so that only `system_reset` or `quit` can follow.
    pub fn ended(&self) -> bool {
        match self {
            Self::Shutdown | Self::GuestPanicked | Self::Watchdog | Self::InternalError => true,
            Self::Running | Self::Paused | Self::Prelaunch | Self::IoError | Self::Suspended | Self::Other(_) => false,
        }
    }
}

impl<'de> Deserialize<'de> for RunState {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(|name| Self::parse(&name))
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Status {
    #[serde(rename = "status")]
    pub state: RunState,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Cpu {
    pub cpu_index: u32,
    /// The host's thread id, in QEMU's PID namespace.
    pub thread_id: i32,
}

/// One device with a disk, from `query-block`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BlockDevice {
    /// The path of the device in the machine, which contains the id from the command line.
    pub qdev: Option<String>,
    #[serde(default)]
    pub inserted: Option<BlockInserted>,
    #[serde(rename = "io-status", default)]
    pub io_status: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BlockInserted {
    #[serde(rename = "node-name")]
    pub node_name: Option<String>,
    pub file: String,
    #[serde(rename = "drv")]
    pub driver: String,
    #[serde(rename = "ro")]
    pub read_only: bool,
    /// Its limits of reads and writes a second, and of bytes a second; 0: none.
    #[serde(default)]
    pub iops: u64,
    #[serde(rename = "bps", default)]
    pub bytes_per_sec: u64,
    pub image: BlockImage,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct BlockImage {
    #[serde(rename = "virtual-size")]
    pub virtual_size_bytes: u64,
}

/// What one disk may use; 0: as much as it can.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskLimits {
    /// Reads and writes a second.
    pub iops: u64,
    /// Read and written a second.
    pub bytes_per_sec: u64,
}

/// Whether the object that was to be removed existed: QEMU refuses to remove what doesn't exist.
fn existed(outcome: Result<(), QmpError>) -> Result<bool, QmpError> {
    match outcome {
        Ok(()) => Ok(true),
        Err(error) if error.refused() => Ok(false),
        Err(error) => Err(error),
    }
}

impl QmpClient {
    async fn execute_unit(&self, command: &str, arguments: Value) -> Result<(), QmpError> {
        self.execute(command, arguments, COMMAND_TIMEOUT).await.map(drop)
    }

    async fn query<T: for<'de> Deserialize<'de>>(&self, command: &str, timeout: Duration) -> Result<T, QmpError> {
        let value = self.execute(command, Value::Null, timeout).await?;
        serde_json::from_value(value).map_err(|source| QmpError::Shape { command: command.into(), source })
    }

    pub async fn query_status(&self) -> Result<RunState, QmpError> {
        Ok(self.query::<Status>("query-status", COMMAND_TIMEOUT).await?.state)
    }

    /// Stops the vCPUs; repeating it changes nothing.
    pub async fn stop(&self) -> Result<(), QmpError> {
        self.execute_unit("stop", Value::Null).await
    }

    /// Lets the vCPUs run; QEMU refuses this after the guest's end.
    pub async fn cont(&self) -> Result<(), QmpError> {
        self.execute_unit("cont", Value::Null).await
    }

    /// Presses the power button. The guest may ignore it, so the caller needs a deadline.
    pub async fn system_powerdown(&self) -> Result<(), QmpError> {
        self.execute_unit("system_powerdown", Value::Null).await
    }

    /// Presses the reset button. A machine that holds still after its guest's end stays `paused` until [`Self::cont`].
    pub async fn system_reset(&self) -> Result<(), QmpError> {
        self.execute_unit("system_reset", Value::Null).await
    }

    /// Ends QEMU. It may close the connection before its answer arrives, which is no error.
    pub async fn quit(&self) -> Result<(), QmpError> {
        match self.execute_unit("quit", Value::Null).await {
            Err(QmpError::Closed) => Ok(()),
            other => other,
        }
    }

    pub async fn query_cpus_fast(&self) -> Result<Vec<Cpu>, QmpError> {
        self.query("query-cpus-fast", COMMAND_TIMEOUT).await
    }

    pub async fn query_block(&self) -> Result<Vec<BlockDevice>, QmpError> {
        self.query("query-block", COMMAND_TIMEOUT).await
    }

    /// Grows a disk while its guest runs; `node` is from [`crate::qemu::argv::block_node`].
    pub async fn block_resize(&self, node: &str, size_bytes: u64) -> Result<(), QmpError> {
        self.execute_unit("block_resize", json!({"node-name": node, "size": size_bytes})).await
    }

    /// Limits what a disk's device, known by its path in the machine, may use.
    pub async fn block_set_io_throttle(&self, qdev: &str, limits: DiskLimits) -> Result<(), QmpError> {
        let arguments = json!({"id": qdev, "iops": limits.iops, "iops_rd": 0, "iops_wr": 0,
            "bps": limits.bytes_per_sec, "bps_rd": 0, "bps_wr": 0});
        self.execute_unit("block_set_io_throttle", arguments).await
    }

    /// Opens a block node; `options` are those of `-blockdev`.
    pub async fn blockdev_add(&self, options: Value) -> Result<(), QmpError> {
        self.execute_unit("blockdev-add", options).await
    }

    pub async fn blockdev_del(&self, node: &str) -> Result<(), QmpError> {
        self.execute_unit("blockdev-del", json!({"node-name": node})).await
    }

    /// Plugs a device in; `options` are those of `-device`.
    pub async fn device_add(&self, options: Value) -> Result<(), QmpError> {
        self.execute_unit("device_add", options).await
    }

    /// Asks the guest to release a device; it is gone when the event `DEVICE_DELETED` says so.
    pub async fn device_del(&self, id: &str) -> Result<(), QmpError> {
        self.execute_unit("device_del", json!({"id": id})).await
    }

    /// Passes an open file to QEMU, which keeps it under this name until something takes it over.
    pub async fn getfd(&self, name: &str, file: OwnedFd) -> Result<(), QmpError> {
        self.execute_with_file("getfd", json!({"fdname": name}), file, COMMAND_TIMEOUT).await.map(drop)
    }

    /// Closes a file that was passed under a name and not taken over; true if there was such a file.
    pub async fn closefd(&self, name: &str) -> Result<bool, QmpError> {
        existed(self.execute_unit("closefd", json!({"fdname": name})).await)
    }

    /// Makes a network back end; `options` are those of `-netdev`.
    pub async fn netdev_add(&self, options: Value) -> Result<(), QmpError> {
        self.execute_unit("netdev_add", options).await
    }

    /// Removes a network back end; true if there was such a back end. It isn't removed automatically with the device that used it.
    pub async fn netdev_del(&self, id: &str) -> Result<bool, QmpError> {
        existed(self.execute_unit("netdev_del", json!({"id": id})).await)
    }

    /// The names of all devices that have one.
    pub async fn device_names(&self) -> Result<Vec<String>, QmpError> {
        #[derive(Deserialize)]
        struct Property {
            name: String,
            #[serde(rename = "type")]
            kind: String,
        }
        let command = "qom-list";
        let value = self.execute(command, json!({"path": "/machine/peripheral"}), COMMAND_TIMEOUT).await?;
        let properties: Vec<Property> =
            serde_json::from_value(value).map_err(|source| QmpError::Shape { command: command.into(), source })?;
        Ok(properties.into_iter().filter(|p| p.kind.starts_with("child<")).map(|p| p.name).collect())
    }

    /// QEMU's version as `major.minor.micro`.
    pub async fn query_version(&self) -> Result<String, QmpError> {
        #[derive(Deserialize)]
        struct Answer {
            qemu: Triple,
        }
        #[derive(Deserialize)]
        struct Triple {
            major: u32,
            minor: u32,
            micro: u32,
        }
        let Triple { major, minor, micro } = self.query::<Answer>("query-version", COMMAND_TIMEOUT).await?.qemu;
        Ok(format!("{major}.{minor}.{micro}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_and_block_devices_of_any_release_are_read() {
        let state = |text: &str| serde_json::from_str::<Status>(text).expect("readable").state;
        assert_eq!(state(r#"{"status": "running", "running": true, "singlestep": false}"#), RunState::Running);
        assert_eq!(state(r#"{"status": "guest-panicked", "running": false}"#), RunState::GuestPanicked);
        assert_eq!(state(r#"{"status": "colo"}"#), RunState::Other("colo".into()));
        assert!(RunState::Shutdown.ended() && !RunState::IoError.ended());
        let devices: Vec<BlockDevice> = serde_json::from_str(
            r#"[{"device": "", "qdev": "/machine/peripheral/vd-1/virtio-backend", "type": "unknown", "io-status": "ok",
                "inserted": {"ro": false, "drv": "qcow2", "file": "/d", "node-name": "disk-1", "future": {},
                    "image": {"virtual-size": 1048576, "filename": "/d", "format": "qcow2"}}},
               {"device": "cd0", "removable": true}]"#,
        )
        .expect("readable");
        assert_eq!(devices[0].inserted.as_ref().expect("a disk").image.virtual_size_bytes, 1 << 20);
        assert!(devices[1].inserted.is_none());
    }
}
