//! Memory with many live reservations, and the time to the first write after all members were killed.

use std::path::Path;
use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use tonic::transport::Channel;

use crate::etcd::Etcd;
use crate::failover::first_write;
use crate::{Error, plimsoll_bench, wire};

/// Keys of one transaction: below etcd's own limit of 128.
const KEYS_TOGETHER: usize = 120;
const FILLERS: usize = 16;
const KILLS: usize = 3;

pub(crate) async fn run(plimsoll: &Path, reservations: usize) -> Result<(), Error> {
    let mut etcd = Etcd::start().await?;
    let channels = etcd.channels(None)?;
    let lease = wire::lease(&channels[0], 86_400).await?;
    let fills =
        (0..reservations.div_ceil(KEYS_TOGETHER)).map(|part| fill(channels[part % 3].clone(), part, lease));
    stream::iter(fills).buffer_unordered(FILLERS).try_collect::<Vec<()>>().await?;
    let full = largest(&etcd);
    let mut restarts_ms = Vec::new();
    for kill in 0..KILLS {
        for index in 0..3 {
            etcd.kill(index)?;
        }
        let begun = Instant::now();
        for index in 0..3 {
            etcd.spawn(index)?;
        }
        first_write(&etcd.channels(None)?, 1_000 + kill as u64).await?;
        restarts_ms.push(begun.elapsed().as_secs_f64() * 1_000.0);
        eprintln!("etcd restart {} of {KILLS}: {:.0} ms", kill + 1, restarts_ms[kill]);
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    let after = largest(&etcd);
    drop(etcd);
    restarts_ms.sort_by(f64::total_cmp);
    let theirs_ms = restarts_ms[KILLS / 2];
    let count = reservations.to_string();
    let ours = plimsoll_bench(plimsoll, &["restart", "--reservations", &count, "--kills", "3"]).await?;
    let bytes = |field: &str| {
        ours[field].as_array().into_iter().flatten().filter_map(serde_json::Value::as_u64).max().unwrap_or(0)
    };
    let ours_ms = ours["restart_ms_median"].as_f64().unwrap_or(f64::NAN);
    println!(
        "{:<10} {:>13} {:>13} {:>19} {:>11}",
        "system", "reservations", "resident MiB", "after restart MiB", "restart ms"
    );
    println!("{:<10} {reservations:>13} {:>13} {:>19} {theirs_ms:>11.0}", "etcd", full >> 20, after >> 20);
    let (full, after) = (bytes("resident_bytes"), bytes("resident_bytes_after_restart"));
    println!("{:<10} {reservations:>13} {:>13} {:>19} {ours_ms:>11.0}", "plimsoll", full >> 20, after >> 20);
    let word = if theirs_ms / ours_ms >= 3.0 { "met" } else { "MISSED" };
    println!("etcd's restart against ours: {:.1}x, floor 3x: {word}", theirs_ms / ours_ms);
    Ok(())
}

async fn fill(channel: Channel, part: usize, lease: i64) -> Result<(), Error> {
    let put = |index| {
        let key = format!("reservation/{part:06}/{index:03}").into_bytes();
        wire::RequestOp::put(key, vec![b'r'; 160], lease)
    };
    let txn = wire::Txn { compare: Vec::new(), success: (0..KEYS_TOGETHER).map(put).collect() };
    wire::txn(&channel, txn).await?;
    Ok(())
}

fn largest(etcd: &Etcd) -> u64 {
    etcd.pids().into_iter().filter_map(plimsoll_load::resident_bytes).max().unwrap_or(0)
}
