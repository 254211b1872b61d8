//! Clients that do everything a client can do, by weights: new grants of all sorts, their whole lives, and mistakes; alone,
//! in batches and in conversations; with deadlines short enough to leave them in doubt.

mod calendar;
mod operator;
mod places;
mod replicas;
mod rules;
mod scaling;
mod spenders;
pub mod wishes;

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use plimsoll_client::{Client, ClientOptions, ReservationStream, RetryPolicy, SeededIds, v1};

use crate::board::{Board, Phase};
use crate::history::{Answer, Call, Done};
use crate::net::{PORT, SimNet};
use crate::request::{Effect, Request, send_batch};
use crate::rng::Rng;
pub(crate) use operator::send;
pub use operator::{Operator, settle};
pub use places::RACK;
pub use scaling::{MACHINE_CPU_MILLIS, MACHINE_MEMORY_BYTES, rearrange};
pub use spenders::{QUOTA as SLICED_QUOTA, RATE as SLICED_RATE, spend};

/// Nodes of the simulated fleet.
pub const NODES: [&str; 4] = ["n1", "n2", "n3", "n4"];
/// Grants that a worker holds at most; above that it gives back.
const MOST_HELD: usize = 12;
/// Requests that a worker may send again.
const MOST_PAST: usize = 32;
/// Deadlines of calls, in milliseconds, by weight: the shortest are shorter than an election.
const DEADLINES: [(u64, u64); 4] = [(2, 300), (2, 800), (3, 2_000), (3, 5_000)];
/// Requests of a conversation that may be in flight.
const IN_FLIGHT: usize = 8;

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
    List,
    Explain,
    Repeat,
    OtherBody,
    WrongToken,
    NoSuch,
    TakeTokens,
    Announce,
    Report,
    Pick,
    BatchReserve,
    BatchRenew,
    BatchRelease,
    Converse,
}

/// How often each is done. Coverage is printed by every run: keep each above zero.
const WEIGHTS: [(u64, Choice); 21] = [
    (24, Choice::Reserve),
    (14, Choice::Confirm),
    (12, Choice::Renew),
    (5, Choice::Resize),
    (8, Choice::Release),
    (3, Choice::Cancel),
    (6, Choice::Read),
    (1, Choice::List),
    (1, Choice::Explain),
    (6, Choice::Repeat),
    (2, Choice::OtherBody),
    (3, Choice::WrongToken),
    (1, Choice::NoSuch),
    (5, Choice::TakeTokens),
    (8, Choice::Announce),
    (3, Choice::Report),
    (2, Choice::Pick),
    (3, Choice::BatchReserve),
    (2, Choice::BatchRenew),
    (2, Choice::BatchRelease),
    (4, Choice::Converse),
];

/// What a worker is about to send, and how.
enum Plan {
    Alone(Box<Request>),
    Batch(Vec<Request>),
    Conversation(Vec<Request>),
}

/// One client.
pub struct Worker {
    index: usize,
    client: Client,
    rng: Rng,
    board: Arc<Board>,
    stream: Option<ReservationStream>,
    held: Vec<v1::Reservation>,
    past: Vec<Request>,
    next_id: u64,
    /// It works quickly, or rests, until this moment in simulated milliseconds.
    spell: (bool, u64),
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

/// A call's deadline.
fn deadline(rng: &mut Rng) -> Duration {
    Duration::from_millis(rng.weighted(&DEADLINES).unwrap_or(2_000))
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
        let (held, past) = (Vec::new(), Vec::new());
        Ok(Worker { index, client, rng, board, stream: None, held, past, next_id: 0, spell: (true, 0) })
    }

    /// Works until the chaos is over.
    pub async fn run(mut self) {
        while self.board.phase() == Phase::Chaos {
            if let Some(plan) = self.next() {
                self.carry_out(plan).await;
            }
            let pause_ms = self.pause_ms();
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    /// Spells of haste between spells of rest: faults must find both.
    fn pause_ms(&mut self) -> u64 {
        let now_ms = Board::now_ms();
        if now_ms >= self.spell.1 {
            let busy = !self.spell.0;
            let lasts_ms = if busy { self.rng.between(300, 2_000) } else { self.rng.between(2_000, 9_000) };
            self.spell = (busy, now_ms + lasts_ms);
        }
        if self.spell.0 { self.rng.between(1, 40) } else { self.rng.between(100, 900) }
    }

    /// Sends what was planned and records what came of it: one call for each request.
    async fn carry_out(&mut self, plan: Plan) {
        let called_ms = Board::now_ms();
        let client = self.client.with_timeout(deadline(&mut self.rng));
        match plan {
            Plan::Alone(request) => {
                let answer = Answer::of(Request::clone(&request).send(&client).await);
                self.record("", called_ms, *request, answer);
            }
            Plan::Batch(requests) => {
                let Some(answers) = send_batch(&client, &requests).await else { return };
                if answers.len() != requests.len() {
                    self.board.found(format!(
                        "a batch of {} requests got {} answers",
                        requests.len(),
                        answers.len()
                    ));
                }
                for (request, answer) in requests.into_iter().zip(answers) {
                    self.record("batch ", called_ms, request, answer);
                }
            }
            Plan::Conversation(requests) => {
                let opened = self.stream.take();
                let stream = opened.unwrap_or_else(|| client.reservation_stream(IN_FLIGHT));
                let all = requests.into_iter().map(|request| async {
                    let answer = request.clone().converse(&stream).await;
                    (request, answer, Board::now_ms())
                });
                for (request, answer, answered_ms) in join_all(all).await {
                    if let Some(answer) = answer {
                        self.record_at("stream ", called_ms, answered_ms, request, answer);
                    }
                }
                // Now and then a new one, with another deadline.
                self.stream = Some(stream).filter(|_| self.rng.percent(70));
            }
        }
    }

    fn record(&mut self, way: &str, called_ms: u64, request: Request, answer: Answer) {
        self.record_at(way, called_ms, Board::now_ms(), request, answer);
    }

    fn record_at(&mut self, way: &str, called_ms: u64, answered_ms: u64, request: Request, answer: Answer) {
        self.board.trace.add(
            answered_ms,
            format_args!(
                "w{} {way}{} {} {} since {called_ms}: {} {}",
                self.index,
                request.kind(),
                request.request_id(),
                request.about(),
                answer.word(),
                answer.done().map(tell).unwrap_or_default()
            ),
        );
        self.learn(&request, &answer);
        if request.is_logged() || request.effect() == Effect::Tokens {
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
                self.held.retain(|held| !known(held, &request.about()));
            }
            Answer::Done(_) | Answer::Refused(_) | Answer::Unknown(_) => {}
        }
    }

    fn next(&mut self) -> Option<Plan> {
        let mut choice = self.rng.weighted(&WEIGHTS)?;
        if matches!(choice, Choice::Reserve | Choice::BatchReserve) && self.held.len() >= MOST_HELD {
            choice = Choice::Release;
        }
        let many = usize::try_from(self.rng.between(2, 5)).unwrap_or(2);
        match choice {
            Choice::BatchReserve => {
                let requests = (0..many).map(|_| self.reserve()).collect();
                Some(Plan::Batch(requests))
            }
            Choice::BatchRenew => self.each(many, |worker| worker.renew()).map(Plan::Batch),
            Choice::BatchRelease => {
                self.each(many.min(3), |worker| worker.alone(Choice::Release)).map(Plan::Batch)
            }
            Choice::Converse => {
                let kinds = [Choice::Reserve, Choice::Confirm, Choice::Renew, Choice::Resize, Choice::Cancel];
                let one = |worker: &mut Worker| {
                    let kind = *worker.rng.pick(&kinds)?;
                    worker.alone(kind).or_else(|| Some(worker.reserve()))
                };
                self.each(many, one).map(Plan::Conversation)
            }
            alone => self.alone(alone).map(Box::new).map(Plan::Alone),
        }
    }

    /// So many requests, or as many as there are; `None` for none.
    fn each(
        &mut self,
        many: usize,
        mut one: impl FnMut(&mut Worker) -> Option<Request>,
    ) -> Option<Vec<Request>> {
        let requests: Vec<Request> = (0..many).filter_map(|_| one(self)).collect();
        (!requests.is_empty()).then_some(requests)
    }

    fn alone(&mut self, choice: Choice) -> Option<Request> {
        Some(match choice {
            Choice::Reserve | Choice::BatchReserve | Choice::Converse => self.reserve(),
            Choice::Confirm => {
                let (name, token) = self.held_in(&[v1::ReservationState::Held])?;
                let request_id = self.id();
                Request::Confirm(v1::ConfirmReservationRequest {
                    request_id,
                    name,
                    token,
                    ..Default::default()
                })
            }
            Choice::Renew | Choice::BatchRenew => self.renew()?,
            Choice::Resize => {
                let (name, token) = self.held_in(&[])?;
                let (request_id, amounts) = (self.id(), Some(wishes::amounts(&mut self.rng)));
                let rest = v1::ResizeReservationRequest::default();
                Request::Resize(v1::ResizeReservationRequest { request_id, name, token, amounts, ..rest })
            }
            Choice::Release | Choice::BatchRelease => {
                let (name, token) = self.held_in(&[])?;
                self.release(name, token)
            }
            Choice::Cancel => {
                let (name, _) = self.held_in(&[])?;
                self.cancel(name)
            }
            Choice::Read => {
                let (name, _) = self.held_in(&[])?;
                Request::Read(v1::GetReservationRequest { name, ..Default::default() })
            }
            Choice::List => {
                Request::List(v1::ListReservationsRequest { live_only: true, ..Default::default() })
            }
            Choice::Explain => {
                let spec = wishes::spec(&mut self.rng);
                let subject = Some(v1::explain_reservation_request::Subject::Spec(spec));
                Request::Explain(v1::ExplainReservationRequest { subject, ..Default::default() })
            }
            Choice::TakeTokens => {
                let takes = vec![rules::take(&mut self.rng)];
                Request::Take(v1::TakeTokensRequest { request_id: self.id(), takes })
            }
            Choice::Announce => {
                let (name, token) = self.replica()?;
                let (request_id, endpoint) = (self.id(), replicas::announcement(&mut self.rng));
                let rest = v1::SetEndpointRequest::default();
                Request::Announce(v1::SetEndpointRequest { request_id, name, token, endpoint, ..rest })
            }
            Choice::Report => {
                let (name, token) = self.replica()?;
                let reports = vec![replicas::report(&mut self.rng, name, token)];
                Request::Report(v1::ReportLoadRequest { reports, ..Default::default() })
            }
            Choice::Pick => {
                let service = replicas::SERVICE.to_owned();
                Request::Pick(v1::PickEndpointRequest { service, ..Default::default() })
            }
            Choice::Repeat => self.rng.pick(&self.past).cloned()?,
            Choice::OtherBody => {
                let request_id = self.rng.pick(&self.past)?.request_id().to_owned();
                let spec = Some(wishes::spec(&mut self.rng));
                Request::Create(v1::CreateReservationRequest { request_id, spec, validate_only: false })
            }
            Choice::WrongToken => {
                let (name, token) = self.held_in(&[])?;
                let wrong = self.rng.between(1, token + 5);
                self.release(name, if wrong == token { token + 1 } else { wrong })
            }
            Choice::NoSuch => {
                // An id far beyond those that a run reaches, in the form of one that there is.
                let (name, _) = self.held_in(&[])?;
                let made_up: String =
                    name.chars().rev().map(|one| if one.is_ascii_digit() { '7' } else { one }).collect();
                self.cancel(made_up.chars().rev().collect())
            }
        })
    }

    fn renew(&mut self) -> Option<Request> {
        let (name, token) = self.held_in(&[v1::ReservationState::Active, v1::ReservationState::Partial])?;
        let ttl_ms = if self.rng.percent(30) { wishes::ttl_ms(&mut self.rng) } else { 0 };
        let (request_id, rest) = (self.id(), v1::RenewReservationRequest::default());
        Some(Request::Renew(v1::RenewReservationRequest { request_id, name, token, ttl_ms, ..rest }))
    }

    fn release(&mut self, name: String, token: u64) -> Request {
        let request_id = self.id();
        Request::Release(v1::ReleaseReservationRequest { request_id, name, token, ..Default::default() })
    }

    fn cancel(&mut self, name: String) -> Request {
        let request_id = self.id();
        Request::Cancel(v1::CancelReservationRequest { request_id, name, ..Default::default() })
    }

    /// Name and token of one that it holds, in one of these states (none: in any).
    fn held_in(&mut self, states: &[v1::ReservationState]) -> Option<(String, u64)> {
        let fits = |held: &&v1::Reservation| states.is_empty() || states.contains(&held.state());
        let fitting: Vec<&v1::Reservation> = self.held.iter().filter(fits).collect();
        self.rng.pick(&fitting).map(|held| (held.name.clone(), held.token))
    }

    /// Name and token of one that it holds as a replica; now and then of another.
    fn replica(&mut self) -> Option<(String, u64)> {
        let is_one =
            |held: &&v1::Reservation| held.spec.as_ref().is_some_and(|spec| !spec.service.is_empty());
        let replicas: Vec<&v1::Reservation> = self.held.iter().filter(is_one).collect();
        let replica = self.rng.pick(&replicas).map(|held| (held.name.clone(), held.token));
        if self.rng.percent(5) { self.held_in(&[]) } else { replica }
    }

    fn reserve(&mut self) -> Request {
        let request_id = self.id();
        let spec = Some(wishes::spec(&mut self.rng));
        Request::Create(v1::CreateReservationRequest { request_id, spec, validate_only: false })
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
