//! What those asked who are set aside from a queue: packed for the log, read back from memory or the store, and put into what is shown.
//!
//! Invariant: a body that is handed to the store is at hand here until the store has it, so that whoever holds the ledger's lock finds it in one of the two.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::{Mutex, RwLock};
use plimsoll_ledger::{
    Aside, AsideHow, Body, Ledger, Request, Reservation, Row, RowKey, RowPlace, SetAsideOne, StoredRow,
    TouchedRow,
};
use plimsoll_proto::codec;
use plimsoll_store::Engine;
use plimsoll_types::ReservationId;

use super::stored::{self, StoredRows};

/// Longest request that is unpacked, in bytes: more than a call may bring.
const MAX_REQUEST_BYTES: usize = 16 << 20;

/// What one asked that is set aside is not there, or not what it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what {reservation} asked, which is set aside, cannot be read: {why}")]
pub struct BodyError {
    /// Which.
    pub reservation: ReservationId,
    /// Why not.
    pub why: String,
}

/// Bodies of one replica.
pub(super) struct Bodies {
    live: Arc<RwLock<Ledger>>,
    /// Not kept open by those who look.
    engine: Weak<dyn Engine>,
    /// What the ledger handed out last: the store has what it handed out before.
    handed: Mutex<BTreeMap<ReservationId, Arc<Body>>>,
}

impl Bodies {
    pub(super) fn new(live: Arc<RwLock<Ledger>>, engine: Weak<dyn Engine>) -> Bodies {
        Bodies { live, engine, handed: Mutex::default() }
    }

    /// The ledger of this replica.
    pub(super) fn ledger(&self) -> &Arc<RwLock<Ledger>> {
        &self.live
    }

    /// Keeps what the ledger hands out until the next time. The caller holds the ledger's lock.
    pub(super) fn hand_out(&self, rows: &[TouchedRow]) {
        let bodies = rows.iter().filter_map(|row| body_of(row.row.as_ref()?));
        *self.handed.lock() = bodies.map(|body| (body.reservation, Arc::clone(body))).collect();
    }

    /// The store has all there is.
    pub(super) fn restored(&self) {
        self.handed.lock().clear();
    }

    /// A reservation with all that it asked, for who shows it. What an answer shows of one that was set aside after it is not aside.
    ///
    /// # Errors
    /// Where its body is lost or damaged.
    pub(super) fn whole(
        &self,
        ledger: &Ledger,
        reservation: &Arc<Reservation>,
    ) -> Result<Arc<Reservation>, BodyError> {
        let Some(aside) = &reservation.aside else { return Ok(Arc::clone(reservation)) };
        let request = self.request_of(ledger, reservation.id, aside)?;
        let mut whole = reservation
            .with_body(Arc::new(request))
            .ok_or_else(|| BodyError { reservation: reservation.id, why: "it is another's".to_owned() })?;
        if whole.was_shown_whole() {
            whole.aside = None;
        }
        Ok(Arc::new(whole))
    }

    /// What one asked that is aside.
    ///
    /// # Errors
    /// Where its body is lost or damaged.
    pub(super) fn request_of(
        &self,
        ledger: &Ledger,
        reservation: ReservationId,
        aside: &Aside,
    ) -> Result<Request, BodyError> {
        let failed = |why: String| BodyError { reservation, why };
        if let Some(body) = self.find(ledger, reservation).map_err(failed)? {
            return unpack(aside, &body).map_err(failed);
        }
        // A state of the past shows one that has come back since, and nobody changes what it asked.
        if !std::ptr::eq(self.live.data_ptr().cast_const(), ledger)
            && let Some(now) = self.live.read().reservation(reservation).filter(|now| now.aside.is_none())
            && blake3::hash(&codec::encode_request(&now.request)) == aside.body_hash
        {
            return Ok(Request::clone(&now.request));
        }
        Err(failed("there is no row of it".to_owned()))
    }

    /// The rows of all bodies of this replica's ledger, in canonical order. The caller holds its lock.
    ///
    /// # Errors
    /// The first that is lost.
    pub(super) fn all(&self, ledger: &Ledger) -> Result<Vec<(RowKey, Row)>, BodyError> {
        let row = |reservation: ReservationId| {
            let failed = |why: String| BodyError { reservation, why };
            let found = self.find(ledger, reservation).map_err(failed)?;
            let body = found.ok_or_else(|| failed("there is no row of it".to_owned()))?;
            Ok((RowKey::Body(reservation), Row::Body(body)))
        };
        ledger.with_bodies().into_iter().map(row).collect()
    }

    /// The body of one: in memory, on its way to the store, or there.
    pub(super) fn find(&self, ledger: &Ledger, id: ReservationId) -> Result<Option<Arc<Body>>, String> {
        if let Some(body) = ledger.body(id) {
            return Ok(Some(Arc::clone(body)));
        }
        if let Some(body) = self.handed.lock().get(&id) {
            return Ok(Some(Arc::clone(body)));
        }
        let engine = self.engine.upgrade().ok_or("the store is closed")?;
        let key = stored::key(&RowPlace::Body(id));
        let Some(value) = engine.get(&key).map_err(|error| error.to_string())? else { return Ok(None) };
        match StoredRows::default().read(&key[1..], &value)? {
            StoredRow::Whole(Row::Body(body)) => Ok(Some(body)),
            _ => Err("its row is of another kind".to_owned()),
        }
    }
}

/// The body that a row has, if any.
pub(super) fn body_of(row: &Row) -> Option<&Arc<Body>> {
    match row {
        Row::Body(body) => Some(body),
        _ => None,
    }
}

/// One that is to be set aside, with what it asked as the store is to keep it.
pub(super) fn pack(reservation: ReservationId, request: &Request, how: AsideHow) -> SetAsideOne {
    let plain = codec::encode_request(request);
    let body_hash = *blake3::hash(&plain).as_bytes();
    let body = match how {
        AsideHow::Spilled => Arc::from(plain.as_ref()),
        AsideHow::Compressed => Arc::from(lz4_flex::compress_prepend_size(&plain)),
    };
    SetAsideOne { reservation, body, body_hash }
}

/// What was asked, of a body.
pub(super) fn unpack(aside: &Aside, body: &Body) -> Result<Request, String> {
    let plain = match body.how {
        AsideHow::Spilled => body.bytes.to_vec(),
        AsideHow::Compressed => {
            let length = body.bytes.first_chunk().map_or(0, |bytes| u32::from_le_bytes(*bytes) as usize);
            if length > MAX_REQUEST_BYTES {
                return Err(format!("it says that it has {length} bytes, at most {MAX_REQUEST_BYTES} are"));
            }
            lz4_flex::decompress_size_prepended(&body.bytes).map_err(|error| error.to_string())?
        }
    };
    if blake3::hash(&plain) != aside.body_hash {
        return Err("its hash is another".to_owned());
    }
    codec::decode_request(&plain).map_err(|error| error.to_string())
}

/// What is wrong with these bodies of those of a ledger who are aside, one by one.
pub(super) fn damaged<'a>(ledger: &Ledger, bodies: impl Iterator<Item = &'a Arc<Body>>) -> Vec<BodyError> {
    let wrong = |body: &Arc<Body>| {
        let aside = ledger.reservation(body.reservation)?.aside.as_ref()?;
        let why = unpack(aside, body).err()?;
        Some(BodyError { reservation: body.reservation, why })
    };
    bodies.filter_map(wrong).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packed(how: AsideHow) -> (Aside, Body, Request) {
        let request = Request { name: "train".repeat(50), pool: "default".into(), ..Request::default() };
        let SetAsideOne { reservation, body, body_hash } = pack(ReservationId(1), &request, how);
        let aside = Aside { how, body_hash, body_bytes: u32::try_from(body.len()).expect("short") };
        (aside, Body { reservation, how, bytes: body }, request)
    }

    #[test]
    fn a_body_comes_back_and_a_changed_one_does_not() {
        for how in [AsideHow::Spilled, AsideHow::Compressed] {
            let (aside, body, request) = packed(how);
            assert_eq!(unpack(&aside, &body), Ok(request.clone()));
            for at in 0..body.bytes.len() {
                let mut bytes = body.bytes.to_vec();
                bytes[at] ^= 1;
                let damaged = Body { bytes: bytes.into(), ..body.clone() };
                // Some other bytes say the same of what repeats itself: never another request.
                let read = unpack(&aside, &damaged);
                let harmless = how == AsideHow::Compressed && read.as_ref() == Ok(&request);
                assert!(read.is_err() || harmless, "byte {at}");
            }
        }
        let (_, long, _) = packed(AsideHow::Spilled);
        let (aside, short, _) = packed(AsideHow::Compressed);
        assert!(short.bytes.len() * 2 < long.bytes.len());
        let bomb = Body { bytes: vec![255; 8].into(), ..short };
        assert!(unpack(&aside, &bomb).is_err_and(|why| why.contains("at most")));
    }
}
