//! One suite for every implementation: what the traits promise, checked against the same scenarios.

mod engine_suite;
mod wal_suite;

use std::sync::Arc;

use crate::memory::{MemoryEngine, MemoryWal};
use crate::rocks::{RocksEngine, RocksWal};
use crate::sim::SimDisk;
use crate::{Engine, Wal};

pub(crate) use wal_suite::{arbitrary_ops, submit};

/// Opens the same log again and again; each handle is dropped before the next is opened.
type WalHome = Box<dyn Fn() -> Arc<dyn Wal>>;
/// Opens the same engine again and again; each handle is dropped before the next is opened.
type EngineHome = Box<dyn Fn() -> Arc<dyn Engine>>;

fn rocks_wal() -> WalHome {
    let dir = tempfile::tempdir().unwrap();
    Box::new(move || Arc::new(RocksWal::open(dir.path().join("log")).unwrap()))
}

fn rocks_engine() -> EngineHome {
    let dir = tempfile::tempdir().unwrap();
    Box::new(move || Arc::new(RocksEngine::open(dir.path().join("rows")).unwrap()))
}

fn repeatable_rocks_engine() -> EngineHome {
    let dir = tempfile::tempdir().unwrap();
    Box::new(move || Arc::new(RocksEngine::open_repeatable(dir.path().join("rows")).unwrap()))
}

fn memory_wal() -> WalHome {
    let wal: Arc<dyn Wal> = Arc::new(MemoryWal::new());
    Box::new(move || wal.clone())
}

fn memory_engine() -> EngineHome {
    let engine: Arc<dyn Engine> = Arc::new(MemoryEngine::new());
    Box::new(move || engine.clone())
}

fn sim_wal() -> WalHome {
    let disk = SimDisk::new(7);
    Box::new(move || Arc::new(disk.wal()))
}

fn sim_engine() -> EngineHome {
    let disk = SimDisk::new(7);
    Box::new(move || Arc::new(disk.engine()))
}

/// Runs a scenario in a runtime whose clock jumps, so that simulated syncs cost no time.
fn block_on<F: Future>(scenario: F) -> F::Output {
    tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap()
        .block_on(scenario)
}

#[test]
fn rocks_wal_conforms() {
    block_on(wal_suite::run(&rocks_wal));
}

#[test]
fn memory_wal_conforms() {
    block_on(wal_suite::run(&memory_wal));
}

#[test]
fn sim_wal_conforms() {
    block_on(wal_suite::run(&sim_wal));
}

#[test]
fn rocks_engine_conforms() {
    engine_suite::run(&rocks_engine);
}

#[test]
fn repeatable_rocks_engine_conforms() {
    engine_suite::run(&repeatable_rocks_engine);
}

#[test]
fn memory_engine_conforms() {
    engine_suite::run(&memory_engine);
}

#[test]
fn sim_engine_conforms() {
    engine_suite::run(&sim_engine);
}
