//! A running replica reads its own data again, slowly, so that what rots is found before it is needed: the log with its hash
//! chain, the rows and the history with the checksums of their tables, and the snapshots with their hash.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::Duration;

use plimsoll_consensus::ExaminedSnapshot;
use plimsoll_store::{Engine, Wal, with_causes};
use tokio::sync::oneshot;

/// Bytes that are read in a second, at most.
const BYTES_PER_SECOND: u64 = 8 << 20;
/// Bytes that are read at once.
const STEP_BYTES: u64 = 1 << 20;
/// A first pass begins this long after the start, or after the time between passes where that is shorter.
const FIRST_AFTER: Duration = Duration::from_secs(3_600);

/// What a scrubber has done so far.
#[derive(Debug, Default)]
pub struct Scrubbed {
    passes: AtomicU64,
    bytes: AtomicU64,
    findings: AtomicU64,
}

impl Scrubbed {
    /// Passes that came to their end.
    pub fn passes(&self) -> u64 {
        self.passes.load(Ordering::Relaxed)
    }

    /// Bytes read, of keys, values and entries.
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// Damaged things found.
    pub fn findings(&self) -> u64 {
        self.findings.load(Ordering::Relaxed)
    }
}

/// What is read. A scrubber keeps nothing open that its owner has closed.
pub(super) struct Scrubbable {
    pub(super) wal: Weak<dyn Wal>,
    /// Name and rows.
    pub(super) engines: Vec<(&'static str, Weak<dyn Engine>)>,
    pub(super) snapshots: PathBuf,
}

/// The thread that reads. It ends when this is dropped.
pub(super) struct Scrubber {
    stop: Option<Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Scrubber {
    /// Begins a pass `every` so often, a little later after the start. Damage that a replica must not run with goes to
    /// `found`, and ends it.
    ///
    /// # Errors
    /// Where no thread can be started.
    pub(super) fn start(
        what: Scrubbable,
        every: Duration,
        scrubbed: Arc<Scrubbed>,
        found: oneshot::Sender<String>,
    ) -> std::io::Result<Scrubber> {
        let (stop, stopped) = mpsc::channel();
        let pace = Pace { stopped, scrubbed, owed: 0 };
        let thread = std::thread::Builder::new()
            .name("plimsoll-scrub".into())
            .spawn(move || run(&what, every, pace, found))?;
        Ok(Scrubber { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Scrubber {
    fn drop(&mut self) {
        self.stop = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the scrubber's thread panicked");
        }
    }
}

fn run(what: &Scrubbable, every: Duration, mut pace: Pace, found: oneshot::Sender<String>) {
    let mut wait = every.min(FIRST_AFTER);
    while pace.sleep(wait) {
        match pass(what, &mut pace) {
            Ok(true) => {
                pace.scrubbed.passes.fetch_add(1, Ordering::Relaxed);
                tracing::debug!("the data were read once more, and are whole");
            }
            Ok(false) => return,
            Err(damage) => {
                pace.scrubbed.findings.fetch_add(1, Ordering::Relaxed);
                tracing::error!(damage, "the data on this disk are damaged");
                // Nobody waits for it where the coordinator is about to stop.
                let _ = found.send(damage);
                return;
            }
        }
        wait = every;
    }
}

/// Reads everything once. False where it was stopped before the end; an error says what is damaged.
fn pass(what: &Scrubbable, pace: &mut Pace) -> Result<bool, String> {
    let Some(wal) = what.wal.upgrade() else { return Ok(false) };
    wal.verify(&mut |bytes| pace.goes_on(bytes)).map_err(|error| format!("log: {error}"))?;
    drop(wal);
    for (name, engine) in &what.engines {
        let Some(engine) = engine.upgrade() else { return Ok(false) };
        let view = engine.view();
        for row in view.scan(&[], &[]) {
            let (key, value) = row.map_err(|error| format!("{name}: {}", with_causes(&error)))?;
            if !pace.goes_on(key.len() + value.len()) {
                return Ok(false);
            }
        }
    }
    for path in ExaminedSnapshot::files(&what.snapshots) {
        let read = ExaminedSnapshot::read_along(&path, |bytes| {
            // A file is read to its end: nothing else says that it is whole.
            pace.goes_on(bytes);
        });
        match read {
            Ok(_) => {}
            // An old one may go while it is read.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                // The log and the rows have all that it has, and another one will be made.
                pace.scrubbed.findings.fetch_add(1, Ordering::Relaxed);
                tracing::error!(path = %path.display(), %error, "a snapshot is damaged; another will be made");
            }
        }
    }
    Ok(pace.sleep(Duration::ZERO))
}

/// Keeps reading slow, and knows when to stop.
struct Pace {
    stopped: Receiver<()>,
    scrubbed: Arc<Scrubbed>,
    /// Bytes read since the last pause.
    owed: u64,
}

impl Pace {
    /// So many bytes were read: pauses where it is time to. False where there is to be no more.
    fn goes_on(&mut self, bytes: usize) -> bool {
        let bytes = bytes as u64;
        self.scrubbed.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.owed += bytes;
        if self.owed < STEP_BYTES {
            return true;
        }
        let pause_ms = self.owed * 1_000 / BYTES_PER_SECOND;
        self.owed = 0;
        self.sleep(Duration::from_millis(pause_ms))
    }

    fn sleep(&self, length: Duration) -> bool {
        self.stopped.recv_timeout(length) == Err(RecvTimeoutError::Timeout)
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_store::rocks::{RocksEngine, RocksWal};
    use plimsoll_store::{Op, WriteBatch};

    use super::*;

    /// A log and rows, the rows in a table.
    fn stores(dir: &std::path::Path) -> (Arc<dyn Wal>, Arc<dyn Engine>) {
        let wal = RocksWal::open(dir.join("log")).expect("opens");
        let (done, synced) = mpsc::channel();
        let ops = (1..=100).map(|index| Op::Put { index, bytes: vec![7; 500].into() }).collect();
        wal.submit(ops, Box::new(move |outcome| done.send(outcome).expect("waited for")));
        synced.recv().expect("told").expect("synced");
        let engine = RocksEngine::open_repeatable(dir.join("state")).expect("opens");
        let mut batch = WriteBatch::new();
        for row in 0..200_u32 {
            let noise: Vec<u8> =
                (0..400).map(|at: u32| (row.wrapping_mul(31) ^ at.wrapping_mul(row)) as u8).collect();
            batch.put(row.to_be_bytes().to_vec(), noise);
        }
        engine.write(batch).expect("written");
        engine.sync().expect("in a table");
        (Arc::new(wal), Arc::new(engine))
    }

    fn scrub(dir: &std::path::Path, stores: &(Arc<dyn Wal>, Arc<dyn Engine>)) -> Result<bool, String> {
        let (_stop, stopped) = mpsc::channel();
        let what = Scrubbable {
            wal: Arc::downgrade(&stores.0),
            engines: vec![("state", Arc::downgrade(&stores.1))],
            snapshots: dir.join("snapshots"),
        };
        let mut pace = Pace { stopped, scrubbed: Arc::default(), owed: 0 };
        let outcome = pass(&what, &mut pace);
        if outcome == Ok(true) {
            assert!(pace.scrubbed.bytes() > 100_000, "{} bytes", pace.scrubbed.bytes());
        }
        outcome
    }

    #[test]
    fn a_bit_that_turns_in_a_table_of_an_open_store_is_found() {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = stores(dir.path());
        assert_eq!(scrub(dir.path(), &stores), Ok(true));
        let table = std::fs::read_dir(dir.path().join("state")).expect("a folder").flatten();
        let table =
            table.map(|file| file.path()).find(|path| path.extension().is_some_and(|kind| kind == "sst"));
        let table = table.expect("a table");
        let mut bytes = std::fs::read(&table).expect("readable");
        bytes[2_000] ^= 16;
        std::fs::write(&table, bytes).expect("written");
        let damage = scrub(dir.path(), &stores).expect_err("found");
        assert!(damage.starts_with("state: "), "{damage}");
    }

    #[test]
    fn a_scrubber_ends_when_it_is_dropped_and_when_its_stores_are_gone() {
        let dir = tempfile::tempdir().expect("a directory");
        let stores = stores(dir.path());
        let what = Scrubbable {
            wal: Arc::downgrade(&stores.0),
            engines: Vec::new(),
            snapshots: dir.path().join("snapshots"),
        };
        let scrubbed = Arc::new(Scrubbed::default());
        let (found, mut heard) = oneshot::channel();
        let every = Duration::from_millis(10);
        let scrubber = Scrubber::start(what, every, Arc::clone(&scrubbed), found).expect("a thread");
        let until = std::time::Instant::now() + Duration::from_secs(20);
        while scrubbed.passes() < 3 {
            assert!(std::time::Instant::now() < until, "it never passes");
            std::thread::sleep(Duration::from_millis(5));
        }
        drop(scrubber);
        assert!(heard.try_recv().is_err(), "nothing was found");
        assert_eq!(scrubbed.findings(), 0);
    }
}
