//! A well-behaved client beside an attack: it reads and changes things all the time and notes how long that takes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use plimsoll_client::{Client, ClientOptions, v1};
use tokio::task::JoinHandle;

/// Pause between calls.
const PAUSE: Duration = Duration::from_millis(20);
/// Fewest calls that say something; a pulse that is stopped sooner goes on until then.
const LEAST_CALLS: u64 = 5;
/// Longest wait of one call.
const PATIENCE: Duration = Duration::from_secs(20);

/// A client that calls until it is asked how it went.
pub struct Pulse {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Beats>,
}

/// How the calls of a well-behaved client went.
#[derive(Debug, Default)]
pub struct Beats {
    /// Calls that were answered as they should be.
    pub calls: u64,
    /// What was said about the others.
    pub failed: Vec<String>,
    /// The slowest call.
    pub slowest: Duration,
}

impl Beats {
    /// Every call was answered, there were some, and none took longer than `bound`.
    ///
    /// # Panics
    /// Where that is not so.
    pub fn assert_within(&self, bound: Duration) {
        println!("a well-behaved client beside it: {} calls, the slowest {:?}", self.calls, self.slowest);
        assert!(self.failed.is_empty(), "a well-behaved client was refused: {:?}", self.failed);
        assert!(self.calls >= LEAST_CALLS, "only {} calls", self.calls);
        assert!(self.slowest <= bound, "a call took {:?}, longer than {bound:?}", self.slowest);
    }
}

impl Pulse {
    /// Calls a coordinator without TLS. Each fifth round is over a connection of its own, so that new ones are tried too.
    pub fn start(address: &str) -> Pulse {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopping, address) = (Arc::clone(&stop), address.to_owned());
        let task = tokio::spawn(async move {
            let mut beats = Beats::default();
            let mut client = None;
            let mut round = 0_u64;
            while !stopping.load(Ordering::Relaxed) || beats.calls < LEAST_CALLS && beats.failed.is_empty() {
                if round.is_multiple_of(5) || client.is_none() {
                    let options = ClientOptions::default().timeout(PATIENCE);
                    let connected = beats.note(Client::connect([address.clone()], options)).await;
                    client = connected;
                }
                if let Some(client) = &client {
                    beats.round(client, round).await;
                }
                round += 1;
                tokio::time::sleep(PAUSE).await;
            }
            beats
        });
        Pulse { stop, task }
    }

    /// Stops it.
    ///
    /// # Panics
    /// Where the client itself panicked.
    pub async fn finish(self) -> Beats {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("it does not panic")
    }
}

impl Beats {
    /// A read that goes through the group, a request that waits, and its end.
    async fn round(&mut self, client: &Client, round: u64) {
        let list = v1::ListReservationsRequest { page_size: 1, ..Default::default() };
        self.note(client.list_reservations(list)).await;
        let amounts = v1::Quantities { cpu_millis: 1, ..Default::default() };
        let spec = v1::ReservationSpec {
            name: format!("pulse-{round}"),
            requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
            ttl_ms: 60_000,
            auto_confirm: true,
            wait: Some(v1::WaitPolicy { queue: true, deadline_ms: 0 }),
            ..Default::default()
        };
        let create = v1::CreateReservationRequest { spec: Some(spec), ..Default::default() };
        let made = self.note(client.create_reservation(create)).await;
        if let Some(made) = made.and_then(|answer| answer.reservation) {
            let cancel = v1::CancelReservationRequest { name: made.id, ..Default::default() };
            self.note(client.cancel_reservation(cancel)).await;
        }
    }

    async fn note<T, E: std::fmt::Display>(&mut self, call: impl Future<Output = Result<T, E>>) -> Option<T> {
        let began = Instant::now();
        let answer = call.await;
        self.slowest = self.slowest.max(began.elapsed());
        match answer {
            Ok(answer) => {
                self.calls += 1;
                Some(answer)
            }
            Err(error) => {
                if self.failed.len() < 10 {
                    self.failed.push(error.to_string());
                }
                None
            }
        }
    }
}
