//! A record of the exported log, read with nothing but the published messages (`docs/encoding.md`).

use plimsoll_client::v1;
use plimsoll_proto::log;
use prost::Message;

/// One command of the log with what it came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Record {
    /// Its place.
    pub revision: u64,
    /// Its ledger time, in milliseconds.
    pub log_time_ms: u64,
    /// Canonical bytes of the command.
    pub entry: Vec<u8>,
    /// Canonical bytes of the outcome.
    pub result: Vec<u8>,
    /// Chain hash up to here.
    pub chain: Vec<u8>,
    /// The command, read.
    pub command: log::LogCommand,
    /// The outcome, read.
    pub outcome: log::log_outcome::Outcome,
}

impl Record {
    /// Reads a record as a replica exports it.
    ///
    /// # Errors
    /// In words, where it is not what `log.proto` says.
    pub fn read(record: v1::LogRecord) -> Result<Record, String> {
        let bad = |what: &str| format!("revision {}: {what}", record.revision);
        let command =
            log::LogCommand::decode(record.entry.as_ref()).map_err(|error| bad(&error.to_string()))?;
        let outcome =
            log::LogOutcome::decode(record.outcome.as_ref()).map_err(|error| bad(&error.to_string()))?;
        Ok(Record {
            revision: record.revision,
            log_time_ms: record.log_time_ms,
            outcome: outcome.outcome.ok_or_else(|| bad("no outcome"))?,
            command,
            entry: record.entry.to_vec(),
            result: record.outcome.to_vec(),
            chain: record.chain_hash.to_vec(),
        })
    }

    /// Reason of the refusal, where it was refused.
    pub fn refusal(&self) -> Option<log::Reason> {
        match &self.outcome {
            log::log_outcome::Outcome::Refused(refusal) => Some(refusal.reason()),
            _ => None,
        }
    }

    /// The reservation of the outcome, where there is one.
    pub fn reservation(&self) -> Option<&log::Reservation> {
        match &self.outcome {
            log::log_outcome::Outcome::Reservation(reservation) => Some(reservation),
            _ => None,
        }
    }
}
