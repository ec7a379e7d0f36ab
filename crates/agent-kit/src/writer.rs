//! The one thread that writes a ledger. It takes all that waits at once, so that fifty commands that arrive together cost one sync and not
//! fifty.

use std::{fmt, io, sync::mpsc, thread};

/// Hands jobs to the thread. Dropping it waits for all that was handed in: a write that came after the next agent opened the ledger would
/// take its start number back.
pub struct BatchWriter<J> {
    jobs: Option<mpsc::Sender<J>>,
    thread: Option<thread::JoinHandle<()>>,
}

impl<J> fmt::Debug for BatchWriter<J> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchWriter").finish_non_exhaustive()
    }
}

impl<J> Drop for BatchWriter<J> {
    fn drop(&mut self) {
        self.jobs = None;
        if let Some(thread) = self.thread.take() {
            // A panic was printed by the thread itself.
            let _ = thread.join();
        }
    }
}

impl<J: Send + 'static> BatchWriter<J> {
    /// `write` gets the jobs in the order in which they were handed in.
    pub fn start(mut write: impl FnMut(Vec<J>) + Send + 'static) -> io::Result<Self> {
        let (jobs, queue) = mpsc::channel::<J>();
        let thread = thread::Builder::new().name("ledger".into()).spawn(move || {
            while let Ok(first) = queue.recv() {
                write(std::iter::once(first).chain(queue.try_iter()).collect());
            }
        })?;
        Ok(Self { jobs: Some(jobs), thread: Some(thread) })
    }

    /// Queues a job. When the thread is gone the job is dropped, which its caller sees by what it waits for.
    pub fn submit(&self, job: J) {
        if let Some(jobs) = &self.jobs {
            let _ = jobs.send(job);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_written_in_order_before_the_writer_is_gone() {
        let (done, written) = mpsc::channel();
        let writer = BatchWriter::start(move |jobs: Vec<u32>| {
            for job in jobs {
                done.send(job).expect("the test listens");
            }
        })
        .expect("started");
        (0..100).for_each(|n| writer.submit(n));
        drop(writer);
        assert_eq!(written.try_iter().collect::<Vec<_>>(), (0..100).collect::<Vec<_>>());
    }
}
