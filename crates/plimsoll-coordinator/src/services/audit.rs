//! `AuditService`: log, digests and state, from any replica.

use bytes::Bytes;
use plimsoll_ledger::{Row, RowKey};
use plimsoll_proto::v1::audit_service_server::AuditService;
use plimsoll_proto::{codec, v1};
use plimsoll_types::Revision;
use tokio::sync::mpsc;
use tonic::{Request, Response, Status};

use super::AnswerStream;
use super::api::Api;
use super::problem::Problem;

/// Records or rows in one message.
const BATCH: usize = 256;
/// Messages that wait for the connection.
const MESSAGES: usize = 4;

/// The service.
#[derive(Clone)]
pub(super) struct Audit {
    api: Api,
}

impl Audit {
    pub(super) fn new(api: Api) -> Audit {
        Audit { api }
    }
}

#[tonic::async_trait]
impl AuditService for Audit {
    type ExportLogStream = AnswerStream<v1::ExportLogResponse>;

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
        let (answers, receiver) = mpsc::channel(MESSAGES);
        tokio::spawn(async move {
            while left > 0 && next <= last {
                let most = usize::try_from(left).unwrap_or(usize::MAX).min(BATCH);
                let records = match core.history(next, most) {
                    Ok(records) => records,
                    Err(error) => {
                        let _ = answers.send(Err(Problem::from(error).into())).await;
                        return;
                    }
                };
                let Some(end) = records.last().map(|record| record.revision) else { return };
                let records: Vec<_> =
                    records.iter().filter(|record| record.revision <= last).map(record).collect();
                left = left.saturating_sub(records.len() as u64);
                next = Revision(end.0 + 1);
                let response = v1::ExportLogResponse { revision: last.0, records };
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(AnswerStream::new(receiver)))
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

    type DumpStateStream = AnswerStream<v1::DumpStateResponse>;

    async fn dump_state(
        &self,
        request: Request<v1::DumpStateRequest>,
    ) -> Result<Response<Self::DumpStateStream>, Status> {
        let at = Revision(request.into_inner().at_revision);
        let dump = self.api.core.dump(at).await.map_err(Problem::from)?;
        let (answers, receiver) = mpsc::channel(MESSAGES);
        tokio::spawn(async move {
            let chain_hash = Bytes::copy_from_slice(&dump.chain);
            for rows in dump.rows.chunks(BATCH) {
                let response = v1::DumpStateResponse {
                    revision: dump.revision.0,
                    log_time_ms: dump.log_time.0,
                    rows: rows.iter().map(row).collect(),
                    chain_hash: chain_hash.clone(),
                };
                if answers.send(Ok(response)).await.is_err() {
                    return;
                }
            }
        });
        Ok(Response::new(AnswerStream::new(receiver)))
    }
}

fn record(record: &std::sync::Arc<crate::core::Record>) -> v1::LogRecord {
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
