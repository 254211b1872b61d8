//! `plimsoll cluster snapshot`: the whole ledger in a file, and a new cluster of it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Subcommand;
use plimsoll_client::v1::{
    Consistency, DumpStateRequest, DumpStateResponse, GetStatusRequest, ListPoolsRequest,
};
use plimsoll_client::{Client, Error, Refused};
use plimsoll_coordinator::core::backup::{
    BackupError, BackupHead, RestoreError, Target, Verified, restore, save, verify,
};
use serde_json::{Value, json};

use super::agent::chain;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Out;

/// Messages of a dump that wait for the disk.
const WAITING: usize = 4;
/// How often a coordinator that is behind is asked again, and the pause before each.
const ASKS: u32 = 50;
const ASK_AGAIN: Duration = Duration::from_millis(100);

/// The whole ledger in a file.
#[derive(Debug, Subcommand)]
pub(crate) enum Snapshot {
    /// Save the ledger of a running cluster: all that was acknowledged before this call, and perhaps more
    Save {
        /// The file to write; it must not be there yet
        file: PathBuf,
    },
    /// Read a saved file to its end: its hash, each row, and that together they make a sound ledger. Ends with 74 where not
    Verify {
        /// The file
        file: PathBuf,
    },
    /// Make a data folder of a saved file: that of the first member of a new cluster. Nothing runs afterwards; start it with
    /// `plimsoll coordinator` and the same --node-id, --cluster and --data-dir, without --bootstrap
    Restore {
        /// The file
        file: PathBuf,
        /// The data folder to make: absent or empty
        #[arg(long, value_name = "DIR")]
        data: PathBuf,
        /// Name of the new cluster; not that of the old one
        #[arg(long, value_name = "NAME")]
        cluster: String,
        /// Id of its first member
        #[arg(long, value_name = "ID", default_value_t = 1)]
        node_id: u64,
        /// Address by which other coordinators will reach it, HOST:PORT
        #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:7420")]
        advertise: String,
        /// Leave out so many revisions: more than the old cluster can have given out since the file was saved, so that no
        /// fencing token is ever given twice
        #[arg(long, value_name = "COUNT", default_value_t = 1_000_000_000)]
        skip_revisions: u64,
    },
}

impl Snapshot {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let out = globals.out();
        match self {
            Snapshot::Save { file } => {
                let client = globals.client()?;
                let bytes = save_from(&client, &file, &out).await?;
                let verified = verified(&file).await?;
                let mut document = document(&file, &verified);
                document["bytes"] = json!(bytes.to_string());
                out.document(&document)?;
                out.done(&format!("Saved revision {}", verified.head.revision));
            }
            Snapshot::Verify { file } => {
                let verified = verified(&file).await?;
                out.document(&document(&file, &verified))?;
                out.done("It is whole, and its ledger is sound");
            }
            Snapshot::Restore { file, data, cluster, node_id, advertise, skip_revisions } => {
                let target = Target { directory: data, cluster, node_id, address: advertise, skip_revisions };
                let (from, to) = (file.clone(), target.clone());
                let made = blocking(move || restore(&from, &to)).await?.map_err(not_restored)?;
                let mut document = document(&file, &made.from);
                document["restored"] = json!({
                    "directory": target.directory.display().to_string(),
                    "cluster": target.cluster,
                    "nodeId": target.node_id.to_string(),
                    "incarnation": made.incarnation,
                    "revision": made.revision.0.to_string(),
                });
                out.document(&document)?;
                out.done(&format!(
                    "Made node {node_id} of cluster {:?}; every token it gives is above {}",
                    target.cluster, made.revision.0
                ));
            }
        }
        Ok(Exit::Done)
    }
}

/// Writes what a coordinator dumps; a linearizable read before says what has to be in it.
async fn save_from(client: &Client, file: &Path, out: &Out) -> Result<u64, CliError> {
    let failed = |status: tonic::Status| {
        CliError::from(Error::Refused(Box::new(Refused::from_status(&status))))
            .asked("cannot save the ledger")
    };
    let newest = client
        .list_pools(ListPoolsRequest {
            page_size: 1,
            consistency: Consistency::Linearizable as i32,
            ..ListPoolsRequest::default()
        })
        .await?;
    let status = client.get_status(GetStatusRequest {}).await?.status.unwrap_or_default();
    let mut asks = 0;
    let (first, mut stream) = loop {
        let dump = client.audit()?.dump_state(DumpStateRequest { at_revision: 0 }).await;
        let mut stream = dump.map_err(failed)?.into_inner();
        let first = stream.message().await.map_err(failed)?;
        let first =
            first.ok_or_else(|| CliError::local("cannot save the ledger", "the coordinator sent nothing"))?;
        if first.revision >= newest.revision {
            break (first, stream);
        }
        asks += 1;
        if asks >= ASKS {
            let behind = format!(
                "the coordinator is at revision {}, the cluster at {}",
                first.revision, newest.revision
            );
            return Err(CliError::local("cannot save the ledger", behind));
        }
        tokio::time::sleep(ASK_AGAIN).await;
    };
    let hash = <[u8; 32]>::try_from(first.chain_hash.as_ref())
        .map_err(|_| CliError::local("cannot save the ledger", "its chain hash is not 32 bytes"))?;
    let head = BackupHead::new(&status.cluster_id, status.node_id, first.revision, first.log_time_ms, &hash);
    let (send, receive) = std::sync::mpsc::sync_channel::<std::io::Result<DumpStateResponse>>(WAITING);
    let path = file.to_owned();
    let writer = tokio::task::spawn_blocking(move || save(&path, &head, rows(receive)));
    let mut sent = 0_usize;
    let mut next: Result<_, tonic::Status> = Ok(Some(first));
    loop {
        let message = match next {
            Ok(Some(message)) => Ok(message),
            Ok(None) => break,
            Err(status) => Err(std::io::Error::other(status.message().to_owned())),
        };
        let is_last = message.is_err();
        sent += message.as_ref().map_or(0, |message: &DumpStateResponse| message.rows.len());
        // In place: it waits for the disk, which nothing else here depends on.
        if tokio::task::block_in_place(|| send.send(message)).is_err() || is_last {
            break;
        }
        next = stream.message().await;
    }
    drop(send);
    let written = writer.await.map_err(|error| CliError::local("cannot write", error))?;
    out.say(&out.paint.faint(&format!("{sent} rows written, reading them back")));
    written.map_err(not_usable)
}

/// The rows of the messages as they come.
fn rows(
    messages: std::sync::mpsc::Receiver<std::io::Result<DumpStateResponse>>,
) -> impl Iterator<Item = std::io::Result<(Bytes, Bytes)>> {
    messages.into_iter().flat_map(|message| match message {
        Ok(message) => message.rows.into_iter().map(|row| Ok((row.key, row.value))).collect::<Vec<_>>(),
        Err(error) => vec![Err(error)],
    })
}

async fn verified(file: &Path) -> Result<Verified, CliError> {
    let path = file.to_owned();
    blocking(move || verify(&path)).await?.map_err(not_usable)
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, CliError> {
    tokio::task::spawn_blocking(work).await.map_err(|error| CliError::local("cannot go on", error))
}

fn not_usable(error: BackupError) -> CliError {
    match &error {
        BackupError::Exists(_) => CliError::new(Exit::Conflict, "ALREADY_EXISTS", error.to_string()),
        BackupError::File { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
            CliError::new(Exit::NotFound, "NOT_FOUND", chain(&error))
        }
        BackupError::File { source, .. } if source.kind() != std::io::ErrorKind::InvalidData => {
            CliError::new(Exit::Refused, "LOCAL", chain(&error))
        }
        BackupError::File { .. } | BackupError::Unsound { .. } => {
            CliError::new(Exit::Storage, "DAMAGED", chain(&error)).help("use another copy, or an earlier one")
        }
    }
}

fn not_restored(error: RestoreError) -> CliError {
    match error {
        RestoreError::Backup(error) => not_usable(error),
        RestoreError::SameName(_) | RestoreError::TooFar(_) => CliError::usage(error.to_string()),
        RestoreError::NotEmpty(_) => CliError::new(Exit::Conflict, "ALREADY_EXISTS", error.to_string()),
        RestoreError::Failed { .. } => CliError::local("cannot restore", chain(&error)),
    }
}

fn document(file: &Path, verified: &Verified) -> Value {
    let head = &verified.head;
    json!({
        "file": file.display().to_string(),
        "cluster": head.cluster,
        "nodeId": head.node_id.to_string(),
        "revision": head.revision.to_string(),
        "logTimeMs": head.log_time_ms.to_string(),
        "digest": verified.digest,
        "chainHash": head.chain_hash,
        "rows": verified.rows.to_string(),
        "reservations": verified.reservations.to_string(),
        "nodes": verified.nodes.to_string(),
        "largestToken": verified.largest_token.0.to_string(),
        "version": head.version,
    })
}
