//! Clients that do everything a client can do, by weights: new grants of all sorts, their whole lives, and mistakes.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_client::{Client, ClientOptions, RetryPolicy, SeededIds, v1};

use crate::board::{Board, Phase};
use crate::history::{Answer, Call, Done};
use crate::net::{PORT, SimNet};
use crate::request::Request;
use crate::rng::Rng;

/// Nodes of the simulated fleet.
pub const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// Grants that a worker holds at most; above that it gives back.
const MOST_HELD: usize = 12;
/// Requests that a worker may send again.
const MOST_PAST: usize = 32;
const CLASSES: [&str; 4] = ["standard", "high", "low", "batch"];

/// What a worker does next.
#[derive(Clone, Copy, Debug)]
enum Choice {
    Reserve,
    Confirm,
    Renew,
    Resize,
    Release,
    Cancel,
    Read,
    Repeat,
    OtherBody,
    WrongToken,
    Cordon,
    Uncordon,
}

/// How often each is done. Coverage is printed by every run: keep each above zero.
const WEIGHTS: [(u64, Choice); 12] = [
    (30, Choice::Reserve),
    (14, Choice::Confirm),
    (12, Choice::Renew),
    (5, Choice::Resize),
    (8, Choice::Release),
    (3, Choice::Cancel),
    (8, Choice::Read),
    (6, Choice::Repeat),
    (2, Choice::OtherBody),
    (3, Choice::WrongToken),
    (1, Choice::Cordon),
    (2, Choice::Uncordon),
];

/// One client.
pub struct Worker {
    index: usize,
    client: Client,
    rng: Rng,
    board: Arc<Board>,
    held: Vec<v1::Reservation>,
    past: Vec<Request>,
    next_id: u64,
}

/// A client of these coordinators whose chance comes from the seed.
///
/// # Errors
/// Where the addresses are none.
pub fn client(seed: u64, name: &str, members: &[u64]) -> Result<Client, plimsoll_client::Error> {
    let options = ClientOptions {
        timeout: Duration::from_secs(5),
        attempt_timeout: Duration::from_millis(1_500),
        unreachable_after: None,
        retry: RetryPolicy { floor_ms: 20, cap_ms: 500, ..RetryPolicy::default() },
        dialer: Arc::new(SimNet),
        ids: Arc::new(SeededIds::new(Rng::of(seed, name).draw())),
    };
    Client::new(members.iter().map(|id| format!("c{id}:{PORT}")), options)
}

impl Worker {
    /// The n-th client.
    ///
    /// # Errors
    /// Where it cannot be made.
    pub fn new(index: usize, board: Arc<Board>, members: &[u64]) -> Result<Worker, plimsoll_client::Error> {
        let name = format!("worker-{index}");
        let client = client(board.seed, &name, members)?;
        let rng = Rng::of(board.seed, &format!("{name}-choices"));
        Ok(Worker { index, client, rng, board, held: Vec::new(), past: Vec::new(), next_id: 0 })
    }

    /// Works until the chaos is over.
    pub async fn run(mut self) {
        while self.board.phase() == Phase::Chaos {
            if let Some(request) = self.next() {
                self.call(request).await;
            }
            let pause_ms = self.rng.between(1, 40);
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Makes one call and records what came of it.
    async fn call(&mut self, request: Request) {
        let called_ms = Board::now_ms();
        let result = request.clone().send(&self.client).await;
        let answer = Answer::of(result);
        let answered_ms = Board::now_ms();
        self.board.trace.add(
            answered_ms,
            format_args!(
                "w{} {} {} {} since {called_ms}: {} {}",
                self.index,
                request.kind(),
                request.request_id(),
                request.about(),
                answer.word(),
                answer.done().map(tell).unwrap_or_default()
            ),
        );
        self.learn(&request, &answer);
        if !matches!(request, Request::Read(_)) {
            // What is unknown is the best thing to ask again.
            self.past.push(request.clone());
            if self.past.len() > MOST_PAST {
                self.past.remove(0);
            }
        }
        self.board.history.add(Call { worker: self.index, request, called_ms, answered_ms, answer });
    }

    /// Keeps the book of what this client holds.
    fn learn(&mut self, request: &Request, answer: &Answer) {
        let known = |held: &v1::Reservation, name: &str| held.name == name;
        match answer {
            Answer::Done(Done { reservation: Some(reservation), .. }) => {
                self.held.retain(|held| !known(held, &reservation.name));
                let over = reservation.end_time_ms > 0;
                if !over {
                    self.held.push(reservation.clone());
                }
            }
            Answer::Refused(reason) if reason != "UNAVAILABLE" => {
                self.held.retain(|held| !known(held, request.about()));
            }
            Answer::Done(_) | Answer::Refused(_) | Answer::Unknown(_) => {}
        }
    }

    fn next(&mut self) -> Option<Request> {
        let mut choice = self.rng.weighted(&WEIGHTS)?;
        if matches!(choice, Choice::Reserve) && self.held.len() >= MOST_HELD {
            choice = Choice::Release;
        }
        match choice {
            Choice::Reserve => Some(self.reserve()),
            Choice::Confirm => {
                let (name, token) = self.held_in(&[v1::ReservationState::Held])?;
                Some(Request::Confirm(v1::ConfirmReservationRequest {
                    request_id: self.id(),
                    name,
                    token,
                    ..Default::default()
                }))
            }
            Choice::Renew => {
                let (name, token) =
                    self.held_in(&[v1::ReservationState::Active, v1::ReservationState::Partial])?;
                let ttl_ms = if self.rng.percent(30) { self.ttl_ms() } else { 0 };
                Some(Request::Renew(v1::RenewReservationRequest {
                    request_id: self.id(),
                    name,
                    token,
                    ttl_ms,
                    ..Default::default()
                }))
            }
            Choice::Resize => {
                let (name, token) = self.held_in(&[])?;
                let amounts = Some(self.amounts());
                Some(Request::Resize(v1::ResizeReservationRequest {
                    request_id: self.id(),
                    name,
                    token,
                    amounts,
                    ..Default::default()
                }))
            }
            Choice::Release => {
                let (name, token) = self.held_in(&[])?;
                Some(self.release(name, token))
            }
            Choice::Cancel => {
                let (name, _) = self.held_in(&[])?;
                Some(Request::Cancel(v1::CancelReservationRequest {
                    request_id: self.id(),
                    name,
                    ..Default::default()
                }))
            }
            Choice::Read => {
                let (name, _) = self.held_in(&[])?;
                Some(Request::Read(v1::GetReservationRequest { name, ..Default::default() }))
            }
            Choice::Repeat => self.rng.pick(&self.past).cloned(),
            Choice::OtherBody => {
                let request_id = self.rng.pick(&self.past)?.request_id().to_owned();
                let spec = Some(self.spec());
                Some(Request::Create(v1::CreateReservationRequest { request_id, spec, validate_only: false }))
            }
            Choice::WrongToken => {
                let (name, token) = self.held_in(&[])?;
                let wrong = self.rng.between(1, token + 5);
                Some(self.release(name, if wrong == token { token + 1 } else { wrong }))
            }
            Choice::Cordon => {
                let name = (*self.rng.pick(&NODES)?).to_owned();
                let reason = "simulated".to_owned();
                let request_id = self.id();
                Some(Request::Cordon(v1::CordonNodeRequest {
                    request_id,
                    name,
                    reason,
                    validate_only: false,
                }))
            }
            Choice::Uncordon => {
                let name = (*self.rng.pick(&NODES)?).to_owned();
                let request_id = self.id();
                Some(Request::Uncordon(v1::UncordonNodeRequest { request_id, name, ..Default::default() }))
            }
        }
    }

    fn release(&mut self, name: String, token: u64) -> Request {
        let request_id = self.id();
        Request::Release(v1::ReleaseReservationRequest { request_id, name, token, ..Default::default() })
    }

    /// Name and token of one that it holds, in one of these states (none: in any).
    fn held_in(&mut self, states: &[v1::ReservationState]) -> Option<(String, u64)> {
        let fits = |held: &&v1::Reservation| states.is_empty() || states.contains(&held.state());
        let fitting: Vec<&v1::Reservation> = self.held.iter().filter(fits).collect();
        self.rng.pick(&fitting).map(|held| (held.name.clone(), held.token))
    }

    fn reserve(&mut self) -> Request {
        let request_id = self.id();
        let spec = Some(self.spec());
        Request::Create(v1::CreateReservationRequest { request_id, spec, validate_only: false })
    }

    fn spec(&mut self) -> v1::ReservationSpec {
        let rng = &mut self.rng;
        let gpu = rng.weighted(&[(50, 0), (20, 1), (20, 2), (10, 3)]).and_then(|form| match form {
            1 => Some(v1::GpuAsk { count: 1, milli: 1_000, ..Default::default() }),
            2 => {
                let milli = 50 * u32::try_from(rng.between(1, 19)).unwrap_or(1);
                Some(v1::GpuAsk { count: 1, milli, ..Default::default() })
            }
            3 => Some(v1::GpuAsk { memory_bytes: rng.between(1, 40) << 30, ..Default::default() }),
            _ => None,
        });
        let gang = rng.percent(20).then(|| {
            let most = u32::try_from(rng.between(2, 4)).unwrap_or(2);
            let least = if rng.percent(50) { most } else { most - 1 };
            v1::Gang { min_members: least, max_members: most, spread: rng.percent(40) }
        });
        let wait = rng.percent(35).then(|| {
            let deadline_ms = if rng.percent(70) { rng.between(500, 4_000) } else { 0 };
            v1::WaitPolicy { queue: true, deadline_ms }
        });
        let class = (*rng.pick(&CLASSES).unwrap_or(&"standard")).to_owned();
        let (auto_confirm, long) = (rng.percent(50), rng.percent(15));
        let hold_ms = rng.between(1_000, 4_000);
        let max_duration_ms = if long { rng.between(1_000, 6_000) } else { 0 };
        v1::ReservationSpec {
            class,
            requirements: Some(v1::Requirements { amounts: Some(self.amounts()), gpu, ..Default::default() }),
            gang,
            ttl_ms: self.ttl_ms(),
            hold_ms,
            max_duration_ms,
            auto_confirm,
            wait,
            ..Default::default()
        }
    }

    /// Short enough to lapse within a run, now and then.
    fn ttl_ms(&mut self) -> u64 {
        self.rng.weighted(&[(3, 1_000), (4, 2_500), (2, 6_000), (1, 20_000)]).unwrap_or(2_500)
    }

    /// Mostly small; now and then more than there is, or more than can be counted.
    fn amounts(&mut self) -> v1::Quantities {
        let rng = &mut self.rng;
        let cpu_millis = match rng.between(0, 99) {
            0 => u64::MAX,
            1 => u64::MAX / 2,
            2..=4 => 9_000,
            _ => 250 * rng.between(1, 8),
        };
        let memory_bytes = rng.between(1, 4) << 30;
        let mut amounts = v1::Quantities { cpu_millis, memory_bytes, ..Default::default() };
        if rng.percent(10) {
            amounts.other.insert("license/sim".to_owned(), rng.between(1, 3));
        }
        amounts
    }

    fn id(&mut self) -> String {
        self.next_id += 1;
        format!("sim-{}-worker-{}-call-{:05}", self.board.seed, self.index, self.next_id)
    }
}

/// A success in a few words.
fn tell(done: &Done) -> String {
    match &done.reservation {
        Some(reservation) => format!(
            "@{} {} {} token {}",
            done.revision,
            reservation.id,
            reservation.state().as_str_name(),
            reservation.token
        ),
        None => format!("@{}", done.revision),
    }
}
