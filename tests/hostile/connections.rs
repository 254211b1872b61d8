//! Connections that never become calls: garbage, silence, one byte a second, the wrong protocol.

use std::time::{Duration, Instant};

use plimsoll_tests::hostile::{Target, Wire, request_head};
use tokio::task::JoinSet;

use super::{BOUND, assert_unharmed, stage};

const SECOND: Duration = Duration::from_secs(1);
/// Silence, and a beginning that takes too long, end after ten seconds.
const SILENCE: Duration = Duration::from_secs(14);
const RESERVE: &str = "/plimsoll.v1.ReservationService/CreateReservation";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_instead_of_a_preface_is_hung_up_on() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    let mut noise = Vec::new();
    for index in 0..64_u32 {
        noise.extend_from_slice(&index.wrapping_mul(2_654_435_761).to_le_bytes());
    }
    let beginnings: [&[u8]; 6] = [
        &noise,
        b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n",
        b"POST /plimsoll.v1.ClusterService/GetStatus HTTP/1.1\r\nhost: x\r\ncontent-length: 4000000000\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\nno frame of any kind, but many words of it",
        b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        &[0; 4_096],
    ];
    for beginning in beginnings {
        for _ in 0..20 {
            let mut wire = Wire::connect(&target.address).await;
            wire.send(beginning).await;
            let ended = wire.ended(SILENCE).await;
            assert!(ended.is_some(), "{:?} was never hung up on", String::from_utf8_lossy(beginning));
        }
    }
    assert_unharmed(&mut target, pulse, before, 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_thousand_silent_connections_stop_nobody_and_are_closed() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    let mut silent = JoinSet::new();
    let began = Instant::now();
    for _ in 0..2_000 {
        let mut wire = Wire::connect(&target.address).await;
        silent.spawn(async move { wire.ended(Duration::from_secs(30)).await });
    }
    let made = began.elapsed();
    let mut latest = Duration::ZERO;
    while let Some(ended) = silent.join_next().await {
        let ended = ended.expect("no panic").expect("a silent connection was never closed");
        latest = latest.max(ended.after);
    }
    println!("2000 connections in {made:?}, the last was closed after {latest:?}");
    assert!(latest <= SILENCE + made, "{latest:?}");
    assert_unharmed(&mut target, pulse, before, 160).await;
}

/// Sends bytes one by one, each second or when the other side hangs up; how long that took.
async fn drip(mut wire: Wire, bytes: &[u8], patience: Duration) -> Option<Duration> {
    let began = Instant::now();
    for byte in bytes {
        if !wire.send(&[*byte]).await {
            return Some(began.elapsed());
        }
        if wire.ended(SECOND).await.is_some() {
            return Some(began.elapsed());
        }
        if began.elapsed() > patience {
            return None;
        }
    }
    wire.ended(patience.saturating_sub(began.elapsed())).await.map(|_| began.elapsed())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_beginning_that_takes_for_ever_is_hung_up_on() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    let patience = Duration::from_secs(40);
    let mut drips = JoinSet::new();
    for count in [1_usize, 12, 24] {
        let wire = Wire::connect(&target.address).await;
        let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
        let bytes = preface[..count].to_vec();
        drips.spawn(
            async move { (format!("{count} bytes of the preface"), drip(wire, &bytes, patience).await) },
        );
    }
    let wire = Wire::open(&target.address, &[]).await;
    drips.spawn(async move { ("no call".to_owned(), drip(wire, &[], patience).await) });
    let wire = Wire::open(&target.address, &[]).await;
    let head = request_head(1, RESERVE, &[("x-filler", &"x".repeat(4_000))]);
    drips.spawn(async move { ("headers".to_owned(), drip(wire, &head, patience).await) });
    // A call whose message comes byte by byte, each in a frame of its own.
    let mut wire = Wire::open(&target.address, &[]).await;
    drips.spawn(async move {
        let began = Instant::now();
        wire.send(&request_head(1, RESERVE, &[])).await;
        wire.send(&plimsoll_tests::hostile::frame(0, 0, 1, &[0, 0, 0, 100, 0])).await;
        let mut answered = None;
        while answered.is_none() && began.elapsed() < patience {
            wire.send(&plimsoll_tests::hostile::frame(0, 0, 1, b"x")).await;
            let ended = wire
                .be_polite(SECOND, |frame| {
                    // HEADERS or RST_STREAM of the call: it was answered.
                    if frame.stream == 1 && (frame.kind == 1 || frame.kind == 3) {
                        answered.get_or_insert_with(|| began.elapsed());
                    }
                })
                .await;
            if ended.is_some() {
                answered.get_or_insert_with(|| began.elapsed());
            }
        }
        ("message".to_owned(), answered)
    });
    // And the page for people.
    let wire = Wire::connect(&target.http).await;
    let head = format!("GET /metrics HTTP/1.1\r\nx: {}", "y".repeat(200));
    drips.spawn(async move { ("HTTP/1 headers".to_owned(), drip(wire, head.as_bytes(), patience).await) });
    let mut never = Vec::new();
    while let Some(done) = drips.join_next().await {
        let (what, after) = done.expect("no panic");
        println!("{what}: {after:?}");
        if after.is_none() {
            never.push(what);
        }
    }
    assert!(never.is_empty(), "never hung up on: {never:?}");
    assert_unharmed(&mut target, pulse, before, 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_hello_at_a_plain_port_is_hung_up_on() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    // The head of a handshake record, the beginning of a ClientHello, and nothing sensible in it.
    let hello = [&[0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03][..], &[7; 501]].concat();
    for address in [&target.address, &target.http] {
        for _ in 0..20 {
            let mut wire = Wire::connect(address).await;
            wire.send(&hello).await;
            assert!(wire.ended(SILENCE).await.is_some(), "{address}");
        }
    }
    assert_unharmed(&mut target, pulse, before, 32).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_tls_port_hangs_up_on_plain_bytes_and_on_unfinished_handshakes() {
    let mut target = Target::start_tls("[limits]\nconnections_per_source = 40\n").await;
    let (before, _) = target.memory_mib();
    for beginning in [
        &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"[..],
        b"GET / HTTP/1.1\r\n\r\n",
        &[0x16, 3, 1],
        &[0x16, 3, 1, 0xff, 0xff],
    ] {
        for address in [&target.address, &target.http] {
            let mut wire = Wire::connect(address).await;
            wire.send(beginning).await;
            let ended = wire.ended(Duration::from_secs(8)).await;
            assert!(ended.is_some(), "{beginning:?} at {address} was never hung up on");
        }
    }
    // Half a handshake each, and more of them than one source may have.
    let mut open = Vec::new();
    for _ in 0..60 {
        let mut wire = Wire::connect(&target.address).await;
        wire.send(&[0x16, 3, 1, 2, 0]).await;
        open.push(wire);
    }
    tokio::time::sleep(Duration::from_secs(7)).await;
    for mut wire in open {
        assert!(wire.ended(SECOND).await.is_some(), "a handshake that never goes on is given up after 5 s");
    }
    let began = Instant::now();
    let status = target.cli(&["cluster", "status"]);
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stderr));
    assert!(began.elapsed() < BOUND);
    assert!(target.exit().is_none(), "{}", target.log());
    let (_, peak) = target.memory_mib();
    assert!(peak <= before + 64, "{peak} MiB, {before} before");
}
