//! Evictions, in canonical bytes.

use plimsoll_ledger::{EvictWhen, Evicted, Overload};
use plimsoll_types::{NodeEpoch, NodeId};

use super::decode::Result;
use super::{CodecError, names};
use crate::fields::{Reader, Writer};

pub(super) fn write_overload(to: &mut Writer<'_>, overload: &Overload) {
    to.number(1, overload.node.0);
    to.number(2, overload.epoch.0);
    to.choice(3, names::encode_gauge(overload.gauge));
    to.number(4, overload.measured_permille);
    to.number(5, overload.over_ms);
}

pub(super) fn read_overload(mut from: Reader<'_>) -> Result<Overload> {
    let overload = Overload {
        node: NodeId(from.small(1)?),
        epoch: NodeEpoch(from.number(2)?),
        gauge: names::decode_gauge(from.choice(3)?)?,
        measured_permille: from.small(4)?,
        over_ms: from.number(5)?,
    };
    from.end().map(|()| overload)
}

pub(super) fn write_evicted(to: &mut Writer<'_>, evicted: &Evicted) {
    to.message(1, |to| write_overload(to, &evicted.overload));
    to.number(2, evicted.above_permille);
}

pub(super) fn read_evicted(mut from: Reader<'_>) -> Result<Evicted> {
    let overload = read_overload(from.some_message(1, "evicted.overload")?)?;
    let evicted = Evicted { overload, above_permille: from.small(2)? };
    from.end().map(|()| evicted)
}

/// A threshold as its text; `None` is empty.
pub(super) fn encode_when(when: Option<EvictWhen>) -> String {
    when.map(|when| when.to_string()).unwrap_or_default()
}

/// The threshold of a text: of one spelling of each alone.
pub(super) fn decode_when(text: &str) -> Result<Option<EvictWhen>> {
    if text.is_empty() {
        return Ok(None);
    }
    let when: EvictWhen = text.parse().map_err(|_| CodecError::UnknownKind { what: "evict_when" })?;
    if when.to_string() != text {
        return Err(CodecError::NotCanonical { what: "evict_when" });
    }
    Ok(Some(when))
}
