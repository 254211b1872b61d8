//! Canonical keys of rows: their byte order is the order of `RowKey`.

use bytes::Bytes;
use plimsoll_ledger::{Row, RowKey};
use plimsoll_types::{NodeId, ReservationId, Revision};

use super::{CodecError, usage};

const META: u8 = 1;
const POOL: u8 = 2;
const CLASS: u8 = 3;
const NODE_LIMITS: u8 = 4;
const NODE: u8 = 5;
const RESERVATION: u8 = 6;
const IDEMPOTENCY: u8 = 7;
const REMOVED_NODE: u8 = 8;
const QUEUE: u8 = 9;
const QUOTA: u8 = 12;
const USAGE: u8 = 22;
const VALIDATOR: u8 = 13;
const SCHEDULE: u8 = 11;
const SERVICE: u8 = 23;
const LOAD: u8 = 24;
const SCALING_POLICY: u8 = 25;
const SCALING: u8 = 26;
const INTENT: u8 = 27;
const CONTENTION: u8 = 60;
const BODY: u8 = 100;
const QUEUE_USE: u8 = 140;

/// Canonical bytes of a key.
pub fn encode_key(key: &RowKey) -> Bytes {
    let mut bytes = Vec::with_capacity(64);
    match key {
        RowKey::Meta => bytes.push(META),
        RowKey::Pool(name) => named(&mut bytes, POOL, name),
        RowKey::Class(name) => named(&mut bytes, CLASS, name),
        RowKey::NodeLimits(name) => named(&mut bytes, NODE_LIMITS, name),
        RowKey::Queue(name) => named(&mut bytes, QUEUE, name),
        RowKey::Quota(name) => named(&mut bytes, QUOTA, name),
        RowKey::Usage(key) => {
            bytes.push(USAGE);
            usage::encode_key(&mut bytes, key);
        }
        RowKey::Validator(name) => named(&mut bytes, VALIDATOR, name),
        RowKey::Schedule(name) => named(&mut bytes, SCHEDULE, name),
        RowKey::Service(name) => named(&mut bytes, SERVICE, name),
        RowKey::Load(id) => {
            bytes.push(LOAD);
            bytes.extend_from_slice(&id.0.to_be_bytes());
        }
        RowKey::ScalingPolicy(name) => named(&mut bytes, SCALING_POLICY, name),
        RowKey::Scaling(name) => named(&mut bytes, SCALING, name),
        RowKey::Intent(id) => {
            bytes.push(INTENT);
            bytes.extend_from_slice(&id.0.to_be_bytes());
        }
        RowKey::Contention(id) => {
            bytes.push(CONTENTION);
            bytes.extend_from_slice(&id.0.to_be_bytes());
        }
        RowKey::Body(id) => {
            bytes.push(BODY);
            bytes.extend_from_slice(&id.0.to_be_bytes());
        }
        RowKey::QueueUse(queue, pool) => {
            bytes.push(QUEUE_USE);
            escaped(&mut bytes, queue);
            bytes.extend_from_slice(pool.as_bytes());
        }
        RowKey::Node(id) => {
            bytes.push(NODE);
            bytes.extend_from_slice(&id.0.to_be_bytes());
        }
        RowKey::Reservation(id) => {
            bytes.push(RESERVATION);
            bytes.extend_from_slice(&id.0.to_be_bytes());
        }
        RowKey::RemovedNode(id) => {
            bytes.push(REMOVED_NODE);
            bytes.extend_from_slice(&id.0.to_be_bytes());
        }
        RowKey::Idempotency(actor, request_id) => {
            bytes.push(IDEMPOTENCY);
            escaped(&mut bytes, actor);
            bytes.extend_from_slice(request_id.as_bytes());
        }
    }
    bytes.into()
}

/// True for the canonical key of what one asked that is set aside.
pub fn is_body(key: &[u8]) -> bool {
    key.first() == Some(&BODY)
}

/// The key of canonical bytes.
///
/// # Errors
/// Where the bytes are damaged or of a newer build.
pub fn decode_key(bytes: &[u8]) -> Result<RowKey, CodecError> {
    let bad = CodecError::NotCanonical { what: "row key" };
    let Some((kind, rest)) = bytes.split_first() else { return Err(bad) };
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).map_err(|_| bad.clone());
    match *kind {
        META if rest.is_empty() => Ok(RowKey::Meta),
        POOL => Ok(RowKey::Pool(text(rest)?)),
        CLASS => Ok(RowKey::Class(text(rest)?)),
        NODE_LIMITS => Ok(RowKey::NodeLimits(text(rest)?)),
        QUEUE => Ok(RowKey::Queue(text(rest)?)),
        QUOTA => Ok(RowKey::Quota(text(rest)?)),
        USAGE => Ok(RowKey::Usage(usage::decode_key(rest).ok_or(bad)?)),
        VALIDATOR => Ok(RowKey::Validator(text(rest)?)),
        SCHEDULE => Ok(RowKey::Schedule(text(rest)?)),
        SERVICE => Ok(RowKey::Service(text(rest)?)),
        LOAD => {
            let id = rest.try_into().map_err(|_| bad)?;
            Ok(RowKey::Load(ReservationId(u64::from_be_bytes(id))))
        }
        SCALING_POLICY => Ok(RowKey::ScalingPolicy(text(rest)?)),
        SCALING => Ok(RowKey::Scaling(text(rest)?)),
        INTENT => {
            let id = rest.try_into().map_err(|_| bad)?;
            Ok(RowKey::Intent(Revision(u64::from_be_bytes(id))))
        }
        CONTENTION => {
            let id = rest.try_into().map_err(|_| bad)?;
            Ok(RowKey::Contention(Revision(u64::from_be_bytes(id))))
        }
        BODY => {
            let id = rest.try_into().map_err(|_| bad)?;
            Ok(RowKey::Body(ReservationId(u64::from_be_bytes(id))))
        }
        NODE => {
            let id = rest.try_into().map_err(|_| bad)?;
            Ok(RowKey::Node(NodeId(u32::from_be_bytes(id))))
        }
        REMOVED_NODE => {
            let id = rest.try_into().map_err(|_| bad)?;
            Ok(RowKey::RemovedNode(NodeId(u32::from_be_bytes(id))))
        }
        RESERVATION => {
            let id = rest.try_into().map_err(|_| bad)?;
            Ok(RowKey::Reservation(ReservationId(u64::from_be_bytes(id))))
        }
        QUEUE_USE => {
            let (queue, pool) = split_actor(rest).ok_or_else(|| bad.clone())?;
            Ok(RowKey::QueueUse(text(&queue)?, text(pool)?))
        }
        IDEMPOTENCY => {
            let (actor, request_id) = split_actor(rest).ok_or_else(|| bad.clone())?;
            Ok(RowKey::Idempotency(text(&actor)?, text(request_id)?))
        }
        META => Err(bad),
        _ => Err(CodecError::UnknownKind { what: "row key" }),
    }
}

/// The key under which a row is kept.
pub fn key_of(row: &Row) -> RowKey {
    match row {
        Row::Meta(_) => RowKey::Meta,
        Row::Pool(pool) => RowKey::Pool(pool.name.clone()),
        Row::Class(class) => RowKey::Class(class.name.clone()),
        Row::NodeLimits(limits) => RowKey::NodeLimits(limits.name.clone()),
        Row::Queue(queue) => RowKey::Queue(queue.name.clone()),
        Row::Quota(quota) => RowKey::Quota(quota.name.clone()),
        Row::Usage(usage) => RowKey::Usage(usage.key.clone()),
        Row::Validator(object) => RowKey::Validator(object.name.clone()),
        Row::Schedule(schedule) => RowKey::Schedule(schedule.name.clone()),
        Row::Service(service) => RowKey::Service(service.name.clone()),
        Row::Load(load) => RowKey::Load(load.report.reservation),
        Row::ScalingPolicy(policy) => RowKey::ScalingPolicy(policy.name.clone()),
        Row::Scaling(scaling) => RowKey::Scaling(scaling.policy.clone()),
        Row::Intent(intent) => RowKey::Intent(intent.id),
        Row::Contention(one) => RowKey::Contention(one.id),
        Row::Body(body) => RowKey::Body(body.reservation),
        Row::QueueUse(row) => RowKey::QueueUse(row.queue.clone(), row.pool.clone()),
        Row::Node(node) => RowKey::Node(node.id),
        Row::Reservation(reservation) => RowKey::Reservation(reservation.id),
        Row::RemovedNode(removed) => RowKey::RemovedNode(removed.id),
        Row::Idempotency(answer) => RowKey::Idempotency(answer.actor.clone(), answer.request_id.clone()),
    }
}

fn named(bytes: &mut Vec<u8>, kind: u8, name: &str) {
    bytes.push(kind);
    bytes.extend_from_slice(name.as_bytes());
}

/// A text of which the end can be told: each zero byte is followed by a 1, and two zero bytes end it.
pub(super) fn escaped(bytes: &mut Vec<u8>, text: &str) {
    for byte in text.bytes() {
        bytes.push(byte);
        if byte == 0 {
            bytes.push(1);
        }
    }
    bytes.extend_from_slice(&[0, 0]);
}

/// Undoes the escape of zero bytes; `None` where there is no terminator.
pub(super) fn split_actor(bytes: &[u8]) -> Option<(Vec<u8>, &[u8])> {
    let mut actor = Vec::new();
    let mut rest = bytes;
    loop {
        match rest {
            [0, 0, request_id @ ..] => return Some((actor, request_id)),
            [0, 1, more @ ..] => {
                actor.push(0);
                rest = more;
            }
            [0, ..] | [] => return None,
            [byte, more @ ..] => {
                actor.push(*byte);
                rest = more;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn key() -> impl Strategy<Value = RowKey> {
        prop_oneof![
            Just(RowKey::Meta),
            ".{0,6}".prop_map(RowKey::Pool),
            ".{0,6}".prop_map(RowKey::Class),
            ".{0,6}".prop_map(RowKey::NodeLimits),
            ".{0,6}".prop_map(RowKey::Queue),
            ".{0,6}".prop_map(RowKey::Quota),
            crate::codec::arbitrary::usage_key().prop_map(RowKey::Usage),
            ".{0,6}".prop_map(RowKey::Validator),
            ".{0,6}".prop_map(RowKey::Schedule),
            ".{0,6}".prop_map(RowKey::Service),
            any::<u64>().prop_map(|id| RowKey::Load(ReservationId(id))),
            ".{0,6}".prop_map(RowKey::ScalingPolicy),
            ".{0,6}".prop_map(RowKey::Scaling),
            any::<u64>().prop_map(|id| RowKey::Intent(Revision(id))),
            any::<u64>().prop_map(|id| RowKey::Contention(Revision(id))),
            any::<u64>().prop_map(|id| RowKey::Body(ReservationId(id))),
            ("[a\u{0}\u{1}b]{0,4}", "[a\u{0}\u{1}b]{0,4}").prop_map(|(a, b)| RowKey::QueueUse(a, b)),
            any::<u32>().prop_map(|id| RowKey::Node(NodeId(id))),
            any::<u32>().prop_map(|id| RowKey::RemovedNode(NodeId(id))),
            any::<u64>().prop_map(|id| RowKey::Reservation(ReservationId(id))),
            ("[a\u{0}\u{1}b]{0,4}", "[a\u{0}\u{1}b]{0,4}").prop_map(|(a, b)| RowKey::Idempotency(a, b)),
        ]
    }

    proptest! {
        #[test]
        fn keys_round_trip(key in key()) {
            prop_assert_eq!(decode_key(&encode_key(&key)), Ok(key));
        }

        #[test]
        fn keys_sort_as_their_bytes(a in key(), b in key()) {
            prop_assert_eq!(a.cmp(&b), encode_key(&a).cmp(&encode_key(&b)));
        }
    }

    #[test]
    fn damaged_keys_are_refused() {
        for bad in [
            &[][..],
            &[META, 0],
            &[NODE, 1, 2],
            &[RESERVATION],
            &[LOAD, 1],
            &[INTENT, 1],
            &[CONTENTION, 1],
            &[BODY, 1],
            &[REMOVED_NODE, 1],
            &[IDEMPOTENCY, b'a', 0],
            &[99],
        ] {
            assert!(decode_key(bad).is_err(), "{bad:?}");
        }
    }
}
