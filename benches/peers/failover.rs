//! Time without writes after the leader is killed: etcd with its defaults against Plimsoll with its own.

use std::path::Path;
use std::time::{Duration, Instant};

use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::etcd::{self, Etcd};
use crate::{Error, plimsoll_bench, wire};

const PROBE_EVERY: Duration = Duration::from_millis(5);
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
const SETTLE: Duration = Duration::from_millis(1_500);

pub(crate) async fn run(plimsoll: &Path, kills: usize) -> Result<(), Error> {
    let mut outages_ms = Vec::new();
    let mut etcd = Etcd::start().await?;
    for kill in 0..kills {
        let leader = etcd.leader().await?;
        let survivors = etcd.channels(Some(leader))?;
        etcd.kill(leader)?;
        let outage_ms = first_write(&survivors, kill as u64).await?.as_secs_f64() * 1_000.0;
        eprintln!("etcd kill {} of {kills}: {outage_ms:.0} ms", kill + 1);
        outages_ms.push(outage_ms);
        etcd.spawn(leader)?;
        tokio::time::sleep(SETTLE).await;
    }
    drop(etcd);
    outages_ms.sort_by(f64::total_cmp);
    let at = |share: f64| outages_ms[((outages_ms.len() - 1) as f64 * share).round() as usize];
    let ours = plimsoll_bench(plimsoll, &["failover", "--kills", &kills.to_string()]).await?;
    let number = |field: &str| ours[field].as_f64().unwrap_or(f64::NAN);
    println!("{:<10} {:>6} {:>9} {:>9} {:>9}", "system", "kills", "p50 ms", "p99 ms", "max ms");
    println!("{:<10} {kills:>6} {:>9.0} {:>9.0} {:>9.0}", "etcd", at(0.5), at(0.99), at(1.0));
    let (p50, p99, max) = (number("p50_ms"), number("p99_ms"), number("max_ms"));
    println!("{:<10} {kills:>6} {p50:>9.0} {p99:>9.0} {max:>9.0}", "plimsoll");
    println!("etcd's median against ours: {:.2}x", at(0.5) / p50);
    Ok(())
}

/// Time until one of many probes, a new one each 5 ms at each survivor in turn, is committed.
pub(crate) async fn first_write(survivors: &[Channel], run: u64) -> Result<Duration, Error> {
    let begun = Instant::now();
    let (written, mut first) = mpsc::channel::<()>(1);
    let mut turn = 0_u64;
    while begun.elapsed() < Duration::from_secs(120) {
        let channel = survivors[turn as usize % survivors.len()].clone();
        turn += 1;
        let written = written.clone();
        // A node key that nobody wrote before, so that every probe can succeed.
        let txn = etcd::reserve(9_000_000_000 + run * 1_000_000 + turn, 0, 0, 0);
        tokio::spawn(async move {
            let done = tokio::time::timeout(PROBE_TIMEOUT, wire::txn(&channel, txn)).await;
            if matches!(done, Ok(Ok(done)) if done.succeeded) {
                // Only the first one counts.
                let _ = written.try_send(());
            }
        });
        if tokio::time::timeout(PROBE_EVERY, first.recv()).await.is_ok() {
            return Ok(begun.elapsed());
        }
    }
    Err("etcd took no write for two minutes".into())
}
