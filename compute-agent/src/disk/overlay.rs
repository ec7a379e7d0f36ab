//! Makes disk images with `qemu-img`; the formats are always named.
//!
//! `qemu-img` runs as a child process (8 ms for an overlay). A writer of our own was rejected: the format's details belong to QEMU, and what
//! QEMU wrote it can read. Every child dies with the future that waits for it and has a deadline. Nothing is ever probed:
//! whoever uploaded an image must not choose what it is opened as. Overlays are created with `-u`, without opening
//! the backing image: its format and size are known from when it was verified, and it saves the time.

use std::ffi::OsStr;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use domain::image::DiskFormat;
use serde::Deserialize;
use thiserror::Error;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::process::Command;

use super::header::Header;

/// The program that sets limits and becomes another one, and the limits: processor seconds, bytes of memory, open files, and no dump of
/// what was in memory.
const LIMITER: &str = "prlimit";
const LIMITS: [&str; 4] = ["--cpu=20", "--as=1073741824", "--nofile=64", "--core=0"];
/// How much of each of a command's pipes is read.
const OUTPUT_BYTES_MAX: u64 = 64 << 10;
/// How long a command may take; all of them write metadata only.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Error)]
pub enum DiskError {
    #[error("there is no space left for {path}")]
    NoSpace { path: PathBuf },
    #[error("{program} can't be run")]
    Run {
        program: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{program} {action} {path} didn't end within {} s", TIMEOUT.as_secs())]
    Timeout { program: PathBuf, action: &'static str, path: PathBuf },
    #[error("qemu-img {action} {path} failed: {stderr}")]
    Failed { action: &'static str, path: PathBuf, stderr: String },
    #[error("qemu-img's description of {path} can't be read")]
    Unreadable {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("{path} isn't opened: {reason}")]
    Foreign { path: PathBuf, reason: String },
    #[error("{path} has {len} bytes, more than {size_bytes}: a disk never shrinks")]
    Shrink { path: PathBuf, len: u64, size_bytes: u64 },
    #[error("{path} can't be accessed")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

impl DiskError {
    /// An I/O error on a path; a full disk is an error of its own.
    pub fn io(path: &Path, source: io::Error) -> Self {
        let path = path.to_path_buf();
        let full = matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
        if full { Self::NoSpace { path } } else { Self::Io { path, source } }
    }
}

/// The user and group that own a disk's file, which has mode 0600.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Owner {
    pub uid: u32,
    pub gid: u32,
}

/// What an image's header says.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct ImageInfo {
    pub format: String,
    #[serde(rename = "virtual-size")]
    pub virtual_size_bytes: u64,
    /// The space that the image takes on the file system.
    #[serde(rename = "actual-size", default)]
    pub actual_size_bytes: u64,
    pub backing_filename: Option<PathBuf>,
    #[serde(default)]
    pub format_specific: FormatSpecific,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FormatSpecific {
    #[serde(default)]
    pub data: FormatData,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct FormatData {
    /// The other file in which a qcow2 keeps its data, if it does.
    pub data_file: Option<String>,
}

/// The program `qemu-img`, of the same version as the QEMU that will open the images.
#[derive(Debug, Clone)]
pub struct QemuImg {
    binary: PathBuf,
}

impl QemuImg {
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self { binary: binary.into() }
    }

    /// Makes a new qcow2 disk over an immutable image, durable with its directory entry when this returns. An existing file is replaced.
    pub async fn create_overlay(
        &self,
        backing: &Path,
        backing_format: DiskFormat,
        size_bytes: u64,
        dest: &Path,
        owner: Owner,
    ) -> Result<(), DiskError> {
        let backing =
            [OsStr::new("-u"), "-b".as_ref(), backing.as_os_str(), "-F".as_ref(), backing_format.as_str().as_ref()];
        self.create(DiskFormat::Qcow2, &backing, size_bytes, dest, owner).await
    }

    /// Makes a new disk that reads as zeros.
    pub async fn create_blank(
        &self,
        format: DiskFormat,
        size_bytes: u64,
        dest: &Path,
        owner: Owner,
    ) -> Result<(), DiskError> {
        self.create(format, &[], size_bytes, dest, owner).await
    }

    async fn create(
        &self,
        format: DiskFormat,
        extra: &[&OsStr],
        size_bytes: u64,
        dest: &Path,
        owner: Owner,
    ) -> Result<(), DiskError> {
        let size = size_bytes.to_string();
        let options: &[&str] = match format {
            DiskFormat::Qcow2 => &["create", "-q", "-f", "qcow2", "-o", "preallocation=off,lazy_refcounts=off"],
            DiskFormat::Raw => &["create", "-q", "-f", "raw", "-o", "preallocation=off"],
        };
        let mut args: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
        args.extend(extra);
        args.extend([dest.as_os_str(), size.as_ref()]);
        // The new file is nobody's yet, in a directory that is root's alone.
        self.run("create", dest, &args, None).await?;
        let dest = dest.to_path_buf();
        blocking(move || {
            chown(&dest, Some(owner.uid), Some(owner.gid))
                .and_then(|()| std::fs::set_permissions(&dest, std::fs::Permissions::from_mode(0o600)))
                .and_then(|()| std::fs::File::open(&dest)?.sync_all())
                .and_then(|()| sync_dir(&dest))
                .map_err(|source| DiskError::io(&dest, source))
        })
        .await
    }

    /// Grows a qcow2 disk that nobody has open, and that must lie on `backing`; the disk of a running guest is grown by QMP
    /// `block_resize`. The disk's user may have written anything into it, so its header is compared first, and what opens it is that user.
    pub async fn resize(
        &self,
        path: &Path,
        backing: Option<&Path>,
        size_bytes: u64,
        owner: Owner,
    ) -> Result<(), DiskError> {
        let format = DiskFormat::Qcow2;
        // The image below is its group's to read, and that group is all that this needs beside the user.
        let group =
            backing.and_then(|path| std::fs::metadata(path).ok()).map(|meta| meta.gid()).filter(|gid| *gid != 0);
        let owner = Owner { gid: group.unwrap_or(owner.gid), ..owner };
        let header = Header::read(path).map_err(|source| DiskError::io(path, source))?;
        let objection = match header {
            Some(header) => header.resolved(path).objection(backing),
            None => Some("it isn't a disk any more".to_owned()),
        };
        if let Some(reason) = objection {
            return Err(DiskError::Foreign { path: path.to_path_buf(), reason });
        }
        let len = self.info(path, format, owner).await?.virtual_size_bytes;
        if len > size_bytes {
            return Err(DiskError::Shrink { path: path.to_path_buf(), len, size_bytes });
        }
        let size = size_bytes.to_string();
        let args = [
            "resize".as_ref(),
            "-q".as_ref(),
            "-f".as_ref(),
            format.as_str().as_ref(),
            path.as_os_str(),
            size.as_ref(),
        ];
        self.run("resize", path, &args, Some(owner)).await.map(drop)
    }

    /// Reads the header as `format`, without opening a backing file. This works also while a QEMU has the disk open.
    pub async fn info(&self, path: &Path, format: DiskFormat, owner: Owner) -> Result<ImageInfo, DiskError> {
        let args = [
            "info".as_ref(),
            "-U".as_ref(),
            "--output=json".as_ref(),
            "-f".as_ref(),
            format.as_str().as_ref(),
            path.as_os_str(),
        ];
        let stdout = self.run("info", path, &args, Some(owner)).await?;
        serde_json::from_slice(&stdout).map_err(|source| DiskError::Unreadable { path: path.to_path_buf(), source })
    }

    /// `user`: who runs it; root opens nothing that a guest may have written.
    async fn run(
        &self,
        action: &'static str,
        path: &Path,
        args: &[&OsStr],
        user: Option<Owner>,
    ) -> Result<Vec<u8>, DiskError> {
        let mut command = Command::new(LIMITER);
        command.args(LIMITS).arg("--").arg(&self.binary).args(args).env_clear().current_dir("/");
        command.env("PATH", "/usr/bin:/bin:/usr/sbin:/sbin").env("LC_ALL", "C");
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).kill_on_drop(true);
        if let Some(Owner { uid, gid }) = user {
            // The supplementary groups go with it.
            command.uid(uid).gid(gid);
        }
        let program = || self.binary.clone();
        let mut child = command.spawn().map_err(|source| DiskError::Run { program: LIMITER.into(), source })?;
        let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
        let ended = async { tokio::join!(bounded(stdout), bounded(stderr), child.wait()) };
        let Ok((stdout, stderr, status)) = tokio::time::timeout(TIMEOUT, ended).await else {
            return Err(DiskError::Timeout { program: program(), action, path: path.to_path_buf() });
        };
        let status = status.map_err(|source| DiskError::Run { program: program(), source })?;
        if status.success() {
            return Ok(stdout);
        }
        let stderr = String::from_utf8_lossy(&stderr).trim().to_owned();
        // The limiter's exit codes: what it was to run isn't there, or can't be run.
        if matches!(status.code(), Some(126 | 127)) {
            let source = io::Error::new(io::ErrorKind::NotFound, stderr);
            return Err(DiskError::Run { program: program(), source });
        }
        // This is the one failure with a meaning of its own; qemu-img has no exit code for it, and LC_ALL fixes the text.
        if ["No space left on device", "Disk quota exceeded"].iter().any(|text| stderr.contains(text)) {
            return Err(DiskError::NoSpace { path: path.to_path_buf() });
        }
        Err(DiskError::Failed { action, path: path.to_path_buf(), stderr })
    }
}

/// What a program writes, as far as anyone wants to know; then its pipe is closed.
async fn bounded(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut bytes = Vec::new();
    if let Some(pipe) = pipe {
        // What can't be read any more is as good as its end.
        let _ = pipe.take(OUTPUT_BYTES_MAX).read_to_end(&mut bytes).await;
    }
    bytes
}

/// Whether files in this directory can be opened with O_DIRECT; some network and memory file systems refuse.
pub fn supports_direct(dir: &Path) -> Result<bool, DiskError> {
    use rustix::fs::{Mode, OFlags, open};
    let path = dir.join(format!(".direct-{}", uuid::Uuid::new_v4().simple()));
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR | OFlags::CLOEXEC;
    let made = open(&path, flags, Mode::RUSR | Mode::WUSR).map_err(|errno| DiskError::io(&path, errno.into()))?;
    drop(made);
    let direct = open(&path, OFlags::RDWR | OFlags::DIRECT | OFlags::CLOEXEC, Mode::empty());
    std::fs::remove_file(&path).map_err(|source| DiskError::io(&path, source))?;
    match direct {
        Ok(_) => Ok(true),
        Err(rustix::io::Errno::INVAL) => Ok(false),
        Err(errno) => Err(DiskError::io(&path, errno.into())),
    }
}

/// Makes the entry of `path` in its directory (or its absence) durable.
pub(super) fn sync_dir(path: &Path) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::File::open(dir)?.sync_all()
}

/// Runs file system calls on a thread that may block.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, DiskError> + Send + 'static,
) -> Result<T, DiskError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const OWNER: Owner = Owner { uid: 64_055, gid: 64_055 };

    fn qemu_img() -> Option<QemuImg> {
        let found = ["/usr/bin/qemu-img", "/usr/local/bin/qemu-img"].iter().find(|path| Path::new(path).exists());
        if found.is_none() {
            println!("not run: qemu-img is not installed");
        }
        found.map(|path| QemuImg::new(*path))
    }

    /// A directory that the disks' user may pass through.
    fn passable() -> tempfile::TempDir {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).expect("passable");
        dir
    }

    /// A disk whose user made its data lie in a file of the host: it isn't opened at all.
    #[tokio::test]
    async fn a_disk_that_names_a_file_of_the_host_changes_nothing_there() {
        let Some(img) = qemu_img() else { return };
        if !rustix::process::geteuid().is_root() {
            return println!("not run: disks of other users take root");
        }
        let dir = passable();
        let (secret, disk) = (dir.path().join("secret"), dir.path().join("disk"));
        std::fs::write(&secret, vec![7; 1 << 20]).expect("written");
        std::fs::set_permissions(&secret, std::fs::Permissions::from_mode(0o600)).expect("closed");
        let options = format!("data_file={},data_file_raw=on", secret.display());
        let args = ["create", "-q", "-f", "qcow2", "-o", &options];
        let made = std::process::Command::new(&img.binary).args(args).arg(&disk).arg("1M").status().expect("runs");
        assert!(made.success());
        chown(&disk, Some(OWNER.uid), Some(OWNER.gid)).expect("given away");
        std::fs::write(&secret, vec![7; 1 << 20]).expect("as it was");
        let refused = img.resize(&disk, None, 64 * MIB, OWNER).await.expect_err("refused");
        assert!(matches!(refused, DiskError::Foreign { .. }), "{refused:?}");
        assert_eq!(std::fs::read(&secret).expect("readable"), vec![7; 1 << 20]);
    }

    #[tokio::test]
    async fn what_a_program_writes_is_read_to_a_bound() {
        let img = QemuImg::new("/bin/sh");
        let args = ["-c", "yes complaint | head -c 10000000 >&2; exit 1"].map(OsStr::new);
        match img.run("info", Path::new("/"), &args, None).await {
            Err(DiskError::Failed { stderr, .. }) => {
                assert!(!stderr.is_empty() && stderr.len() as u64 <= OUTPUT_BYTES_MAX, "{}", stderr.len());
            }
            other => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn overlays_grow_never_shrink_and_name_their_backing() {
        let Some(img) = qemu_img() else { return };
        let dir = passable();
        let (base, disk) = (dir.path().join("base,1"), dir.path().join("disk"));
        img.create_blank(DiskFormat::Raw, MIB, &base, OWNER).await.expect("created");
        img.create_overlay(&base, DiskFormat::Raw, 4 * MIB, &disk, OWNER).await.expect("created");
        let info = img.info(&disk, DiskFormat::Qcow2, OWNER).await.expect("readable");
        assert_eq!((info.format.as_str(), info.virtual_size_bytes), ("qcow2", 4 * MIB));
        assert_eq!(info.backing_filename.as_deref(), Some(base.as_path()));
        assert!(info.format_specific.data.data_file.is_none() && info.actual_size_bytes < MIB, "{info:?}");
        let mode = std::fs::metadata(&disk).expect("there");
        assert_eq!((mode.permissions().mode() & 0o777, std::os::unix::fs::MetadataExt::uid(&mode)), (0o600, OWNER.uid));

        img.resize(&disk, Some(&base), 8 * MIB, OWNER).await.expect("grown");
        assert_eq!(img.info(&disk, DiskFormat::Qcow2, OWNER).await.expect("readable").virtual_size_bytes, 8 * MIB);
        assert!(matches!(img.resize(&disk, Some(&base), MIB, OWNER).await, Err(DiskError::Shrink { .. })));
        assert!(matches!(img.resize(&disk, None, 16 * MIB, OWNER).await, Err(DiskError::Foreign { .. })));
        assert!(supports_direct(dir.path()).is_ok());
    }

    #[tokio::test]
    async fn what_lies_about_its_format_and_what_is_missing_fail_with_qemu_imgs_message() {
        let Some(img) = qemu_img() else { return };
        let dir = passable();
        let path = dir.path().join("raw");
        std::fs::write(&path, [0; 512]).expect("written");
        let error = img.info(&path, DiskFormat::Qcow2, OWNER).await.expect_err("no qcow2");
        assert!(error.to_string().contains("qcow2 format"), "{error}");
        let error = img.info(&dir.path().join("none"), DiskFormat::Raw, OWNER).await.expect_err("nothing there");
        assert!(error.to_string().contains("No such file"), "{error}");
        let missing = QemuImg::new("/nonexistent/qemu-img");
        assert!(matches!(missing.info(&path, DiskFormat::Raw, OWNER).await, Err(DiskError::Run { .. })));
    }

    #[tokio::test]
    async fn a_full_disk_is_told_apart() {
        let Some(img) = qemu_img() else { return };
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mounted = std::process::Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=64k", "none"])
            .arg(dir.path())
            .status()
            .is_ok_and(|status| status.success());
        if !mounted {
            return println!("not run: mounting a small file system takes root");
        }
        std::fs::write(dir.path().join("filler"), vec![1; 60 << 10]).expect("fits");
        let result = img.create_blank(DiskFormat::Qcow2, 1 << 40, &dir.path().join("disk"), OWNER).await;
        let unmounted = std::process::Command::new("umount").arg(dir.path()).status().expect("umount runs");
        assert!(unmounted.success());
        assert!(matches!(result, Err(DiskError::NoSpace { .. })), "{result:?}");
    }
}
