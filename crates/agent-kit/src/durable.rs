//! Files that are there whole or not at all, also after a power failure: written beside the old file, synced, renamed, and the directory
//! synced. Many at once cost one sync of the directory.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

/// Ends the names of files that a crash left half-written; they never counted.
const HALF: &str = ".half";

/// Creates `dir` and its parents, for root alone (specs carry users' data).
pub fn ensure_private_dir(dir: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)
}

/// Replaces (or creates) all of `files` (name, bytes) in `dir`. When it returns Ok, all are durable; on an error each is either
/// its old or its new self.
pub fn replace_all(dir: &Path, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let written = files.iter().try_for_each(|(name, bytes)| write_half(dir, name, bytes).map(drop));
    if let Err(error) = written {
        for (name, _) in files {
            // What is left over is swept at the next start.
            let _ = fs::remove_file(half(dir, name));
        }
        return Err(error);
    }
    for (name, _) in files {
        fs::rename(half(dir, name), dir.join(name))?;
    }
    File::open(dir)?.sync_all()
}

/// Replaces (or creates) one file, and answers it opened at its end, for appending.
pub fn replace(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    let file = write_half(dir, name, bytes).inspect_err(|_| {
        // It may hold the room that was missing.
        let _ = fs::remove_file(half(dir, name));
    })?;
    fs::rename(half(dir, name), dir.join(name))?;
    File::open(dir)?.sync_all()?;
    Ok(file)
}

fn half(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}{HALF}"))
}

fn write_half(dir: &Path, name: &str, bytes: &[u8]) -> io::Result<File> {
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(half(dir, name))?;
    file.write_all(bytes)?;
    file.sync_data()?;
    Ok(file)
}

/// Removes what a crash left half-written.
pub fn sweep_half_written(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().ends_with(HALF) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_replaced_whole_and_halves_swept() {
        let dir = tempfile::tempdir().expect("dir");
        let put = |bytes: &[u8]| replace_all(dir.path(), &[("a".into(), bytes.to_vec()), ("b".into(), bytes.to_vec())]);
        put(b"one").expect("written");
        put(b"two").expect("replaced");
        assert_eq!(fs::read(dir.path().join("a")).expect("read"), b"two");
        fs::write(dir.path().join("c.half"), b"ha").expect("written");
        sweep_half_written(dir.path()).expect("swept");
        let mut names: Vec<_> =
            fs::read_dir(dir.path()).expect("list").map(|e| e.expect("entry").file_name()).collect();
        names.sort();
        assert_eq!(names, ["a", "b"]);
    }

    #[test]
    fn a_replaced_file_can_be_appended_to() {
        let dir = tempfile::tempdir().expect("dir");
        replace(dir.path(), "a", b"old and long").expect("written");
        let mut file = replace(dir.path(), "a", b"new").expect("replaced");
        file.write_all(b"er").expect("appended");
        assert_eq!(fs::read(dir.path().join("a")).expect("read"), b"newer");
    }
}
