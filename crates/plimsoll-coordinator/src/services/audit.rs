//! `AuditService`: log, digests and state, from any replica.

use std::sync::Arc;

use bytes::Bytes;
use plimsoll_ledger::{Row, RowKey};
use plimsoll_proto::v1::audit_service_server::AuditService;
use plimsoll_proto::{codec, v1};
use plimsoll_types::Revision;
use tokio::sync::Semaphore;
use tonic::{Request, Response, Status};

use super::api::Api;
use super::on_demand::{OnDemand, on_demand};
use super::problem::Problem;

/// Records or rows in one message.
const BATCH: usize = 256;
/// Bytes of records that are enough for a message.
const MESSAGE_BYTES: usize = 256 << 10;
/// Dumps at a time: each keeps the whole state as it was until it is read, or its client is cut off.
const DUMPS: usize = 4;
/// When to come back for another.
const RETRY_AFTER_MS: u64 = 1_000;

/// The service.
#[derive(Clone)]
pub(super) struct Audit {
    api: Api,
    dumps: Arc<Semaphore>,
}

impl Audit {
    pub(super) fn new(api: Api) -> Audit {
        Audit { api, dumps: Arc::new(Semaphore::new(DUMPS)) }
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    type ExportLogStream = OnDemand<v1::ExportLogResponse>;

    async fn export_log(
        &self,
        request: Request<v1::ExportLogRequest>,
    ) -> Result<Response<Self::ExportLogStream>, Status> {
        let request = request.into_inner();
        let core = self.api.core.clone();
        let last = core.local().revision();
        let mut next =
            if request.from_revision == 0 { core.first_revision() } else { Revision(request.from_revision) };
        let mut left = if request.limit == 0 { u64::MAX } else { request.limit };
        // The first look is made before the answer begins, so that what is compacted is a plain error.
        if next <= last {
            core.history(next, 1).map_err(Problem::from)?;
        }
        let (answers, stream) = on_demand();
        tokio::spawn(async move {
            while left > 0 && next <= last {
                answers.asked().await;
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(BATCH);
                let records = match core.history(next, most) {
                    Ok(records) => records,
                    Err(error) => {
                        answers.give(Err(Problem::from(error).into())).await;
                        return;
                    }
                };
                let mut bytes = 0;
                let enough = |shown: &&Arc<crate::core::Record>| {
                    let fits = bytes < MESSAGE_BYTES;
                    bytes += shown.entry.len() + shown.outcome.len();
                    fits
                };
                let records: Vec<_> = records.iter().take_while(enough).collect();
                let Some(end) = records.last().map(|record| record.revision) else { return };
                let records: Vec<_> =
                    records.into_iter().filter(|record| record.revision <= last).map(record).collect();
                left = left.saturating_sub(records.len() as u64);
                next = Revision(end.0 + 1);
                let response = v1::ExportLogResponse { revision: last.0, records };
                if !answers.give(Ok(response)).await {
                    return;
                }
            }
        });
        Ok(Response::new(stream))
    }

    async fn get_state_digest(
        &self,
        request: Request<v1::GetStateDigestRequest>,
    ) -> Result<Response<v1::GetStateDigestResponse>, Status> {
        let at = Revision(request.into_inner().at_revision);
        let digest = self.api.core.state_digest(at).await.map_err(Problem::from)?;
        Ok(Response::new(v1::GetStateDigestResponse {
            revision: digest.revision.0,
            log_time_ms: digest.log_time.0,
            digest: Bytes::copy_from_slice(&digest.digest),
            chain_hash: Bytes::copy_from_slice(&digest.chain),
            rows: digest.rows,
            node_id: self.api.core.node_id(),
        }))
    }

    type DumpStateStream = OnDemand<v1::DumpStateResponse>;

    async fn dump_state(
        &self,
        request: Request<v1::DumpStateRequest>,
    ) -> Result<Response<Self::DumpStateStream>, Status> {
        let at = Revision(request.into_inner().at_revision);
        let place = Arc::clone(&self.dumps).try_acquire_owned();
        let place = place.map_err(|_| Problem::dumps_unread(DUMPS, RETRY_AFTER_MS))?;
        let dump = self.api.core.dump(at).await.map_err(Problem::from)?;
        let (answers, stream) = on_demand();
        tokio::spawn(async move {
            let _place = place;
            let chain_hash = Bytes::copy_from_slice(&dump.chain);
            for rows in dump.rows.chunks(BATCH).chain(dump.bodies.chunks(BATCH)) {
                answers.asked().await;
                let response = v1::DumpStateResponse {
                    revision: dump.revision.0,
                    log_time_ms: dump.log_time.0,
                    rows: rows.iter().map(row).collect(),
                    chain_hash: chain_hash.clone(),
                };
                if !answers.give(Ok(response)).await {
                    return;
                }
            }
        });
        Ok(Response::new(stream))
    }
}

fn record(record: &Arc<crate::core::Record>) -> v1::LogRecord {
    v1::LogRecord {
        revision: record.revision.0,
        log_time_ms: record.log_time.0,
        entry: record.entry.clone(),
        outcome: record.outcome.clone(),
        chain_hash: Bytes::copy_from_slice(&record.chain),
    }
}

fn row((key, row): &(RowKey, Row)) -> v1::StateRow {
    v1::StateRow { key: codec::encode_key(key), value: codec::encode_row(row) }
}
