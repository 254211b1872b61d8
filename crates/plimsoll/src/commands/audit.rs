//! `plimsoll audit`: log, hashes and state of the coordinator that is asked, for auditors.

use clap::{Args, Subcommand};
use plimsoll_client::v1::{DumpStateRequest, ExportLogRequest, GetStateDigestRequest};
use plimsoll_client::{Error, Refused};
use serde_json::{Value, json};

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// For auditors.
#[derive(Args, Debug)]
pub(crate) struct Audit {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Write the log: one JSON document a record, bytes in hexadecimal
    Log {
        /// First revision; the oldest kept without
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        from: u64,
        /// At most so many records
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        limit: u64,
    },
    /// Write digest and chain hash of the state
    Digest {
        /// Of this revision: waits until it is applied
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        at: u64,
    },
    /// Write the whole state in canonical order: one JSON document a row, bytes in hexadecimal
    Dump {
        /// Of this revision: waits until it is applied
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        at: u64,
    },
}

impl Audit {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let out = globals.out();
        let failed =
            |status: tonic::Status| CliError::from(Error::Refused(Box::new(Refused::from_status(&status))));
        match self.verb {
            Verb::Log { from, limit } => {
                let request = ExportLogRequest { from_revision: from, limit };
                let mut stream = client.audit()?.export_log(request).await.map_err(failed)?.into_inner();
                while let Some(part) = stream.message().await.map_err(failed)? {
                    let line = |record: &plimsoll_client::v1::LogRecord| {
                        line(&json!({
                            "revision": record.revision.to_string(),
                            "logTimeMs": record.log_time_ms.to_string(),
                            "entry": hex(&record.entry),
                            "outcome": hex(&record.outcome),
                            "chainHash": hex(&record.chain_hash),
                        }))
                    };
                    out.emit(&part.records.iter().map(line).collect::<String>())?;
                }
            }
            Verb::Digest { at } => {
                let answer = client.get_state_digest(GetStateDigestRequest { at_revision: at }).await?;
                out.document(&json!({
                    "nodeId": answer.node_id.to_string(),
                    "revision": answer.revision.to_string(),
                    "logTimeMs": answer.log_time_ms.to_string(),
                    "digest": hex(&answer.digest),
                    "chainHash": hex(&answer.chain_hash),
                    "rows": answer.rows.to_string(),
                }))?;
            }
            Verb::Dump { at } => {
                let request = DumpStateRequest { at_revision: at };
                let mut stream = client.audit()?.dump_state(request).await.map_err(failed)?.into_inner();
                while let Some(part) = stream.message().await.map_err(failed)? {
                    let row = |row: &plimsoll_client::v1::StateRow| {
                        line(&json!({ "key": hex(&row.key), "value": hex(&row.value) }))
                    };
                    out.emit(&part.rows.iter().map(row).collect::<String>())?;
                }
            }
        }
        Ok(Exit::Done)
    }
}

fn line(value: &Value) -> String {
    format!("{value}\n")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
