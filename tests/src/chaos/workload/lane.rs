//! One client with one call at a time.

use std::collections::VecDeque;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use plimsoll_client::{Client, Error, v1};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::{Load, asks};
use crate::chaos::history::{Call, NEVER_US, Operation, Outcome, Recorder, Seen, id_of};

/// Grants kept at once by one client.
const MOST_HELD: usize = 4;
/// Ended reservations that are looked at again.
const MOST_PAST: usize = 16;
/// Longest pause drawn after a refusal or an unknown outcome, in milliseconds.
const CALM_MS: u64 = 100;

/// One client.
pub(super) struct Lane {
    number: u32,
    client: Client,
    recorder: Recorder,
    load: Load,
    random: SmallRng,
    calls: u64,
    held: Vec<(u64, u64)>,
    past: VecDeque<(u64, u64)>,
    /// The latest request for a reservation, to be sent once more.
    latest: Option<v1::CreateReservationRequest>,
    /// True where its outcome is not known yet.
    is_open: bool,
}

impl Lane {
    pub(super) fn new(number: u32, client: Client, recorder: Recorder, load: Load) -> Lane {
        let random =
            SmallRng::seed_from_u64(load.seed.wrapping_mul(1_000_003).wrapping_add(u64::from(number)));
        let (held, past) = (Vec::new(), VecDeque::new());
        Lane { number, client, recorder, load, random, calls: 0, held, past, latest: None, is_open: false }
    }

    pub(super) async fn run(mut self, stop: Arc<AtomicBool>) {
        while !stop.load(Ordering::Relaxed) {
            let outcome = Box::pin(self.step()).await;
            let pause_ms = match outcome {
                Outcome::Done { .. } => self.load.pause_ms,
                _ => self.load.pause_ms + self.random.random_range(0..CALM_MS),
            };
            tokio::time::sleep(Duration::from_millis(pause_ms)).await;
        }
    }

    async fn step(&mut self) -> Outcome {
        if self.is_open && self.random.random_bool(0.7) {
            return Box::pin(self.repeat()).await;
        }
        let wish = self.random.random_range(0..100);
        match self.pick() {
            Some(one) if wish < 25 || self.held.len() >= MOST_HELD => self.release(one).await,
            Some((id, token)) if wish < 42 => self.renew(id, token).await,
            Some((id, token)) if wish < 44 => self.renew(id, token.wrapping_sub(1)).await,
            Some((id, _)) if wish < 54 => self.get(id).await,
            _ if wish < 57 && self.latest.is_some() => Box::pin(self.repeat()).await,
            _ if wish < 62 && !self.past.is_empty() => {
                let (id, token) = self.past[self.random.random_range(0..self.past.len())];
                match wish {
                    57 | 58 => self.renew(id, token).await,
                    _ => self.get(id).await,
                }
            }
            _ => Box::pin(self.create()).await,
        }
    }

    async fn create(&mut self) -> Outcome {
        let ask = asks::draw(&mut self.random, format!("lane-{}", self.number));
        let request = v1::CreateReservationRequest {
            request_id: self.key(),
            spec: Some(ask.spec),
            validate_only: false,
        };
        let outcome = Box::pin(self.send_create(request.clone())).await;
        self.is_open = outcome == Outcome::Unknown;
        self.latest = Some(request);
        let Some((_, seen)) = outcome.done() else { return outcome };
        let one = (seen.id, seen.token);
        if seen.state == i32::from(v1::ReservationState::Pending) {
            // It may have been granted in the meantime; cancelling is right in any state.
            return self.cancel(seen.id).await;
        }
        if ask.is_abandoned {
            self.forget(one);
        } else {
            self.held.push(one);
        }
        outcome
    }

    /// The same request with the same key once more: the same answer, whatever happened to the reservation since.
    async fn repeat(&mut self) -> Outcome {
        let Some(request) = self.latest.clone() else { return Outcome::Unknown };
        let outcome = Box::pin(self.send_create(request)).await;
        if outcome == Outcome::Unknown {
            return outcome;
        }
        if std::mem::take(&mut self.is_open)
            && let Some((_, seen)) = outcome.done()
        {
            self.held.push((seen.id, seen.token));
        }
        outcome
    }

    async fn send_create(&mut self, request: v1::CreateReservationRequest) -> Outcome {
        let ttl_ms = request.spec.as_ref().map_or(0, |spec| spec.ttl_ms);
        let (client, key) = (self.client.clone(), request.request_id.clone());
        let answer = async move {
            client.create_reservation(request).await.map(|done| (done.revision, done.reservation))
        };
        self.note(key, Call::Create { ttl_ms }, answer).await
    }

    async fn renew(&mut self, reservation: u64, token: u64) -> Outcome {
        let (client, request_id) = (self.client.clone(), self.key());
        let request = v1::RenewReservationRequest {
            request_id: request_id.clone(),
            name: id_of(reservation),
            token,
            ..Default::default()
        };
        let answer = async move {
            client.renew_reservation(request).await.map(|done| (done.revision, done.reservation))
        };
        let outcome = self.note(request_id, Call::Renew { reservation, token }, answer).await;
        if outcome == (Outcome::Refused { reason: "WRONG_STATE".to_owned() }) {
            // It has ended: its node was lost, or an earlier release of ours took effect after all.
            self.held.retain(|(held, _)| *held != reservation);
        }
        outcome
    }

    async fn release(&mut self, (reservation, token): (u64, u64)) -> Outcome {
        let (client, request_id) = (self.client.clone(), self.key());
        let request = v1::ReleaseReservationRequest {
            request_id: request_id.clone(),
            name: id_of(reservation),
            token,
            ..Default::default()
        };
        let answer = async move {
            client.release_reservation(request).await.map(|done| (done.revision, done.reservation))
        };
        let outcome = self.note(request_id, Call::Release { reservation, token }, answer).await;
        let is_over = match &outcome {
            Outcome::Done { .. } => true,
            Outcome::Refused { reason } => reason == "WRONG_STATE",
            Outcome::Unknown => false,
        };
        if is_over {
            self.held.retain(|(held, _)| *held != reservation);
            self.forget((reservation, token));
        }
        outcome
    }

    async fn cancel(&mut self, reservation: u64) -> Outcome {
        let (client, request_id) = (self.client.clone(), self.key());
        let request = v1::CancelReservationRequest {
            request_id: request_id.clone(),
            name: id_of(reservation),
            ..Default::default()
        };
        let answer = async move {
            client.cancel_reservation(request).await.map(|done| (done.revision, done.reservation))
        };
        self.note(request_id, Call::Cancel { reservation }, answer).await
    }

    async fn get(&mut self, reservation: u64) -> Outcome {
        let client = self.client.clone();
        let consistency = v1::Consistency::Linearizable.into();
        let request =
            v1::GetReservationRequest { name: id_of(reservation), consistency, ..Default::default() };
        let answer = async move {
            client.get_reservation(request).await.map(|done| (done.revision, done.reservation))
        };
        self.note(String::new(), Call::Get { reservation }, answer).await
    }

    async fn note(
        &mut self,
        request_id: String,
        call: Call,
        answer: impl Future<Output = Result<(u64, Option<v1::Reservation>), Error>>,
    ) -> Outcome {
        let called_us = self.recorder.now_us();
        let answer = answer.await;
        let now_us = self.recorder.now_us();
        let outcome = match answer {
            Ok((revision, reservation)) => {
                Outcome::Done { revision, seen: reservation.as_ref().map(Seen::of).unwrap_or_default() }
            }
            Err(error) => Outcome::of(&error),
        };
        let returned_us = if outcome == Outcome::Unknown { NEVER_US } else { now_us };
        let client = self.number;
        let operation =
            Operation { client, request_id, call, called_us, returned_us, outcome: outcome.clone() };
        self.recorder.add(operation);
        outcome
    }

    fn pick(&mut self) -> Option<(u64, u64)> {
        let count = self.held.len();
        (count > 0).then(|| self.held[self.random.random_range(0..count)])
    }

    fn forget(&mut self, one: (u64, u64)) {
        self.past.push_back(one);
        if self.past.len() > MOST_PAST {
            self.past.pop_front();
        }
    }

    /// Keys are the lane's own, so that they are the same for the same seed.
    fn key(&mut self) -> String {
        self.calls += 1;
        format!("chaos-{:016x}-{:03}-{:08}", self.load.seed, self.number, self.calls)
    }
}
