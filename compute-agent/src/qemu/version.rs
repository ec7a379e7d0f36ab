//! Finds the QEMU of this host, and checks whether it is suitable.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// The oldest QEMU that takes the command line of [`super::argv`] (`hpet` and `dump` as machine and object properties in
/// this form, JSON for `-device` and `-blockdev`) and that is still maintained by a distribution.
pub const MINIMUM: QemuVersion = QemuVersion { major: 8, minor: 0, micro: 0 };

const BINARY: &str = "qemu-system-x86_64";

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct QemuVersion {
    pub major: u32,
    pub minor: u32,
    pub micro: u32,
}

impl fmt::Display for QemuVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.micro)
    }
}

/// A suitable QEMU.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Qemu {
    pub binary: PathBuf,
    /// The `qemu-img` of the same package version; of different versions, the two may disagree about image features.
    pub qemu_img: PathBuf,
    pub version: QemuVersion,
}

/// Why there is no suitable QEMU. Each text says what to do next; `iaasctl doctor` prints it as it is.
#[derive(Debug, Error)]
pub enum VersionError {
    #[error("{program} is not installed: run `apt-get install {package}`, or give its path in the configuration")]
    Missing { program: &'static str, package: &'static str },
    #[error("{path} can't be run: check that it is an executable for this machine")]
    Run {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{path} --version answered {output:?}, from which no version can be read: is it QEMU?")]
    Unreadable { path: PathBuf, output: String },
    #[error(
        "{path} is QEMU {found}, but at least {MINIMUM} is needed: on Debian 12 run `apt-get install -t bookworm-backports \
         qemu-system-x86 qemu-utils`"
    )]
    TooOld { path: PathBuf, found: QemuVersion },
    #[error(
        "{binary} is QEMU {found} but {qemu_img} is {img_found}: install qemu-system-x86 and qemu-utils from the same \
         release"
    )]
    Mismatch { binary: PathBuf, found: QemuVersion, qemu_img: PathBuf, img_found: QemuVersion },
}

/// Finds QEMU: the configured binary, else the one on the search path, and `qemu-img` beside it or on the path.
pub async fn find_qemu(configured: Option<&Path>) -> Result<Qemu, VersionError> {
    let search = std::env::var_os("PATH").unwrap_or_else(|| "/usr/local/bin:/usr/bin:/bin".into());
    find_qemu_in(configured, &search).await
}

/// Finds QEMU like [`find_qemu`], on the given search path.
pub async fn find_qemu_in(configured: Option<&Path>, search: &OsStr) -> Result<Qemu, VersionError> {
    let missing = VersionError::Missing { program: BINARY, package: "qemu-system-x86" };
    let binary = match configured {
        Some(path) => path.to_path_buf(),
        None => on_path(search, BINARY).ok_or(missing)?,
    };
    let version = version_of(&binary, BINARY, "qemu-system-x86").await?;
    if version < MINIMUM {
        return Err(VersionError::TooOld { path: binary, found: version });
    }
    let beside = binary.parent().map(|dir| dir.join("qemu-img")).filter(|path| path.is_file());
    let missing = VersionError::Missing { program: "qemu-img", package: "qemu-utils" };
    let qemu_img = beside.or_else(|| on_path(search, "qemu-img")).ok_or(missing)?;
    let img_found = version_of(&qemu_img, "qemu-img", "qemu-utils").await?;
    if (img_found.major, img_found.minor) != (version.major, version.minor) {
        return Err(VersionError::Mismatch { binary, found: version, qemu_img, img_found });
    }
    Ok(Qemu { binary, qemu_img, version })
}

fn on_path(search: &OsStr, program: &str) -> Option<PathBuf> {
    std::env::split_paths(search).map(|dir| dir.join(program)).find(|path| path.is_file())
}

async fn version_of(path: &Path, program: &'static str, package: &'static str) -> Result<QemuVersion, VersionError> {
    let run = tokio::process::Command::new(path).arg("--version").kill_on_drop(true).output();
    let result = match tokio::time::timeout(Duration::from_secs(10), run).await {
        Ok(result) => result,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer within 10 s")),
    };
    let output = result.map_err(|source| {
        if source.kind() == io::ErrorKind::NotFound {
            VersionError::Missing { program, package }
        } else {
            VersionError::Run { path: path.to_path_buf(), source }
        }
    })?;
    let text = String::from_utf8_lossy(&output.stdout);
    parse_version(&text)
        .ok_or_else(|| VersionError::Unreadable { path: path.to_path_buf(), output: text.chars().take(200).collect() })
}

/// Reads `QEMU emulator version 10.0.2 (Debian …)` and `qemu-img version 10.0.2 (…)`.
pub fn parse_version(output: &str) -> Option<QemuVersion> {
    let (_, rest) = output.lines().next()?.split_once("version ")?;
    let mut parts = rest.split(|c: char| !c.is_ascii_digit());
    let mut next = || parts.next()?.parse().ok();
    Some(QemuVersion { major: next()?, minor: next()?, micro: next().unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn versions_are_read_as_distributions_write_them() {
        let v = |major, minor, micro| Some(QemuVersion { major, minor, micro });
        assert_eq!(parse_version("QEMU emulator version 10.0.2 (Debian 1:10.0.2+ds-2)\nCopyright"), v(10, 0, 2));
        assert_eq!(parse_version("qemu-img version 7.2.19"), v(7, 2, 19));
        assert_eq!(parse_version("QEMU emulator version 9.1 (v9.1-rc1-dirty)"), v(9, 1, 0));
        assert_eq!(parse_version("busybox v1.35"), None);
        assert_eq!(parse_version(""), None);
        assert!(v(10, 0, 0) > v(8, 2, 9));
    }

    fn fake(dir: &Path, name: &str, says: &str) {
        let path = dir.join(name);
        std::fs::write(&path, format!("#!/bin/sh\necho '{says}'\n")).expect("script written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("made executable");
    }

    #[tokio::test]
    async fn each_way_to_be_unfit_says_what_to_do() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let find = || find_qemu_in(None, dir.path().as_os_str());
        let text = find().await.expect_err("nothing there").to_string();
        assert!(text.contains("apt-get install qemu-system-x86"), "{text}");

        fake(dir.path(), BINARY, "QEMU emulator version 7.2.19 (Debian)");
        let text = find().await.expect_err("too old").to_string();
        assert!(text.contains("7.2.19") && text.contains("bookworm-backports"), "{text}");

        fake(dir.path(), BINARY, "QEMU emulator version 10.0.2 (Debian)");
        let text = find().await.expect_err("no qemu-img").to_string();
        assert!(text.contains("apt-get install qemu-utils"), "{text}");

        fake(dir.path(), "qemu-img", "qemu-img version 7.2.19");
        assert!(matches!(find().await, Err(VersionError::Mismatch { .. })));

        fake(dir.path(), "qemu-img", "qemu-img version 10.0.2");
        let qemu = find().await.expect("fit");
        assert_eq!(qemu.version, QemuVersion { major: 10, minor: 0, micro: 2 });

        fake(dir.path(), BINARY, "hello");
        assert!(matches!(find().await, Err(VersionError::Unreadable { .. })));
        let text = find_qemu_in(Some(Path::new("/nonexistent/qemu")), dir.path().as_os_str()).await;
        assert!(matches!(text, Err(VersionError::Missing { .. })));
    }
}
