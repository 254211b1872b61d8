//! What clients saw: each call with its times by one clock, and what came of it.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use plimsoll_client::{Error, v1};

/// A time that never comes: an operation without an answer may take effect at any later moment.
pub const NEVER_US: u64 = u64::MAX;

/// One call of a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Which client.
    pub client: u32,
    /// Idempotency key; empty for reads.
    pub request_id: String,
    /// What was asked.
    pub call: Call,
    /// When it was sent, in microseconds of the observer's clock.
    pub called_us: u64,
    /// When its answer came, likewise; [`NEVER_US`] where the outcome is unknown.
    pub returned_us: u64,
    /// What came of it.
    pub outcome: Outcome,
}

/// What was asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A new reservation with a lease of so many milliseconds.
    Create {
        /// Lease length.
        ttl_ms: u64,
    },
    /// Renewal.
    Renew {
        /// Reservation by its number.
        reservation: u64,
        /// Token.
        token: u64,
    },
    /// Release.
    Release {
        /// Reservation by its number.
        reservation: u64,
        /// Token.
        token: u64,
    },
    /// Cancel.
    Cancel {
        /// Reservation by its number.
        reservation: u64,
    },
    /// Linearizable read of one reservation.
    Get {
        /// Reservation by its number.
        reservation: u64,
    },
}

/// What came of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Done at a revision, or read at it.
    Done {
        /// The revision.
        revision: u64,
        /// The reservation as shown.
        seen: Seen,
    },
    /// Certainly not done, and never will be.
    Refused {
        /// Name of the reason.
        reason: String,
    },
    /// Nobody knows.
    Unknown,
}

/// A reservation as a client was shown it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its number.
    pub id: u64,
    /// Its state, by number; UNKNOWN stands for what it will resume.
    pub state: i32,
    /// Its fencing token.
    pub token: u64,
    /// Devices that it has: node, index, thousandths.
    pub devices: Vec<(String, u32, u32)>,
}

/// Collects operations of many clients.
#[derive(Clone)]
pub struct Recorder {
    began: Instant,
    operations: Arc<Mutex<Vec<Operation>>>,
}

impl Call {
    /// True for a call that changes nothing.
    pub fn is_read(&self) -> bool {
        matches!(self, Call::Get { .. })
    }

    /// The reservation that it is about, where one is named.
    pub fn reservation(&self) -> Option<u64> {
        match self {
            Call::Create { .. } => None,
            Call::Renew { reservation, .. }
            | Call::Release { reservation, .. }
            | Call::Cancel { reservation }
            | Call::Get { reservation } => Some(*reservation),
        }
    }
}

impl Outcome {
    /// Revision and reservation, where it was done.
    pub fn done(&self) -> Option<(u64, &Seen)> {
        match self {
            Outcome::Done { revision, seen } => Some((*revision, seen)),
            _ => None,
        }
    }

    /// Of an error of the SDK.
    pub fn of(error: &Error) -> Outcome {
        if error.is_definite() {
            Outcome::Refused { reason: error.reason_name().to_owned() }
        } else {
            Outcome::Unknown
        }
    }
}

impl Seen {
    /// Of a reservation on the wire.
    pub fn of(reservation: &v1::Reservation) -> Seen {
        let devices = reservation.allocations.iter().flat_map(|allocation| {
            let of_member = |grant: &v1::DeviceGrant| (allocation.node.clone(), grant.index, grant.milli);
            allocation.devices.iter().map(of_member)
        });
        let standing = match reservation.state() {
            v1::ReservationState::Unknown => reservation.resume_state,
            _ => reservation.state,
        };
        Seen {
            id: number(&reservation.id).unwrap_or(0),
            state: standing,
            token: reservation.token,
            devices: devices.collect(),
        }
    }
}

impl Default for Recorder {
    fn default() -> Recorder {
        Recorder { began: Instant::now(), operations: Arc::default() }
    }
}

impl Recorder {
    /// Microseconds since it was made.
    pub fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_micros()).unwrap_or(NEVER_US)
    }

    /// Notes an operation.
    pub fn add(&self, operation: Operation) {
        self.operations.lock().expect("nothing panics under this lock").push(operation);
    }

    /// How many there are.
    pub fn count(&self) -> usize {
        self.operations.lock().expect("nothing panics under this lock").len()
    }

    /// All operations, by the time of their calls.
    pub fn take(&self) -> Vec<Operation> {
        let mut all = std::mem::take(&mut *self.operations.lock().expect("nothing panics under this lock"));
        all.sort_by_key(|operation| operation.called_us);
        all
    }
}

/// The number behind an id such as `r-7k2m` (`docs/semantics.md` 2).
pub fn number(id: &str) -> Option<u64> {
    const DIGITS: &str = "0123456789bcdfghjkmnpqrstvwxyz";
    let digits = id.rsplit('/').next()?.strip_prefix("r-")?;
    digits.chars().try_fold(0u64, |sum, digit| {
        let value = DIGITS.find(digit)? as u64;
        sum.checked_mul(30)?.checked_add(value)
    })
}

/// The id of a number, the other way round.
pub fn id_of(mut number: u64) -> String {
    const DIGITS: &[u8; 30] = b"0123456789bcdfghjkmnpqrstvwxyz";
    let mut digits = Vec::new();
    while number > 0 || digits.len() < 4 {
        digits.push(char::from(DIGITS[usize::try_from(number % 30).expect("below 30")]));
        number /= 30;
    }
    format!("r-{}", digits.iter().rev().collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_and_written() {
        for value in [0, 7, 29, 30, 899, 123_456_789] {
            assert_eq!(number(&id_of(value)), Some(value));
        }
        assert_eq!(id_of(7), "r-0007");
        assert_eq!(id_of(10), "r-000b");
        assert_eq!(number("pools/default/reservations/r-000b"), Some(10));
        assert_eq!(number("r-a"), None);
    }
}
