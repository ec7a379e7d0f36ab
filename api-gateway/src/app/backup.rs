//! Backups of the database: consistent copies in a directory of this machine, the last few of which are kept.
//!
//! A copy holds password hashes and wrapped keys, so it doesn't leave the machine through the API: it lies where only this service's user reads it,
//! and whoever keeps backups elsewhere takes it from there. The file's SHA-256 lies beside it, as `sha256sum -c` reads it.

use crate::{
    app::{
        App,
        intent::Intent,
        mutate::{OwnChange, commit_own_change},
        plan::Done,
    },
    auth::caller::Caller,
    failure::ApiError,
};
use domain::{ErrorKind, Problem, Timestamp};
use operation::Activity;
use serde::{Deserialize, Serialize};
use service_kit::error_chain;
use std::{
    fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};
use store::{BackupError, Unit};

const PREFIX: &str = "iaas-";
const SUFFIX: &str = ".db";
const DIGEST: &str = ".sha256";

/// A copy of the database.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backup {
    pub name: String,
    /// Where it lies on the API's machine.
    pub path: PathBuf,
    pub size_bytes: u64,
    /// Empty when the file beside it is gone.
    pub sha256: String,
    pub created_at: Timestamp,
}

/// The time in a name has no colons: they mean something to tar and to Windows.
fn name_of(at: Timestamp) -> String {
    format!("{PREFIX}{}{SUFFIX}", at.to_string().replace(':', "."))
}

fn time_of(name: &str) -> Option<Timestamp> {
    let (date, clock) = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.split_once('T')?;
    format!("{date}T{}", clock.replacen('.', ":", 2)).parse().ok()
}

fn beside(path: &Path) -> PathBuf {
    let mut digest = path.as_os_str().to_owned();
    digest.push(DIGEST);
    digest.into()
}

/// What is there, the oldest first.
pub async fn list(app: &App) -> Result<Vec<Backup>, ApiError> {
    let directory = app.config().backup_dir();
    let read = tokio::task::spawn_blocking(move || read(&directory)).await;
    let read = read.map_err(|error| ApiError::internal("backups can't be listed", &error))?;
    read.map_err(|error| ApiError::internal("backups can't be listed", &error))
}

fn read(directory: &Path) -> io::Result<Vec<Backup>> {
    let entries = match fs::read_dir(directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error),
    };
    let mut backups = Vec::new();
    for entry in entries {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(created_at) = time_of(&name) else { continue };
        let path = entry.path();
        let sha256 = fs::read_to_string(beside(&path)).unwrap_or_default();
        let sha256 = sha256.split_whitespace().next().unwrap_or_default().to_owned();
        backups.push(Backup { name, path, size_bytes: entry.metadata()?.len(), sha256, created_at });
    }
    backups.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(backups)
}

/// Makes one, and removes the oldest beyond those that are kept.
pub async fn create(app: &App, caller: &Caller, intent: &Intent) -> Result<Done<Backup>, ApiError> {
    commit_own_change(app, caller, intent, async {
        let created_at = Timestamp::now();
        let name = name_of(created_at);
        let path = app.config().backup_dir().join(&name);
        let message = format!("the database was copied to {}", path.display());
        let activity = Activity::new("backup", &name, "backup.create", "backup.created", message);
        let outcome = if intent.dry_run {
            Backup { name: name.clone(), path, size_bytes: 0, sha256: String::new(), created_at }
        } else {
            copy(app, path, created_at).await?
        };
        Ok(OwnChange { unit: Unit::new(), activity, object_name: name, outcome, changes_identity: false })
    })
    .await
}

/// One at a time, on a task of its own: a caller that goes away doesn't let a second one begin beside it.
async fn copy(app: &App, path: PathBuf, created_at: Timestamp) -> Result<Backup, ApiError> {
    let Ok(turn) = app.backup_turn().try_lock_owned() else {
        return Err(Problem::new(ErrorKind::InvalidState, "backup_in_progress", "another backup is being made")
            .with_hint("`iaasctl backup list` shows it when it is done")
            .into());
    };
    let (store, kept) = (app.store().clone(), app.config().api.backups_kept);
    let copying = app.tasks().spawn(async move {
        let _turn = turn;
        let Some(directory) = path.parent().map(Path::to_owned) else { return Err(Problem::internal()) };
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&directory);
        made.map_err(|source| refused(BackupError::Io { path: directory.clone(), source }))?;
        let copied = store.backup_to(&path).await.map_err(refused)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let written = fs::write(beside(&path), format!("{}  {name}\n", copied.sha256));
        written.map_err(|source| refused(BackupError::Io { path: beside(&path), source }))?;
        if let Err(error) = prune(&directory, kept) {
            tracing::warn!(%error, directory = %directory.display(), "old backups can't be removed");
        }
        tracing::info!(path = %path.display(), bytes = copied.size_bytes, "the database was copied");
        Ok(Backup { name, path, size_bytes: copied.size_bytes, sha256: copied.sha256, created_at })
    });
    let copied = copying.await.map_err(|error| ApiError::internal("a backup's task ended early", &error))?;
    copied.map_err(ApiError::from)
}

fn prune(directory: &Path, kept: u32) -> io::Result<()> {
    let backups = read(directory)?;
    let many = backups.len().saturating_sub(usize::try_from(kept).unwrap_or(usize::MAX));
    for old in &backups[..many] {
        fs::remove_file(&old.path)?;
        match fs::remove_file(beside(&old.path)) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn refused(error: BackupError) -> Problem {
    let full = match &error {
        BackupError::NotSqlite => {
            return Problem::new(
                ErrorKind::InvalidState,
                "backup_not_sqlite",
                "the database is PostgreSQL, which its own tools copy",
            )
            .with_hint("use `pg_dump --format=custom` (docs/how-to/back-up-and-restore.md)");
        }
        BackupError::Damaged { report } => {
            tracing::error!(report, "the database, or its copy, is damaged");
            return Problem::new(
                ErrorKind::InvalidState,
                "database_damaged",
                format!("the copy was read back and is damaged ({report}); it was removed"),
            )
            .with_hint(
                "try once more; if it fails again the database itself is damaged: restore the last good backup",
            );
        }
        BackupError::NoSpace { .. } => true,
        BackupError::Io { source, .. } => {
            matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
        }
        BackupError::Database(cause) => cause.disk_full(),
        BackupError::Lost => false,
    };
    if full {
        tracing::warn!(error = error_chain(&error), "no space for a backup");
        return Problem::new(ErrorKind::Unavailable, "storage_full", format!("no space for a backup: {error}"))
            .with_hint("free space there, remove old backups, or set api.backup_dir to a disk that has space");
    }
    tracing::error!(error = error_chain(&error), "a backup failed");
    Problem::internal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_its_time_and_sorts_by_it() {
        let (first, second) = (Timestamp(1_700_000_000_123), Timestamp(1_700_000_000_124));
        assert_eq!(name_of(first), "iaas-2023-11-14T22.13.20.123Z.db");
        assert_eq!(time_of(&name_of(first)), Some(first));
        assert!(name_of(first) < name_of(second));
        for strange in [
            "iaas.db",
            "iaas-x.db",
            "iaas-2023-11-14T22.13.20.123Z.db.partial",
            "iaas-2023-11-14T22.13.20.123Z.db.sha256",
        ] {
            assert_eq!(time_of(strange), None, "{strange}");
        }
    }
}
