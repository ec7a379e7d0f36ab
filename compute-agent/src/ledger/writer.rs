//! The one thread that writes the ledger's files. It takes all that waits at once, so that fifty commands that arrive together
//! cost one sync of the directory and not fifty.

use super::file;
use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, mpsc},
    thread,
};
use tokio::sync::oneshot;

/// Files (name, bytes) that are to be durable together; of two with one name, the one handed in later wins.
pub struct Job {
    pub files: Vec<(String, Vec<u8>)>,
    pub done: oneshot::Sender<Result<(), Arc<io::Error>>>,
}

/// Resolves when the files are durable, or can't be made so.
pub type Written = oneshot::Receiver<Result<(), Arc<io::Error>>>;

/// Hands jobs to the thread. Dropping it waits for all that was handed in: a write that came after the next agent opened the
/// ledger would take its start number back.
#[derive(Debug)]
pub struct Writer {
    jobs: Option<mpsc::Sender<Job>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Writer {
    pub fn start(dir: PathBuf) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<Job>();
        let thread = thread::Builder::new().name("ledger".into()).spawn(move || {
            while let Ok(first) = queue.recv() {
                let batch: Vec<Job> = std::iter::once(first).chain(queue.try_iter()).collect();
                write(&dir, batch);
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues files in the order of the calls.
    pub fn submit(&self, files: Vec<(String, Vec<u8>)>) -> Written {
        let (done, result) = oneshot::channel();
        if let Some(jobs) = &self.jobs {
            // A thread that is gone drops `done`, which the receiver sees.
            let _ = jobs.send(Job { files, done });
        }
        result
    }
}

fn write(dir: &std::path::Path, batch: Vec<Job>) {
    let mut files = BTreeMap::new();
    let mut waiting = Vec::with_capacity(batch.len());
    for job in batch {
        files.extend(job.files);
        waiting.push(job.done);
    }
    let files: Vec<_> = files.into_iter().collect();
    let result = file::replace_all(dir, &files).map_err(Arc::new);
    for done in waiting {
        let _ = done.send(result.clone());
    }
}
