//! A consistent copy of the database while it is in use.
//!
//! A copy of the file alone isn't one: what was committed last is in the log beside it, and a young database is almost nothing but its log. The
//! copy is made by SQLite from one moment's snapshot (`VACUUM INTO`), without free pages, is read back and checked, and gets its name only then:
//! whatever lies under a backup's name is whole. The snapshot holds up nothing but the log's folding. PostgreSQL has its own tools.

use crate::{Cause, DatabaseError, Store, engine::Location};
use rusqlite::{Connection, OpenFlags};
use sha2::{Digest, Sha256};
use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// A copy that stands under its name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackupCopy {
    pub size_bytes: u64,
    /// The SHA-256 of the file in lower-case hexadecimal digits.
    pub sha256: String,
    pub schema_version: i64,
}

#[derive(Debug, thiserror::Error)]
pub enum BackupError {
    /// Its own tools copy it.
    #[error("a PostgreSQL database isn't copied from here")]
    NotSqlite,
    #[error("the copy needs {needed_mib} MiB, and {free_mib} MiB are free for {}", path.display())]
    NoSpace { path: PathBuf, needed_mib: u64, free_mib: u64 },
    #[error("the copy {} can't be written", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("the database can't be copied")]
    Database(#[source] Cause),
    /// The copy, or the database itself.
    #[error("the copy is damaged: {report}")]
    Damaged { report: String },
    #[error("the thread that copied ended early")]
    Lost,
}

impl Store {
    /// Copies the database to `target`, which must not exist. Not to be cancelled in the middle: it goes on to its end.
    pub async fn backup_to(&self, target: &Path) -> Result<BackupCopy, BackupError> {
        let database = match self.location() {
            Location::Sqlite(path) => path.clone(),
            Location::Postgres(_) => return Err(BackupError::NotSqlite),
        };
        let target = target.to_owned();
        tokio::task::spawn_blocking(move || copy(&database, &target)).await.map_err(|_| BackupError::Lost)?
    }
}

fn database_error(error: rusqlite::Error) -> BackupError {
    BackupError::Database(Arc::new(DatabaseError::Sqlite(error)))
}

fn copy(database: &Path, target: &Path) -> Result<BackupCopy, BackupError> {
    let mut partial = target.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let copied = write(database, &partial).and_then(|()| check(&partial)).and_then(|schema_version| {
        let io = |source| BackupError::Io { path: target.to_owned(), source };
        let (size_bytes, sha256) = digest(&partial).map_err(io)?;
        // A hard link fails where the name is taken; a rename would replace what is there.
        fs::hard_link(&partial, target).map_err(io)?;
        if let Some(parent) = target.parent() {
            File::open(parent).and_then(|directory| directory.sync_all()).map_err(io)?;
        }
        Ok(BackupCopy { size_bytes, sha256, schema_version })
    });
    let removed = fs::remove_file(&partial);
    match (copied, removed) {
        (Ok(_), Err(source)) => Err(BackupError::Io { path: partial, source }),
        (copied, _) => copied,
    }
}

fn write(database: &Path, partial: &Path) -> Result<(), BackupError> {
    let io = |source| BackupError::Io { path: partial.to_owned(), source };
    match fs::remove_file(partial) {
        Ok(()) => tracing::info!(path = %partial.display(), "removed what an interrupted backup left"),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(io(error)),
    }
    let source = Connection::open_with_flags(database, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(database_error)?;
    source.busy_timeout(crate::open::READ_WAIT).map_err(database_error)?;
    let pragma = |name: &str| source.query_row(&format!("PRAGMA {name}"), [], |row| row.get::<_, i64>(0));
    let needed = pragma("page_count").and_then(|pages| Ok(pages * pragma("page_size")?)).map_err(database_error)?;
    let needed = u64::try_from(needed).unwrap_or_default();
    let stat = rustix::fs::statvfs(partial.parent().unwrap_or(partial)).map_err(|errno| io(errno.into()))?;
    let free = stat.f_bavail.saturating_mul(stat.f_frsize);
    // The copy is never larger. As much stays free as a tenth of it, for the database itself may lie there.
    if free < needed + needed / 10 {
        let (needed_mib, free_mib) = (needed.div_ceil(1 << 20), free >> 20);
        return Err(BackupError::NoSpace { path: partial.to_owned(), needed_mib, free_mib });
    }
    // It holds password hashes: its owner's alone. SQLite takes an empty file as it takes none.
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(partial).map_err(io)?;
    source.execute("VACUUM INTO ?1", [partial.to_string_lossy()]).map_err(database_error)?;
    File::open(partial).and_then(|file| file.sync_all()).map_err(io)
}

/// Reads the copy back; its schema's version.
fn check(partial: &Path) -> Result<i64, BackupError> {
    let copy = Connection::open_with_flags(partial, OpenFlags::SQLITE_OPEN_READ_ONLY).map_err(database_error)?;
    let report: String = copy.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(database_error)?;
    if report != "ok" {
        return Err(BackupError::Damaged { report });
    }
    copy.query_row("SELECT max(version) FROM schema_version", [], |row| row.get(0)).map_err(database_error)
}

fn digest(path: &Path) -> io::Result<(u64, String)> {
    let (mut file, mut hasher, mut size_bytes) = (File::open(path)?, Sha256::new(), 0u64);
    let mut buffer = vec![0u8; 1 << 20];
    loop {
        let read = file.read(&mut buffer)?;
        if read == 0 {
            return Ok((size_bytes, hex::encode(hasher.finalize())));
        }
        hasher.update(&buffer[..read]);
        size_bytes += read as u64;
    }
}
