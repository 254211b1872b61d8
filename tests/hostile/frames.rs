//! Frames in the wrong number: resets, settings, pings, headers without end, streams without end.

use std::time::{Duration, Instant};

use plimsoll_tests::hostile::{Ended, Target, Wire, frame, kind, request_head};

use super::{assert_unharmed, stage};

const STATUS: &str = "/plimsoll.v1.ClusterService/GetStatus";
const WATCH: &str = "/plimsoll.v1.WatchService/Watch";
/// How long one attack goes on, unless it is cut off before.
const ATTACK: Duration = Duration::from_secs(10);

/// Sends what `next` gives, as fast as it is taken and without reading, until the other side hangs up. How that was, and how
/// many were sent.
async fn flood(target: &Target, mut next: impl FnMut(u32) -> Vec<u8>) -> (Option<Ended>, u32) {
    let mut wire = Wire::open(&target.address, &[]).await;
    let began = Instant::now();
    let mut count = 0;
    while began.elapsed() < ATTACK {
        let mut bytes = Vec::new();
        for _ in 0..100 {
            bytes.extend(next(count));
            count += 1;
        }
        if !wire.send(&bytes).await {
            break;
        }
    }
    // What it said last is there, or was lost with the reset that follows unread bytes.
    (wire.ended(Duration::from_secs(5)).await, count)
}

/// One flood, the end of which must come, with how it was.
async fn is_cut_off(target: &Target, what: &str, next: impl FnMut(u32) -> Vec<u8>) {
    let began = Instant::now();
    let (ended, count) = flood(target, next).await;
    println!("{what}: {count} frames in {:?}, then {ended:?}", began.elapsed());
    let ended = ended.unwrap_or_else(|| panic!("{what} went on for {ATTACK:?}: {count} frames"));
    if let Some((code, words)) = ended.goaway {
        assert_ne!(code, 2, "{what} is no fault of ours: {words}");
    }
    assert!(began.elapsed() < ATTACK, "{what} was taken for {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frames_that_ask_for_nothing_are_cut_off() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    is_cut_off(&target, "pings", |_| frame(kind::PING, 0, 0, &[1; 8])).await;
    is_cut_off(&target, "settings", |_| frame(kind::SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 100])).await;
    is_cut_off(&target, "empty settings", |_| frame(kind::SETTINGS, 0, 0, &[])).await;
    is_cut_off(&target, "priorities", |count| {
        frame(kind::PRIORITY, 0, 1 + 2 * (count % 1_000), &[0, 0, 0, 0, 16])
    })
    .await;
    is_cut_off(&target, "frames of no known kind", |_| frame(0x77, 0, 0, &[0; 16])).await;
    is_cut_off(&target, "window updates", |_| frame(kind::WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes())).await;
    is_cut_off(&target, "window updates of nothing", |_| frame(kind::WINDOW_UPDATE, 0, 0, &[0; 4])).await;
    assert_unharmed(&mut target, pulse, before, 48).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_of_empty_parts_is_cut_off() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    is_cut_off(&target, "empty parts of a message", |count| {
        if count == 0 { request_head(1, STATUS, &[]) } else { frame(kind::DATA, 0, 1, &[]) }
    })
    .await;
    assert_unharmed(&mut target, pulse, before, 48).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_are_opened_and_reset_at_once_are_cut_off() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    for path in [STATUS, WATCH, "/no/such/method"] {
        is_cut_off(&target, &format!("rapid resets of {path}"), |count| {
            let stream = 1 + 2 * count;
            let cancel = 8_u32.to_be_bytes();
            [request_head(stream, path, &[]), frame(kind::RST_STREAM, 0, stream, &cancel)].concat()
        })
        .await;
    }
    assert_unharmed(&mut target, pulse, before, 64).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn headers_without_end_are_cut_off() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    // HEADERS without END_HEADERS, then CONTINUATION after CONTINUATION: full ones, small ones, empty ones.
    for size in [8_000_usize, 100, 0] {
        let mut part = Vec::new();
        while part.len() + 110 <= size {
            // A header of its own in each hundred bytes: what is whole in a part is decoded.
            part.extend_from_slice(&[0, 4, b'x', b'-', b'x', b'x', 96]);
            part.extend_from_slice(&[b'y'; 96]);
        }
        is_cut_off(&target, &format!("continuations of {size} bytes"), |count| {
            let kind = if count == 0 { kind::HEADERS } else { kind::CONTINUATION };
            frame(kind, 0, 1, &part)
        })
        .await;
    }
    // One list that is whole, and a little more than what is taken: its call is refused, or the connection.
    let mut wire = Wire::open(&target.address, &[]).await;
    let filler = "z".repeat(16_200);
    let head = request_head(1, STATUS, &[("x-a", &filler)]);
    wire.send(&head).await;
    let mut answered = false;
    let ended = wire.be_polite(Duration::from_secs(3), |frame| answered |= frame.stream == 1).await;
    assert!(answered || ended.is_some(), "a list of headers that is too long is answered");
    assert_unharmed(&mut target, pulse, before, 48).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn more_streams_than_allowed_are_refused_one_by_one() {
    // Clients alone: at a port that coordinators use, too, more are allowed.
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    let mut wire = Wire::open(&target.address, &[]).await;
    let mut bytes = Vec::new();
    for index in 0..20_000_u32 {
        bytes.extend(request_head(1 + 2 * index, "/plimsoll.v1.ReservationService/CreateReservation", &[]));
    }
    let mut sent = true;
    for part in bytes.chunks(64 << 10) {
        sent = sent && wire.send(part).await;
    }
    let mut refused = 0;
    let ended = wire
        .be_polite(Duration::from_secs(5), |frame| {
            // REFUSED_STREAM, or an answer.
            refused += u32::from(frame.kind == kind::RST_STREAM);
        })
        .await;
    println!("20000 calls without a message: {refused} refused, ended {ended:?}");
    drop(wire);
    assert_unharmed(&mut target, pulse, before, 256).await;
}
