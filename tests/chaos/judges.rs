//! The judges are judged: doctored histories must be rejected by the judge that is there for it, odd but legal ones accepted by all.

use plimsoll_proto::log::{self, log_command::Command, log_outcome::Outcome as Came};
use plimsoll_tests::chaos::check::fixture::{Honest, TTL_MS, judges_of, seal};
use plimsoll_tests::chaos::check::{Evidence, judge};
use plimsoll_tests::chaos::history::{Call, NEVER_US, Outcome};

const NONE: [&str; 0] = [];

/// Two clients, two leases, all that is usual.
fn usual() -> (Honest, u64, u64) {
    let mut honest = Honest::new();
    let one = honest.grant(1, 1_000);
    let other = honest.grant(2, 0);
    honest.renew(1, one);
    honest.get(2, one);
    honest.release(1, one);
    (honest, one, other)
}

fn rejected_by(evidence: &Evidence, judge_name: &str) {
    let names = judges_of(evidence);
    assert!(
        names.iter().any(|name| name.starts_with(judge_name)),
        "{judge_name} says nothing: {:?}",
        judge(evidence)
    );
}

fn accepted(evidence: &Evidence) {
    assert_eq!(judges_of(evidence), NONE, "{:?}", judge(evidence));
}

#[test]
fn legal_a_usual_run() {
    accepted(&usual().0.evidence());
}

#[test]
fn legal_an_unknown_that_took_effect() {
    let (mut honest, _, other) = usual();
    let mut released = honest.reservations[1].clone();
    (released.state, released.resume_state) = (log::State::Released.into(), log::State::Released.into());
    released.members.clear();
    let token = released.token;
    let entry = (Command::Release(log::Release { reservation: other, token }), Came::Reservation(released));
    honest.unknown(2, Call::Release { reservation: other, token }, Some(entry));
    let mut evidence = honest.evidence();
    evidence.live.retain(|(id, ..)| *id != other);
    accepted(&evidence);
}

#[test]
fn legal_an_unknown_that_never_took_effect() {
    let (mut honest, _, other) = usual();
    honest.unknown(2, Call::Release { reservation: other, token: other }, None);
    honest.renew(2, other);
    accepted(&honest.evidence());
}

#[test]
fn legal_a_repeat_with_its_old_revision() {
    let (mut honest, one, _) = usual();
    // The lease is over by now; the answer is still that of the first time.
    honest.wait(10);
    let mut evidence = honest.evidence();
    let mut again = evidence.history[0].clone();
    let last_us = evidence.history.last().map_or(0, |operation| operation.returned_us);
    (again.called_us, again.returned_us) = (last_us + 10, last_us + 20);
    assert_eq!(again.outcome.done().map(|(_, seen)| seen.id), Some(one));
    evidence.history.push(again);
    accepted(&evidence);
}

#[test]
fn legal_a_repeat_that_is_in_the_log_twice() {
    let (mut honest, ..) = usual();
    let record = honest.log[1].clone();
    let key = record.command.request_id.clone();
    honest.entry("anonymous", &key, record.command.command.expect("a submit"), record.outcome);
    accepted(&honest.evidence());
}

#[test]
fn legal_overlapping_calls_in_any_order() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    // The second grant was called before the first and came back after it.
    evidence.history[1].called_us = 0;
    evidence.history[1].returned_us = evidence.history[0].returned_us + 100;
    accepted(&evidence);
}

#[test]
fn legal_a_lease_that_ends_by_time() {
    let (mut honest, _, other) = usual();
    honest.wait(TTL_MS + TTL_MS / 10 + 1_001);
    honest.expire(&[other]);
    honest.get(1, other);
    accepted(&honest.evidence());
}

#[test]
fn legal_shares_that_fill_a_device() {
    let mut honest = Honest::new();
    honest.grant(1, 400);
    honest.grant(2, 350);
    honest.grant(3, 250);
    accepted(&honest.evidence());
}

#[test]
fn legal_a_refusal_that_the_log_shows_as_one() {
    let (mut honest, one, _) = usual();
    let refusal = log::Refusal { reason: log::Reason::WrongState.into(), blockers: Vec::new() };
    let renew = log::Renew { reservation: one, token: one, ttl_ms: 0 };
    honest.unknown(
        1,
        Call::Renew { reservation: one, token: one },
        Some((Command::Renew(renew), Came::Refused(refusal))),
    );
    let mut evidence = honest.evidence();
    let last = evidence.history.last_mut().expect("just made");
    last.outcome = Outcome::Refused { reason: "WRONG_STATE".to_owned() };
    last.returned_us = last.called_us + 100;
    accepted(&evidence);
}

#[test]
fn legal_a_device_that_moves_on_while_the_release_is_under_way() {
    let mut honest = Honest::new();
    let one = honest.grant(1, 1_000);
    honest.release(1, one);
    honest.grant(2, 1_000);
    let mut evidence = honest.evidence();
    // The answer to the release was late: by then the next one had the device.
    evidence.history[1].returned_us = evidence.history[2].returned_us + 500;
    accepted(&evidence);
}

#[test]
fn doctored_an_acknowledged_grant_that_is_not_in_the_log() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    let mut invented = evidence.history[1].clone();
    invented.request_id = "invented".to_owned();
    if let Outcome::Done { revision, seen } = &mut invented.outcome {
        (*revision, seen.id, seen.token) = (90, 90, 90);
    }
    let last_us = evidence.history.last().map_or(0, |operation| operation.returned_us);
    (invented.called_us, invented.returned_us) = (last_us + 10, last_us + 20);
    evidence.history.push(invented);
    rejected_by(&evidence, "results");
}

#[test]
fn doctored_a_grant_that_is_gone_without_an_end() {
    let (honest, _, other) = usual();
    let mut evidence = honest.evidence();
    evidence.live.retain(|(id, ..)| *id != other);
    rejected_by(&evidence, "no lost grant");
}

#[test]
fn doctored_a_stale_read() {
    let (mut honest, one, _) = usual();
    honest.get(2, one);
    let mut evidence = honest.evidence();
    // It shows the lease as it was before the release that had returned.
    let early = evidence.history[3].outcome.clone();
    evidence.history.last_mut().expect("just made").outcome = early;
    rejected_by(&evidence, "real time");
    rejected_by(&evidence, "search by lease");
}

#[test]
fn doctored_a_write_with_a_revision_from_the_past() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    // The second grant came before the first was called, and has the larger revision.
    evidence.history[1].called_us = 0;
    evidence.history[1].returned_us = 1;
    evidence.history[0].called_us = 10;
    rejected_by(&evidence, "real time");
}

#[test]
fn doctored_a_definite_error_that_took_effect() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    evidence.history[1].outcome = Outcome::Refused { reason: "UNAVAILABLE".to_owned() };
    rejected_by(&evidence, "definite errors");
}

#[test]
fn doctored_one_key_with_two_effects() {
    let (mut honest, ..) = usual();
    let key = honest.log[2].command.request_id.clone();
    let id = honest.grant(2, 0);
    let mut evidence = honest.evidence();
    evidence.log.last_mut().expect("just made").command.request_id = key.clone();
    evidence.history.last_mut().expect("just made").request_id = key;
    seal(&mut evidence);
    assert!(id > 0);
    rejected_by(&evidence, "exactly once");
    rejected_by(&evidence, "replay");
}

#[test]
fn doctored_a_device_with_two_holders() {
    let mut honest = Honest::new();
    honest.grant(1, 1_000);
    honest.grant(2, 1_000);
    let evidence = honest.evidence();
    rejected_by(&evidence, "device exclusivity");
    rejected_by(&evidence, "search by device");
}

#[test]
fn doctored_a_log_and_answers_that_lie_together_about_a_device() {
    let mut honest = Honest::new();
    let one = honest.grant(1, 600);
    honest.grant(2, 600);
    honest.release(1, one);
    let mut evidence = honest.evidence();
    // The liar puts the release before the second grant, in the log and in the answers; only the times are not its own.
    evidence.log.swap(2, 3);
    for (index, record) in evidence.log.iter_mut().enumerate() {
        record.revision = index as u64 + 1;
    }
    seal(&mut evidence);
    rejected_by(&evidence, "search by device");
}

#[test]
fn doctored_a_broken_chain() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    evidence.log[2].chain[0] ^= 1;
    rejected_by(&evidence, "log honesty");
}

#[test]
fn doctored_a_gap_in_the_log() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    evidence.log.remove(2);
    rejected_by(&evidence, "log honesty");
}

#[test]
fn doctored_a_replica_with_another_log() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    evidence.replicas[2].log[1].entry.push(0);
    rejected_by(&evidence, "log honesty");
}

#[test]
fn doctored_a_replica_with_another_state() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    evidence.replicas[1].digest[0] ^= 1;
    rejected_by(&evidence, "state digests");
}

#[test]
fn doctored_a_token_that_is_not_the_revision_of_its_grant() {
    let (honest, _, other) = usual();
    let mut evidence = honest.evidence();
    for record in &mut evidence.log {
        if let Came::Reservation(one) = &mut record.outcome
            && one.id == other
        {
            one.token = 1;
        }
    }
    if let Outcome::Done { seen, .. } = &mut evidence.history[1].outcome {
        seen.token = 1;
    }
    evidence.live = vec![(other, log::State::Active.into(), 1)];
    seal(&mut evidence);
    rejected_by(&evidence, "device exclusivity");
}

#[test]
fn doctored_an_early_expiry() {
    let (mut honest, _, other) = usual();
    honest.wait(TTL_MS / 2);
    honest.expire(&[other]);
    rejected_by(&honest.evidence(), "replay");
}

#[test]
fn doctored_an_old_token_that_still_works() {
    let (mut honest, one, _) = usual();
    honest.renew(1, one);
    let evidence = honest.evidence();
    assert!(evidence.history.iter().all(|operation| operation.returned_us != NEVER_US));
    rejected_by(&evidence, "search by lease");
}

#[test]
fn doctored_time_that_goes_back() {
    let (honest, ..) = usual();
    let mut evidence = honest.evidence();
    evidence.log[3].log_time_ms = 5;
    seal(&mut evidence);
    rejected_by(&evidence, "replay");
}
