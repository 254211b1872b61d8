//! Durable grants a second: etcd's reserve transaction against Plimsoll's unary, streamed and batched grants.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::Duration;

use plimsoll_load::{Done, LoopConfig, Measured, closed_loop};
use serde_json::Value;
use tonic::transport::Channel;

use crate::etcd::{self, Etcd};
use crate::{Error, plimsoll_bench, wire};

/// Requests in flight that are measured.
const IN_FLIGHT: [usize; 3] = [1, 64, 1_024];
const WARM_UP: Duration = Duration::from_secs(1);
const MEASURE: Duration = Duration::from_secs(4);

/// A client's node key: its number, how often it was written, and the revision that it had last.
#[derive(Default)]
struct NodeKey {
    turn: AtomicU64,
    known: AtomicI64,
}

pub(crate) async fn run(plimsoll: &Path) -> Result<(), Error> {
    println!(
        "{:<16} {:>9} {:>11} {:>9} {:>9} {:>12} {:>9}",
        "system", "in flight", "grants/s", "p50 ms", "p99 ms", "cpu us/grant", "x etcd"
    );
    let (mut best, mut unloaded_ms) = (0.0_f64, 0.0);
    {
        let etcd = Etcd::start().await?;
        let channels = etcd.channels(None)?;
        let lease = wire::lease(&channels[0], 3_600).await?;
        for (round, in_flight) in IN_FLIGHT.into_iter().enumerate() {
            let before = etcd.cpu_us();
            let measured = reserve_loop(&channels, in_flight, lease, round as u64).await;
            let cpu_us = (etcd.cpu_us() - before) as f64 * share() / measured.done.max(1) as f64;
            if let Some(why) = &measured.failure {
                eprintln!("etcd: {} failed: {why}", measured.failed);
            }
            best = best.max(measured.per_s());
            if in_flight == 1 {
                unloaded_ms = measured.quantile_ms(0.5);
            }
            let (p50, p99) = (measured.quantile_ms(0.5), measured.quantile_ms(0.99));
            println!(
                "{:<16} {in_flight:>9} {:>11.0} {p50:>9.3} {p99:>9.3} {cpu_us:>12.1} {:>9}",
                "etcd reserve",
                measured.per_s(),
                ""
            );
        }
    }
    let ours = plimsoll_bench(plimsoll, &["grants", "--local", "3"]).await?;
    for row in ours["rows"].as_array().into_iter().flatten() {
        let number = |field: &str| row[field].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:<16} {:>9.0} {:>11.0} {:>9.3} {:>9.3} {:>12.1} {:>8.1}x",
            format!("plimsoll {}", row["mode"].as_str().unwrap_or("?")),
            number("in_flight"),
            number("grants_per_s"),
            number("p50_ms"),
            number("p99_ms"),
            number("cpu_us_per_grant"),
            number("grants_per_s") / best,
        );
    }
    let most = |mode: &str| best_of(&ours, mode, "grants_per_s");
    let one_ms = ours["rows"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|row| row["mode"] == "unary" && row["in_flight"] == 1)
        .and_then(|row| row["p50_ms"].as_f64())
        .unwrap_or(f64::NAN);
    println!("floors of this machine: {}", ours["floors"]);
    verdict("unary, best against etcd's best", most("unary") / best, 2.0);
    verdict("streamed, best against etcd's best", most("stream") / best, 10.0);
    verdict("batched, best against etcd's best", most("batch") / best, 10.0);
    verdict("etcd's unloaded median against ours", unloaded_ms / one_ms, 1.0);
    Ok(())
}

fn verdict(what: &str, ratio: f64, floor: f64) {
    let word = if ratio >= floor { "met" } else { "MISSED" };
    println!("{what}: {ratio:.2}x, floor {floor}x: {word}");
}

fn best_of(document: &Value, mode: &str, field: &str) -> f64 {
    let rows = document["rows"].as_array().into_iter().flatten().filter(|row| row["mode"] == mode);
    rows.filter_map(|row| row[field].as_f64()).fold(0.0, f64::max)
}

/// The measured part of the time over which CPU was counted.
fn share() -> f64 {
    MEASURE.as_secs_f64() / (MEASURE + WARM_UP).as_secs_f64()
}

async fn reserve_loop(channels: &[Channel], in_flight: usize, lease: i64, round: u64) -> Measured {
    let keys: Arc<Vec<NodeKey>> = Arc::new((0..in_flight).map(|_| NodeKey::default()).collect());
    let channels = channels.to_vec();
    let config = LoopConfig { in_flight, warm_up: WARM_UP, measure: MEASURE };
    closed_loop(config, move |worker| {
        let channel = channels[worker % channels.len()].clone();
        reserve(channel, Arc::clone(&keys), worker, round * 1_000_000 + worker as u64, lease)
    })
    .await
}

async fn reserve(channel: Channel, keys: Arc<Vec<NodeKey>>, worker: usize, node: u64, lease: i64) -> Done {
    let key = &keys[worker];
    let turn = key.turn.fetch_add(1, Ordering::Relaxed);
    let txn = etcd::reserve(node, turn, key.known.load(Ordering::Relaxed), lease);
    let done = wire::txn(&channel, txn).await.map_err(|status| status.to_string())?;
    if !done.succeeded {
        return Err("the node key was another".to_owned());
    }
    key.known.store(done.header.map_or(0, |header| header.revision), Ordering::Relaxed);
    Ok(1)
}
