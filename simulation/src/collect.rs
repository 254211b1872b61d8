//! Collects the evidence from the replicas, through the API that auditors use.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_client::{Client, v1};
use plimsoll_proto::v1::audit_service_client::AuditServiceClient;
use plimsoll_types::Revision;
use tonic::transport::Channel;

use crate::board::{Board, Phase};
use crate::evidence::{Evidence, LogRecord, Replica, hash};

/// Between looks of an auditor.
const COPY_EVERY: Duration = Duration::from_millis(1_000);
const COPY_TIMEOUT: Duration = Duration::from_secs(2);
/// Records that an auditor copies again at each look.
const OVERLAP: u64 = 20;
/// Longest wait for one replica.
const PATIENCE: Duration = Duration::from_secs(10);

/// Asks every replica for the state at one revision, and for its log up to there. `None` where they are not at the same
/// revision at the moment: try again.
///
/// # Errors
/// Where a replica cannot be asked, or what it says cannot be read.
pub async fn collect(clients: &[(u64, Client)]) -> Result<Option<Evidence>, String> {
    let mut replicas: Vec<Replica> = Vec::new();
    for (id, client) in clients {
        let asked = tokio::time::timeout(PATIENCE, replica(*id, client)).await;
        let replica = asked.map_err(|_| format!("c{id} did not answer the auditor in time"))??;
        let Some(replica) = replica else { return Ok(None) };
        if replicas.first().is_some_and(|first| first.revision != replica.revision) {
            return Ok(None);
        }
        replicas.push(replica);
    }
    Ok(Some(Evidence { replicas, ..Evidence::default() }))
}

/// Copies what a replica applies, as it goes, until the faults are over. A replica's history is its own and not in
/// snapshots: one that took over a snapshot begins anew, so an auditor who wants everything copies it in time.
pub async fn follow(id: u64, client: Client, board: Arc<Board>) {
    let mut next = 1;
    while board.phase() == Phase::Chaos {
        let copy = async {
            let mut audit = client.audit().map_err(|error| error.to_string())?;
            match log(&mut audit, id, next, u64::MAX).await {
                // What it no longer has it may have from later on.
                Err(_) => log(&mut audit, id, 0, u64::MAX).await,
                copied => copied,
            }
        };
        if let Ok(Ok(records)) = tokio::time::timeout(COPY_TIMEOUT, copy).await {
            let last = records.last().map(|record| record.revision.0);
            // Some of it is copied again each time: a replica that came back must still say the same.
            next = last.map_or(next, |last| last.saturating_sub(OVERLAP).max(1));
            board.saw(id, records);
        }
        tokio::time::sleep(COPY_EVERY).await;
    }
}

async fn replica(id: u64, client: &Client) -> Result<Option<Replica>, String> {
    let failed = |what: &'static str| move |error: tonic::Status| format!("c{id}, {what}: {error}");
    let mut audit = client.audit().map_err(|error| error.to_string())?;
    let mut stream =
        audit.dump_state(v1::DumpStateRequest { at_revision: 0 }).await.map_err(failed("dump"))?.into_inner();
    let (mut rows, mut revision, mut chain) = (Vec::new(), 0, None);
    while let Some(part) = stream.message().await.map_err(failed("dump"))? {
        rows.extend(part.rows);
        (revision, chain) = (part.revision, hash(&part.chain_hash));
    }
    let digest = audit
        .get_state_digest(v1::GetStateDigestRequest { at_revision: 0 })
        .await
        .map_err(failed("digest"))?
        .into_inner();
    if digest.revision != revision {
        return Ok(None);
    }
    let log = log(&mut audit, id, 0, revision).await?;
    let (Some(chain), Some(digest)) = (chain, hash(&digest.digest)) else {
        return Err(format!("c{id}: a hash is not 32 bytes"));
    };
    Ok(Some(Replica { id, log, revision: Revision(revision), chain, rows, digest }))
}

async fn log(
    audit: &mut AuditServiceClient<Channel>,
    id: u64,
    from_revision: u64,
    revision: u64,
) -> Result<Vec<LogRecord>, String> {
    let failed = |error: tonic::Status| format!("c{id}, log: {error}");
    let request = v1::ExportLogRequest { from_revision, limit: 0 };
    let mut stream = audit.export_log(request).await.map_err(failed)?.into_inner();
    let mut log = Vec::new();
    while let Some(part) = stream.message().await.map_err(failed)? {
        for record in part.records.into_iter().filter(|record| record.revision <= revision) {
            log.push(LogRecord::read(record).map_err(|error| format!("c{id}: {error}"))?);
        }
    }
    Ok(log)
}
