//! Rows of the state, in canonical bytes.

use std::sync::Arc;

use plimsoll_ledger::{Meta, Row};
use plimsoll_types::{LedgerTime, Revision};

use super::decode::{self, Result};
use super::{
    CodecError, SharedRequests, contention, encode, outcome, overflow, queue_use, reservation, scale,
    schedule, service, usage,
};
use crate::fields::{Reader, Writer};

/// The field of `Row`.
pub(super) fn write(to: &mut Writer<'_>, row: &Row) {
    match row {
        Row::Meta(meta) => to.message(1, |to| write_meta(to, meta)),
        Row::Pool(object) => to.generated(2, &encode::pool(object)),
        Row::Class(object) => to.generated(3, &encode::class(object)),
        Row::NodeLimits(object) => to.generated(4, &encode::node_limits(object)),
        Row::Node(object) => to.generated(5, &encode::node(object)),
        Row::Reservation(object) => to.message(6, |to| reservation::write(to, object)),
        Row::Idempotency(kept) => to.message(7, |to| outcome::write_remembered(to, kept)),
        Row::RemovedNode(object) => to.generated(8, &encode::removed_node(object)),
        Row::Queue(object) => to.generated(9, &encode::queue(object)),
        Row::Schedule(object) => to.generated(11, &schedule::encode(object)),
        Row::Quota(object) => to.generated(12, &usage::encode_quota(object)),
        Row::Validator(object) => to.generated(13, &encode::validator(object)),
        Row::Usage(object) => to.generated(22, &usage::encode_usage(object)),
        Row::Service(object) => to.generated(23, &service::encode(object)),
        Row::Load(load) => to.generated(24, &service::encode_load(load)),
        Row::ScalingPolicy(policy) => to.generated(25, &scale::encode(policy)),
        Row::Scaling(state) => to.generated(26, &scale::encode_state(state)),
        Row::Intent(intent) => to.generated(27, &scale::encode_intent(intent)),
        Row::Contention(one) => to.generated(60, &contention::encode(one)),
        Row::Body(body) => to.message(100, |to| overflow::write_body(to, body)),
        Row::QueueUse(object) => to.generated(140, &queue_use::encode(object)),
    }
}

/// The row of its field.
pub(super) fn read(mut from: Reader<'_>, requests: &mut SharedRequests) -> Result<Row> {
    let row = match from.next_field()? {
        Some(1) => Row::Meta(read_meta(from.some_message(1, "meta")?)?),
        Some(2) => Row::Pool(Arc::new(decode::pool(from.some_generated(2, "pool")?)?)),
        Some(3) => Row::Class(Arc::new(decode::class(from.some_generated(3, "class")?)?)),
        Some(4) => Row::NodeLimits(Arc::new(decode::node_limits(from.some_generated(4, "node limits")?)?)),
        Some(5) => Row::Node(Arc::new(decode::node(from.some_generated(5, "node")?)?)),
        Some(6) => {
            let from = from.some_message(6, "reservation")?;
            Row::Reservation(Arc::new(reservation::read_with(from, |from| requests.read(from))?))
        }
        Some(7) => Row::Idempotency(Arc::new(outcome::read_remembered(from.some_message(7, "remembered")?)?)),
        Some(8) => Row::RemovedNode(Arc::new(decode::removed_node(from.some_generated(8, "removed node")?))),
        Some(9) => Row::Queue(Arc::new(decode::queue(from.some_generated(9, "queue")?)?)),
        Some(11) => Row::Schedule(Arc::new(schedule::decode(from.some_generated(11, "schedule")?)?)),
        Some(12) => Row::Quota(Arc::new(usage::decode_quota(from.some_generated(12, "quota")?)?)),
        Some(13) => Row::Validator(Arc::new(decode::validator(from.some_generated(13, "validator")?)?)),
        Some(22) => Row::Usage(Arc::new(usage::decode_usage(from.some_generated(22, "usage")?)?)),
        Some(23) => Row::Service(Arc::new(service::decode(from.some_generated(23, "service")?)?)),
        Some(24) => Row::Load(service::decode_load(from.some_generated(24, "load")?)?),
        Some(25) => Row::ScalingPolicy(Arc::new(scale::decode(from.some_generated(25, "scaling policy")?)?)),
        Some(26) => Row::Scaling(Arc::new(scale::decode_state(from.some_generated(26, "scaling")?))),
        Some(27) => Row::Intent(Arc::new(scale::decode_intent(from.some_generated(27, "intent")?)?)),
        Some(60) => Row::Contention(Arc::new(contention::decode(from.some_generated(60, "contention")?)?)),
        Some(140) => Row::QueueUse(Arc::new(queue_use::decode(from.some_generated(140, "queue use")?)?)),
        Some(100) => Row::Body(Arc::new(overflow::read_body(from.some_message(100, "body")?)?)),
        _ => return Err(CodecError::UnknownKind { what: "row" }),
    };
    from.end().map(|()| row)
}

fn write_meta(to: &mut Writer<'_>, meta: &Meta) {
    to.number(1, meta.version);
    to.number(2, meta.revision.0);
    to.number(3, meta.clock.0);
    to.number(4, meta.rearmed_at.0);
    to.number(5, meta.leader);
    to.number(6, meta.next_node);
    to.number(7, meta.policy_changed.0);
}

fn read_meta(mut from: Reader<'_>) -> Result<Meta> {
    let meta = Meta {
        version: from.small(1)?,
        revision: Revision(from.number(2)?),
        clock: LedgerTime(from.number(3)?),
        rearmed_at: LedgerTime(from.number(4)?),
        leader: from.number(5)?,
        next_node: from.small(6)?,
        policy_changed: Revision(from.number(7)?),
    };
    from.end().map(|()| meta)
}
