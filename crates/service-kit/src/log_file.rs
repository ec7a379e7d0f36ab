//! A log in a file that can't fill the disk: past its size it becomes `<file>.1`, in place of the one before, and a new one begins. For machines without a
//! journal; where systemd runs, the journal does this.

use parking_lot::Mutex;
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Clones write to the same file. A line is never split between two files.
#[derive(Clone)]
pub struct LogFile(Arc<Mutex<State>>);

struct State {
    path: PathBuf,
    bytes_max: u64,
    file: File,
    bytes: u64,
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().create(true).append(true).mode(0o640).open(path)
}

impl LogFile {
    pub fn open(path: &Path, bytes_max: u64) -> io::Result<Self> {
        let file = open(path)?;
        let bytes = file.metadata()?.len();
        Ok(Self(Arc::new(Mutex::new(State { path: path.to_owned(), bytes_max, file, bytes }))))
    }
}

impl State {
    /// Begins a new file. When that fails, the present one is emptied: a full disk is worse than a lost log.
    fn rotate(&mut self) -> io::Result<()> {
        let mut old = self.path.clone().into_os_string();
        old.push(".1");
        match std::fs::rename(&self.path, old).and_then(|()| open(&self.path)) {
            Ok(file) => self.file = file,
            Err(_) => self.file.set_len(0)?,
        }
        self.bytes = 0;
        Ok(())
    }
}

impl Write for LogFile {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut state = self.0.lock();
        let length = line.len() as u64;
        if state.bytes > 0 && state.bytes + length > state.bytes_max {
            state.rotate()?;
        }
        state.file.write_all(line)?;
        state.bytes += length;
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_takes_more_than_twice_its_size_and_keeps_the_newest_lines_whole() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("iaasd.log");
        std::fs::write(&path, "from before\n").expect("written");
        let log = LogFile::open(&path, 1000).expect("it opens");
        for i in 0..500 {
            writeln!(log.clone(), "line {i}").expect("written");
            let sizes: u64 = std::fs::read_dir(dir.path())
                .expect("readable")
                .map(|entry| entry.expect("an entry").metadata().expect("its size").len())
                .sum();
            assert!(sizes <= 2000, "{sizes} bytes after line {i}");
        }
        let read = |path: &Path| std::fs::read_to_string(path).expect("readable");
        let (old, new) = (read(&dir.path().join("iaasd.log.1")), read(&path));
        let lines: Vec<_> = old.lines().chain(new.lines()).collect();
        let first: usize = lines[0].trim_start_matches("line ").parse().expect("a number");
        assert_eq!(lines, (first..500).map(|i| format!("line {i}")).collect::<Vec<_>>());
    }

    #[test]
    fn one_longer_line_is_written_whole() {
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("iaasd.log");
        let mut log = LogFile::open(&path, 10).expect("it opens");
        log.write_all(&[b'x'; 100]).expect("written");
        log.write_all(b"y").expect("written");
        assert_eq!(std::fs::read(&path).expect("readable"), b"y");
    }
}
