//! Answers that nobody reads: flow control that never opens, at calls and at watches.

use std::time::{Duration, Instant};

use plimsoll_client::{Client, v1};
use plimsoll_tests::hostile::Wire;
use prost::Message as _;
use tokio::task::JoinSet;

use super::{assert_unharmed, stage};

const LIST: &str = "/plimsoll.v1.ReservationService/ListReservations";
const WATCH: &str = "/plimsoll.v1.WatchService/Watch";
/// Setting: bytes of a stream that may be sent unasked.
const INITIAL_WINDOW: u16 = 4;
const CONNECTIONS: usize = 40;
const STREAMS: u32 = 100;

/// So many reservations that a page of them is large.
async fn fill(client: &Client, count: usize) {
    for from in (0..count).step_by(500) {
        let create = |index: usize| {
            let amounts = v1::Quantities { cpu_millis: 1, ..Default::default() };
            let labels = (0..20).map(|label| (format!("label-{label}"), "v".repeat(50))).collect();
            let spec = v1::ReservationSpec {
                name: format!("r-{index}"),
                labels,
                requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
                ttl_ms: 3_600_000,
                auto_confirm: true,
                wait: Some(v1::WaitPolicy { queue: true, deadline_ms: 0 }),
                ..Default::default()
            };
            v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
        };
        let requests = (from..(from + 500).min(count)).map(create).collect();
        let request = v1::BatchCreateReservationsRequest { requests };
        client.batch_create_reservations(request).await.expect("taken");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_that_nobody_reads_are_given_up_and_take_little_memory() {
    let (mut target, _nodes, pulse) = stage("").await;
    fill(&target.client().await, 2_000).await;
    let (before, _) = target.memory_mib();
    let list = v1::ListReservationsRequest { page_size: 1_000, ..Default::default() }.encode_to_vec();
    for window in [0, 1] {
        let began = Instant::now();
        let mut open = JoinSet::new();
        for _ in 0..CONNECTIONS {
            let mut wire = Wire::open(&target.address, &[(INITIAL_WINDOW, window)]).await;
            for index in 0..STREAMS {
                wire.call(1 + 2 * index, LIST, &list).await;
            }
            // Pings are answered all the time: it is there, it only does not read.
            open.spawn(async move { wire.be_polite(Duration::from_secs(110), |_| ()).await });
        }
        let mut latest = Duration::ZERO;
        let mut never = 0;
        while let Some(ended) = open.join_next().await {
            match ended.expect("no panic") {
                Some(ended) => latest = latest.max(ended.after),
                None => never += 1,
            }
        }
        let (now, peak) = target.memory_mib();
        println!(
            "window {window}: the last after {latest:?} of {:?}, {now} MiB, {peak} at most",
            began.elapsed()
        );
        assert_eq!(never, 0, "connections whose answers nobody reads are kept for ever (window {window})");
    }
    assert_unharmed(&mut target, pulse, before, 400).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watches_that_nobody_reads_take_little_memory_and_stop_nobody() {
    let (mut target, _nodes, pulse) = stage("").await;
    let client = target.client().await;
    fill(&client, 1_000).await;
    let (before, _) = target.memory_mib();
    let watch = v1::WatchRequest { include_initial: true, ..Default::default() }.encode_to_vec();
    let mut open = JoinSet::new();
    for _ in 0..CONNECTIONS {
        let mut wire = Wire::open(&target.address, &[(INITIAL_WINDOW, 1)]).await;
        for index in 0..STREAMS {
            wire.call(1 + 2 * index, WATCH, &watch).await;
        }
        open.spawn(async move { wire.be_polite(Duration::from_secs(20), |_| ()).await });
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    // Events come while they do not read.
    fill(&client, 4_000).await;
    while open.join_next().await.is_some() {}
    assert_unharmed(&mut target, pulse, before, 700).await;
}
