//! Files that only root may read: keys and first passwords. Written whole or not at all.

use std::{
    io::Write,
    os::unix::fs::{OpenOptionsExt, PermissionsExt},
    path::{Path, PathBuf},
};

#[derive(Debug, thiserror::Error)]
#[error("{} can't be {what}", path.display())]
pub struct SecretFileError {
    pub path: PathBuf,
    pub what: &'static str,
    #[source]
    pub source: std::io::Error,
}

/// Writes `bytes` with mode 0600, through a temporary name in the same directory, synced before the rename and after.
pub fn write(path: &Path, bytes: &[u8]) -> Result<(), SecretFileError> {
    let fail = |what| move |source| SecretFileError { path: path.to_owned(), what, source };
    let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(dir).map_err(fail("written: its directory can't be made"))?;
    let temp = dir.join(format!(".{}.{}", uuid::Uuid::new_v4().simple(), "new"));
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temp).map_err(fail("written"))?;
    let written = file.write_all(bytes).and_then(|()| file.sync_all()).and_then(|()| std::fs::rename(&temp, path));
    if written.is_err() {
        let _ = std::fs::remove_file(&temp);
    }
    written.map_err(fail("written"))?;
    std::fs::File::open(dir).and_then(|d| d.sync_all()).map_err(fail("synced"))
}

/// Its bytes, or `None` when there is no such file. Refuses one that others may read.
pub fn read(path: &Path) -> Result<Option<Vec<u8>>, SecretFileError> {
    let fail = |what| move |source| SecretFileError { path: path.to_owned(), what, source };
    match std::fs::metadata(path) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(fail("read")(e)),
        Ok(meta) if meta.permissions().mode() & 0o077 != 0 => {
            let e = std::io::Error::other("others may read it: chmod 600 it, and consider what it holds disclosed");
            return Err(fail("trusted")(e));
        }
        Ok(_) => {}
    }
    std::fs::read(path).map(Some).map_err(fail("read"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_may_not_read_it() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("sub/secret");
        assert!(read(&path).expect("absent is fine").is_none());
        write(&path, b"one").expect("written");
        write(&path, b"two").expect("replaced");
        assert_eq!(read(&path).expect("read"), Some(b"two".to_vec()));
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        assert!(read(&path).is_err());
        assert_eq!(
            std::fs::read_dir(path.parent().expect("parent")).expect("dir").count(),
            1,
            "no temporary file stays"
        );
    }
}
