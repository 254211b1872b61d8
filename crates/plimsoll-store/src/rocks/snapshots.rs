//! The thread that owns every snapshot of an engine.
//!
//! A RocksDB snapshot borrows its database, so it cannot lie in a value that moves to another thread together with the
//! database. Here both stay on the stack of one thread, and views ask it by message, a page of rows at a time.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use rocksdb::{DB, ReadOptions, Snapshot};

use super::error;
use crate::Error;

/// A page ends after so many rows, or
const PAGE_ROWS: usize = 1_024;
/// after so many bytes, whichever comes first.
const PAGE_BYTES: usize = 1 << 20;

/// Some rows of a scan, in key order.
#[derive(Debug, Default)]
pub(super) struct Page {
    pub(super) rows: Vec<(Bytes, Bytes)>,
    /// Where the next page starts; `None` after the last row.
    pub(super) next: Option<Vec<u8>>,
}

/// An answer on its way.
pub(super) type Asked<T> = Receiver<Result<T, Error>>;

enum Request {
    Open { id: u64, reply: Sender<()> },
    Get { id: u64, key: Vec<u8>, reply: Sender<Result<Option<Bytes>, Error>> },
    Page { id: u64, prefix: Vec<u8>, from: Vec<u8>, reply: Sender<Result<Page, Error>> },
    Close { id: u64 },
}

/// A handle of the thread. The thread ends, and lets go of the database, with the last handle.
pub(super) struct Snapshots {
    requests: Option<Sender<Request>>,
    thread: Option<JoinHandle<()>>,
    next_id: AtomicU64,
    dir: PathBuf,
}

impl Snapshots {
    /// Starts the thread.
    pub(super) fn start(db: Arc<DB>, dir: PathBuf) -> io::Result<Self> {
        let (requests, inbox) = mpsc::channel();
        let owned_dir = dir.clone();
        let thread = thread::Builder::new()
            .name("plimsoll-snapshots".into())
            .spawn(move || serve(&db, &owned_dir, &inbox))?;
        Ok(Self { requests: Some(requests), thread: Some(thread), next_id: AtomicU64::new(0), dir })
    }

    /// Takes a snapshot; when this returns it exists.
    pub(super) fn open(&self) -> u64 {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        // A thread that is gone is reported by the first read, which can return an error.
        let _taken = self.ask(|reply| Request::Open { id, reply });
        id
    }

    /// Lets a snapshot go.
    pub(super) fn close(&self, id: u64) {
        if let Some(requests) = &self.requests {
            let _gone = requests.send(Request::Close { id });
        }
    }

    pub(super) fn get(&self, id: u64, key: &[u8]) -> Result<Option<Bytes>, Error> {
        self.ask(|reply| Request::Get { id, key: key.to_vec(), reply })?
    }

    /// Asks for a page, which is read while the caller does other things.
    pub(super) fn page(&self, id: u64, prefix: &[u8], from: Vec<u8>) -> Asked<Page> {
        self.send(|reply| Request::Page { id, prefix: prefix.to_vec(), from, reply })
    }

    /// Waits for a page that was asked for.
    pub(super) fn wait(&self, page: &Asked<Page>) -> Result<Page, Error> {
        self.receive(page)?
    }

    fn ask<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Result<T, Error> {
        self.receive(&self.send(request))
    }

    fn send<T>(&self, request: impl FnOnce(Sender<T>) -> Request) -> Receiver<T> {
        let (reply, answer) = mpsc::channel();
        // Where nobody takes it, the reply is dropped with it, and the receiver says so.
        let _gone = self.requests.as_ref().map(|requests| requests.send(request(reply)));
        answer
    }

    fn receive<T>(&self, answer: &Receiver<T>) -> Result<T, Error> {
        answer.recv().map_err(|_| {
            Error::failed("read snapshot", &self.dir, io::Error::other("the snapshot thread is gone"))
        })
    }
}

impl Drop for Snapshots {
    fn drop(&mut self) {
        self.requests = None;
        if self.thread.take().is_some_and(|thread| thread.join().is_err()) {
            tracing::error!("the snapshot thread panicked");
        }
    }
}

fn serve(db: &DB, dir: &Path, inbox: &Receiver<Request>) {
    let mut snapshots: BTreeMap<u64, Snapshot<'_>> = BTreeMap::new();
    // A reply that nobody waits for any more is no error.
    for request in inbox {
        match request {
            Request::Open { id, reply } => {
                snapshots.insert(id, db.snapshot());
                let _unheard = reply.send(());
            }
            Request::Get { id, key, reply } => {
                let value = find(&snapshots, dir, id).and_then(|snapshot| {
                    snapshot.get(key).map_err(|source| error("read snapshot", dir, source))
                });
                let _unheard = reply.send(value.map(|value| value.map(Bytes::from)));
            }
            Request::Page { id, prefix, from, reply } => {
                let page = find(&snapshots, dir, id).and_then(|snapshot| {
                    read_page(snapshot, &prefix, &from).map_err(|source| error("read snapshot", dir, source))
                });
                let _unheard = reply.send(page);
            }
            Request::Close { id } => drop(snapshots.remove(&id)),
        }
    }
}

fn find<'s, 'db>(
    snapshots: &'s BTreeMap<u64, Snapshot<'db>>,
    dir: &Path,
    id: u64,
) -> Result<&'s Snapshot<'db>, Error> {
    snapshots
        .get(&id)
        .ok_or_else(|| Error::failed("read snapshot", dir, io::Error::other("the snapshot was never taken")))
}

fn read_page(snapshot: &Snapshot<'_>, prefix: &[u8], from: &[u8]) -> Result<Page, rocksdb::Error> {
    let mut options = ReadOptions::default();
    options.fill_cache(false);
    let mut rows = snapshot.raw_iterator_opt(options);
    let mut next = None;
    // One allocation for all rows of the page: they are let go of on another thread, where each one would cost.
    let mut bytes = Vec::with_capacity(PAGE_BYTES / 4);
    let mut ends = Vec::with_capacity(PAGE_ROWS);
    rows.seek(from);
    while let Some((key, value)) = rows.item() {
        if !key.starts_with(prefix) {
            break;
        }
        if ends.len() >= PAGE_ROWS || bytes.len() >= PAGE_BYTES {
            next = Some(key.to_vec());
            break;
        }
        bytes.extend_from_slice(key);
        let middle = bytes.len();
        bytes.extend_from_slice(value);
        ends.push((middle, bytes.len()));
        rows.next();
    }
    rows.status()?;
    let bytes = Bytes::from(bytes);
    let mut start = 0;
    let row = |(middle, end)| {
        let row = (bytes.slice(start..middle), bytes.slice(middle..end));
        start = end;
        row
    };
    Ok(Page { rows: ends.into_iter().map(row).collect(), next })
}
