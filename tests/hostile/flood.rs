//! Far more requests than can be served: memory stays bounded, refusals say when to come back, and those who keep or give
//! back what they have are served all the time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use plimsoll_client::reason::Details;
use plimsoll_client::v1;
use plimsoll_client::v1::reservation_service_client::ReservationServiceClient;
use plimsoll_client::v1::stream_reservations_request::Request as StreamRequest;
use plimsoll_tests::hostile::Wire;
use prost::Message as _;
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tonic::codegen::tokio_stream::wrappers::ReceiverStream;
use tonic::transport::{Channel, Endpoint};

use super::{BOUND, assert_unharmed, stage};

/// How long the flood goes on.
const LENGTH: Duration = Duration::from_secs(12);
/// Connections that flood, by single calls and by streams, and calls in flight on each of the former.
const LANES: usize = 16;
const IN_FLIGHT: usize = 64;
/// Requests in flight on each stream: more than the intake takes, so that there is never room for all that come together.
const STREAM_IN_FLIGHT: usize = 800;
/// Leases that must be kept alive in the meantime.
const LEASES: usize = 20;
/// Memory that all of it may take.
const MOST_MIB: u64 = 700;

fn request(name: String) -> v1::CreateReservationRequest {
    let amounts = v1::Quantities { cpu_millis: 1, ..Default::default() };
    let spec = v1::ReservationSpec {
        name,
        requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
        ttl_ms: 30_000,
        auto_confirm: true,
        wait: Some(v1::WaitPolicy { queue: true, deadline_ms: 0 }),
        ..Default::default()
    };
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let request_id = format!("flood-{:018}", NEXT.fetch_add(1, Ordering::Relaxed));
    v1::CreateReservationRequest { request_id, spec: Some(spec), ..Default::default() }
}

async fn channel(address: &str) -> Channel {
    Endpoint::from_shared(format!("http://{address}"))
        .expect("an address")
        .connect()
        .await
        .expect("it answers")
}

/// What came back.
#[derive(Default)]
struct Counts {
    done: AtomicU64,
    refused: AtomicU64,
    /// Refused without a reason, or without saying when to come back.
    wordless: AtomicU64,
    /// The first of those, in words.
    example: OnceLock<String>,
}

impl Counts {
    fn done(&self) {
        self.done.fetch_add(1, Ordering::Relaxed);
    }

    fn wordless(&self, what: impl FnOnce() -> String) {
        self.example.get_or_init(what);
        self.wordless.fetch_add(1, Ordering::Relaxed);
    }

    fn refused(&self, reason: v1::ErrorReason, retry_after_ms: u64) {
        match reason {
            v1::ErrorReason::RateLimited if retry_after_ms > 0 => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            // A queue of the ledger is bounded too.
            v1::ErrorReason::QueueFull | v1::ErrorReason::TableFull => {
                self.refused.fetch_add(1, Ordering::Relaxed);
            }
            _ => self.wordless(|| format!("{reason:?}, to come back after {retry_after_ms} ms")),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flood_of_requests_starves_no_renewal_and_no_release() {
    // A small intake, so that it is full all the time.
    let (mut target, _nodes, pulse) = stage("[limits]\nwaiting_commands = 512\n").await;
    let client = target.client().await;
    let mut leases = Vec::new();
    for index in 0..LEASES {
        let made = client.create_reservation(request(format!("lease-{index}"))).await.expect("granted");
        leases.push(made.reservation.expect("a reservation"));
    }
    // Its own well-behaved requests would be refused, rightly.
    pulse.finish().await;
    let (before, _) = target.memory_mib();
    let counts = Arc::new(Counts::default());
    let stop = Arc::new(AtomicBool::new(false));
    let mut flood = JoinSet::new();
    for lane in 0..LANES {
        let (channel, counts, stop) =
            (channel(&target.address).await, Arc::clone(&counts), Arc::clone(&stop));
        if lane % 2 == 0 {
            for _ in 0..IN_FLIGHT {
                let mut service = ReservationServiceClient::new(channel.clone());
                let (counts, stop) = (Arc::clone(&counts), Arc::clone(&stop));
                flood.spawn(async move {
                    while !stop.load(Ordering::Relaxed) {
                        match service.create_reservation(request("flood".to_owned())).await {
                            Ok(_) => counts.done(),
                            Err(status) => match Details::from_status(&status) {
                                Some(details) => counts.refused(details.reason, details.retry_after_ms),
                                None => counts.wordless(|| status.to_string()),
                            },
                        }
                    }
                });
            }
        } else {
            flood.spawn(async move {
                let mut service = ReservationServiceClient::new(channel);
                let open = Arc::new(Semaphore::new(STREAM_IN_FLIGHT));
                let (ask, asks) = mpsc::channel(STREAM_IN_FLIGHT);
                let (asking, places) = (Arc::clone(&stop), Arc::clone(&open));
                let asker = tokio::spawn(async move {
                    for sequence in 1.. {
                        let Ok(place) = places.acquire().await else { return };
                        place.forget();
                        let request = Some(StreamRequest::Create(request("stream".to_owned())));
                        let ended = asking.load(Ordering::Relaxed);
                        if ended
                            || ask.send(v1::StreamReservationsRequest { sequence, request }).await.is_err()
                        {
                            return;
                        }
                    }
                });
                let asks = ReceiverStream::new(asks);
                let Ok(answers) = service.stream_reservations(asks).await else { return };
                let mut answers = answers.into_inner();
                while let Ok(Some(answer)) = answers.message().await {
                    open.add_permits(1);
                    match answer.response {
                        Some(v1::stream_reservations_response::Response::Failure(failure)) => {
                            counts.refused(failure.reason(), failure.retry_after_ms);
                        }
                        _ => counts.done(),
                    }
                }
                asker.abort();
            });
        }
    }
    // Watchers that do not read, of everything that the flood does.
    let watch = v1::WatchRequest::default().encode_to_vec();
    for _ in 0..20 {
        let mut wire = Wire::open(&target.address, &[]).await;
        wire.call(1, "/plimsoll.v1.WatchService/Watch", &watch).await;
        flood.spawn(async move { drop(wire.be_polite(LENGTH, |_| ()).await) });
    }
    // Their holders renew each for itself.
    let began = Instant::now();
    let mut holders = JoinSet::new();
    for lease in &leases {
        let (client, name, token) = (client.clone(), lease.id.clone(), lease.token);
        holders.spawn(async move {
            let (mut slowest, mut renewals) = (Duration::ZERO, 0);
            while began.elapsed() < LENGTH {
                let called = Instant::now();
                let renew = v1::RenewReservationRequest { name: name.clone(), token, ..Default::default() };
                let renewed = client.renew_reservation(renew).await;
                renewed.expect("a renewal is never refused for others' requests");
                slowest = slowest.max(called.elapsed());
                renewals += 1;
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
            (slowest, renewals)
        });
    }
    let mut most = 0;
    while began.elapsed() < LENGTH {
        most = most.max(target.memory_mib().0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let (mut slowest, mut renewals) = (Duration::ZERO, 0);
    while let Some(holder) = holders.join_next().await {
        let (longest, count) = holder.expect("renewed all the time");
        slowest = slowest.max(longest);
        renewals += count;
    }
    for lease in leases {
        let called = Instant::now();
        let release =
            v1::ReleaseReservationRequest { name: lease.id, token: lease.token, ..Default::default() };
        client.release_reservation(release).await.expect("a release is never refused for others' requests");
        slowest = slowest.max(called.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    flood.shutdown().await;
    let (done, refused) = (counts.done.load(Ordering::Relaxed), counts.refused.load(Ordering::Relaxed));
    let wordless = counts.wordless.load(Ordering::Relaxed);
    println!(
        "{done} done, {refused} refused with a delay, {wordless} otherwise; {renewals} renewals, the slowest {slowest:?}; {most} MiB"
    );
    assert!(refused > done / 10, "no flood: {done} done, {refused} refused");
    let example = counts.example.get();
    assert_eq!(wordless, 0, "each refusal says why, and when to come back: {example:?}");
    assert!(slowest < BOUND, "a renewal or release took {slowest:?}");
    assert!(renewals >= LEASES * 3, "{renewals} renewals");
    let after = plimsoll_tests::hostile::Pulse::start(&target.address);
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_unharmed(&mut target, after, before, MOST_MIB).await;
}
