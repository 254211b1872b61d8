//! What is set aside from queues, in canonical bytes.

use std::sync::Arc;

use plimsoll_ledger::{Aside, Body, Request, SetAsideOne};
use plimsoll_types::ReservationId;

use super::command::{read_hash, write_hash};
use super::decode::Result;
use super::{names, request};
use crate::fields::{Reader, Writer};

/// Fields of `SetAside`.
pub(super) fn write_aside(to: &mut Writer<'_>, aside: &[SetAsideOne]) {
    for one in aside {
        to.message(1, |to| {
            to.number(1, one.reservation.0);
            to.bytes(2, &one.body);
            write_hash(to, 3, &one.body_hash);
        });
    }
}

/// The other way.
pub(super) fn read_aside(from: &mut Reader<'_>) -> Result<Vec<SetAsideOne>> {
    from.messages(1, "set aside", |mut from| {
        let reservation = ReservationId(from.number(1)?);
        let body = Arc::from(from.bytes(2)?);
        let body_hash = read_hash(&mut from, 3)?;
        from.end().map(|()| SetAsideOne { reservation, body, body_hash })
    })
}

/// Fields of `Return`.
pub(super) fn write_returned(to: &mut Writer<'_>, requests: &[(ReservationId, Request)]) {
    for (id, asked) in requests {
        to.message(1, |to| {
            to.number(1, id.0);
            to.message(2, |to| request::write(to, asked));
        });
    }
}

/// The other way.
pub(super) fn read_returned(from: &mut Reader<'_>) -> Result<Vec<(ReservationId, Request)>> {
    from.messages(1, "returned", |mut from| {
        let id = ReservationId(from.number(1)?);
        let asked = request::read(from.some_message(2, "returned.request")?)?;
        from.end().map(|()| (id, asked))
    })
}

/// Fields of `Aside`.
pub(super) fn write_kept(to: &mut Writer<'_>, aside: &Aside) {
    to.choice(1, names::encode_aside_how(aside.how));
    write_hash(to, 2, &aside.body_hash);
    to.number(3, aside.body_bytes);
}

/// The other way.
pub(super) fn read_kept(mut from: Reader<'_>) -> Result<Aside> {
    let how = names::decode_aside_how(from.choice(1)?)?;
    let body_hash = read_hash(&mut from, 2)?;
    let aside = Aside { how, body_hash, body_bytes: from.small(3)? };
    from.end().map(|()| aside)
}

/// Fields of `Body`.
pub(super) fn write_body(to: &mut Writer<'_>, body: &Body) {
    to.number(1, body.reservation.0);
    to.choice(2, names::encode_aside_how(body.how));
    to.bytes(3, &body.bytes);
}

/// The other way.
pub(super) fn read_body(mut from: Reader<'_>) -> Result<Body> {
    let reservation = ReservationId(from.number(1)?);
    let how = names::decode_aside_how(from.choice(2)?)?;
    let body = Body { reservation, how, bytes: Arc::from(from.bytes(3)?) };
    from.end().map(|()| body)
}
