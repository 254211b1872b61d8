//! A log in memory.

use std::collections::VecDeque;
use std::path::Path;

use parking_lot::Mutex;

use crate::Error;
use crate::log_state::LogState;
use crate::wal::{Done, Loaded, Op, Wal};

/// A log that is as durable as the process: every `done` is called before, or soon after, `submit` returns.
#[derive(Default)]
pub struct MemoryWal {
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    state: LogState,
    dones: VecDeque<Done>,
    /// Some thread is calling `dones`, in order; others only add to them.
    calling: bool,
}

impl MemoryWal {
    /// An empty log.
    pub fn new() -> Self {
        Self::default()
    }
}

impl Wal for MemoryWal {
    fn submit(&self, ops: Vec<Op>, done: Done) {
        let mut inner = self.inner.lock();
        for op in &ops {
            inner.state.apply(op);
        }
        inner.dones.push_back(done);
        if inner.calling {
            return;
        }
        inner.calling = true;
        while let Some(done) = inner.dones.pop_front() {
            // Called without the lock, because it may submit again.
            drop(inner);
            done(Ok(()));
            inner = self.inner.lock();
        }
        inner.calling = false;
    }

    fn load(&self) -> Result<Loaded, Error> {
        self.inner.lock().state.load(Path::new("memory"))
    }
}
