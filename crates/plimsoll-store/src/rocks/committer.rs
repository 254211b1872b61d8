//! Group commit: one thread that turns whatever waits into one durable write, again and again.
//!
//! There is no timer. While one write is being synced the next group gathers, so groups grow exactly as far as the disk
//! is slow. A failed write is final: the process is told to stop, and if it does not, every later caller gets an error.

use std::collections::VecDeque;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use crate::wal::{Done, Op};
use crate::with_causes;

/// Called with a description when the log can no longer be written. Returning is allowed, and then every later submit
/// fails; in production the process ends here, because what the disk holds is unknown from now on.
pub type Fatal = Arc<dyn Fn(&str) + Send + Sync>;

/// A group takes no further job beyond this many bytes, which bounds the memory and the latency of one write.
const GROUP_BYTES: usize = 16 << 20;

/// Where groups go.
pub(super) trait Sink: Send + 'static {
    /// Makes the ops durable, all in one write, in order.
    fn commit(&mut self, ops: &[Op]) -> Result<(), crate::Error>;
    /// Called once, after the last group.
    fn close(&mut self);
}

/// A queue with its writer thread. Dropping it writes what waits, then joins the thread.
pub(super) struct Committer {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

struct Shared {
    queue: Mutex<Queue>,
    wake: Condvar,
    syncs: AtomicU64,
}

#[derive(Default)]
struct Queue {
    jobs: VecDeque<Job>,
    closed: bool,
}

struct Job {
    ops: Vec<Op>,
    done: Done,
}

impl Committer {
    /// Starts the writer thread.
    pub(super) fn start(sink: impl Sink, fatal: Fatal) -> io::Result<Self> {
        let shared =
            Arc::new(Shared { queue: Mutex::default(), wake: Condvar::new(), syncs: AtomicU64::new(0) });
        let writer = Writer { sink, fatal, shared: shared.clone(), failed: None };
        let thread = thread::Builder::new().name("plimsoll-wal".into()).spawn(move || writer.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// Queues a job and returns.
    pub(super) fn submit(&self, ops: Vec<Op>, done: Done) {
        let mut queue = self.shared.queue.lock();
        queue.jobs.push_back(Job { ops, done });
        drop(queue);
        self.shared.wake.notify_one();
    }

    /// How many groups were written and synced.
    pub(super) fn syncs(&self) -> u64 {
        self.shared.syncs.load(Ordering::Relaxed)
    }
}

impl Drop for Committer {
    fn drop(&mut self) {
        self.shared.queue.lock().closed = true;
        self.shared.wake.notify_one();
        let Some(thread) = self.thread.take() else { return };
        // A `done` may own the last handle of its own log; the thread cannot wait for itself.
        if thread.thread().id() != thread::current().id() && thread.join().is_err() {
            tracing::error!("the log's writer thread panicked");
        }
    }
}

struct Writer<S> {
    sink: S,
    fatal: Fatal,
    shared: Arc<Shared>,
    failed: Option<String>,
}

impl<S: Sink> Writer<S> {
    fn run(mut self) {
        let mut ops = Vec::new();
        let mut dones = Vec::new();
        while self.take_group(&mut ops, &mut dones) {
            self.commit(&ops);
            ops.clear();
            for done in dones.drain(..) {
                self.report(done);
            }
        }
        self.sink.close();
    }

    /// Waits for work and takes as much as fits a group; false when closed and empty.
    fn take_group(&self, ops: &mut Vec<Op>, dones: &mut Vec<Done>) -> bool {
        let mut queue = self.shared.queue.lock();
        while queue.jobs.is_empty() {
            if queue.closed {
                return false;
            }
            self.shared.wake.wait(&mut queue);
        }
        let mut group_bytes = 0;
        while group_bytes < GROUP_BYTES
            && let Some(job) = queue.jobs.pop_front()
        {
            group_bytes += job.ops.iter().map(Op::byte_size).sum::<usize>();
            ops.extend(job.ops);
            dones.push(job.done);
        }
        true
    }

    fn commit(&mut self, ops: &[Op]) {
        if self.failed.is_some() || ops.is_empty() {
            return;
        }
        // A panic must not leave callers waiting for ever behind a thread that is gone.
        let committed = std::panic::catch_unwind(AssertUnwindSafe(|| self.sink.commit(ops)));
        let problem = match committed {
            Ok(Ok(())) => {
                self.shared.syncs.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ok(Err(error)) => with_causes(&error),
            Err(_) => "the log's writer panicked".to_owned(),
        };
        (self.fatal)(&problem);
        self.failed = Some(problem);
    }

    fn report(&self, done: Done) {
        let result = self.failed.as_ref().map_or(Ok(()), |problem| Err(io::Error::other(problem.clone())));
        if std::panic::catch_unwind(AssertUnwindSafe(|| done(result))).is_err() {
            tracing::error!("a callback of the log panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::mpsc;

    use super::*;
    use crate::Error;

    /// Fails its second group, would accept a third.
    #[derive(Default)]
    struct FailsSecond {
        groups: u32,
    }

    impl Sink for FailsSecond {
        fn commit(&mut self, _ops: &[Op]) -> Result<(), Error> {
            self.groups += 1;
            match self.groups {
                2 => Err(Error::failed("sync log", Path::new("/d"), io::Error::other("EIO"))),
                _ => Ok(()),
            }
        }
        fn close(&mut self) {}
    }

    fn vote() -> Vec<Op> {
        vec![Op::Vote { bytes: "v".into() }]
    }

    #[test]
    fn a_failed_write_is_fatal_and_never_retried() {
        let (told, heard) = mpsc::channel();
        let fatal: Fatal = Arc::new(move |problem| told.send(problem.to_owned()).unwrap());
        let committer = Committer::start(FailsSecond::default(), fatal).unwrap();
        let submit = || {
            let (done, result) = mpsc::channel();
            committer.submit(vote(), Box::new(move |outcome| done.send(outcome).unwrap()));
            result.recv().unwrap()
        };
        assert!(submit().is_ok());
        assert!(submit().is_err());
        assert!(submit().is_err(), "the sink would have accepted it, but the log's state is unknown");
        assert_eq!(heard.try_iter().collect::<Vec<_>>(), ["sync log failed at /d: EIO"]);
        assert_eq!(committer.syncs(), 1);
    }

    #[test]
    fn a_panicking_callback_does_not_stop_the_log() {
        let committer = Committer::start(FailsSecond::default(), Arc::new(|_| {})).unwrap();
        let (done, result) = mpsc::channel();
        committer.submit(vec![], Box::new(|_| panic!("in a callback")));
        committer.submit(vec![], Box::new(move |outcome| done.send(outcome.is_ok()).unwrap()));
        assert!(result.recv().unwrap());
    }

    #[test]
    fn what_waits_is_written_before_the_handle_goes() {
        let (done, result) = mpsc::channel();
        let committer = Committer::start(FailsSecond::default(), Arc::new(|_| {})).unwrap();
        committer.submit(vote(), Box::new(move |outcome| done.send(outcome.is_ok()).unwrap()));
        drop(committer);
        assert!(result.try_recv().unwrap());
    }
}
