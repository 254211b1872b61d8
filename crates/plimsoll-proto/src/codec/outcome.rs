//! What commands came to, and the answers that are remembered, in canonical bytes.

use std::sync::Arc;

use plimsoll_ledger::{Answer, Outcome, Refusal, Remembered};
use plimsoll_types::{LedgerTime, Revision};

use super::decode::{self, Result};
use super::{CodecError, command, encode, names, reservation, usage};
use crate::fields::{Reader, Writer};

/// Fields of `LogOutcome`.
pub(super) fn write(to: &mut Writer<'_>, outcome: &Outcome) {
    match outcome {
        Outcome::Done => to.message(1, |_| {}),
        Outcome::Reservation(after) => to.message(2, |to| reservation::write(to, after)),
        Outcome::Node(after) => to.generated(3, &encode::node(after)),
        Outcome::Expired { ended, more } => to.message(4, |to| {
            to.number(1, *ended);
            to.number(2, *more);
        }),
        Outcome::Refused(why) => to.message(5, |to| {
            to.choice(1, names::encode_reason(why.reason));
            reservation::write_blockers(to, 2, &why.blockers);
        }),
        Outcome::Tokens(told) => to.generated(35, &usage::encode_tokens(told)),
    }
}

/// The outcome of its field.
pub(super) fn read(mut from: Reader<'_>) -> Result<Outcome> {
    let outcome = match from.next_field()? {
        Some(1) => {
            from.some_message(1, "done")?.end()?;
            Outcome::Done
        }
        Some(2) => Outcome::Reservation(Arc::new(reservation::read(from.some_message(2, "reservation")?)?)),
        Some(3) => Outcome::Node(Arc::new(decode::node(from.some_generated(3, "node")?)?)),
        Some(4) => {
            let mut expired = from.some_message(4, "expired")?;
            let outcome = Outcome::Expired { ended: expired.small(1)?, more: expired.flag(2)? };
            expired.end()?;
            outcome
        }
        Some(5) => {
            let mut refused = from.some_message(5, "refused")?;
            let reason = names::decode_reason(refused.choice(1)?)?;
            let blockers = reservation::read_blockers(&mut refused, 2)?;
            refused.end()?;
            Outcome::Refused(Refusal { reason, blockers })
        }
        Some(35) => Outcome::Tokens(usage::decode_tokens(from.some_generated(35, "tokens")?)),
        _ => return Err(CodecError::UnknownKind { what: "outcome" }),
    };
    from.end().map(|()| outcome)
}

/// Fields of `LogAnswer`.
pub(super) fn write_answer(to: &mut Writer<'_>, answer: &Answer) {
    to.number(1, answer.revision.0);
    to.number(2, answer.log_time.0);
    to.message(3, |to| write(to, &answer.outcome));
}

/// The answer of its fields.
pub(super) fn read_answer(mut from: Reader<'_>) -> Result<Answer> {
    let revision = Revision(from.number(1)?);
    let log_time = LedgerTime(from.number(2)?);
    let outcome = read(from.some_message(3, "answer.outcome")?)?;
    from.end().map(|()| Answer { revision, log_time, outcome })
}

/// Fields of `Remembered`.
pub(super) fn write_remembered(to: &mut Writer<'_>, kept: &Remembered) {
    to.bytes(1, &kept.actor);
    to.bytes(2, &kept.request_id);
    command::write_hash(to, 3, &kept.request_hash);
    to.message(4, |to| write_answer(to, &kept.answer));
    to.number(5, kept.keep_until.0);
}

/// The remembered answer of its fields.
pub(super) fn read_remembered(mut from: Reader<'_>) -> Result<Remembered> {
    let actor = from.text(1)?;
    let request_id = from.text(2)?;
    let request_hash = command::read_hash(&mut from, 3)?;
    let answer = read_answer(from.some_message(4, "remembered.answer")?)?;
    let keep_until = LedgerTime(from.number(5)?);
    from.end().map(|()| Remembered { actor, request_id, request_hash, answer, keep_until })
}
