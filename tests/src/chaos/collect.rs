//! Collects the evidence from the replicas, through the API that auditors use: while a run goes on, since a replica's history is its own
//! and one that takes over a snapshot begins anew, and once more at the end.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use plimsoll_client::v1::audit_service_client::AuditServiceClient;
use plimsoll_client::{Client, v1};
use tokio::task::JoinHandle;
use tonic::transport::Channel;

use super::check::{Evidence, Replica};
use super::history::{Seen, number};
use super::record::Record;
use crate::Access;

/// Between looks of an auditor.
const COPY_EVERY: Duration = Duration::from_millis(500);
const COPY_TIMEOUT: Duration = Duration::from_secs(10);
/// Records that are copied again at each look: a replica that came back must still say the same.
const OVERLAP: u64 = 50;
const MAX_ANSWER_BYTES: usize = 64 << 20;

/// Copies what replicas apply, as they go.
#[derive(Clone, Default)]
pub struct Auditor {
    access: Access,
    seen: Arc<Mutex<Copied>>,
}

#[derive(Default)]
struct Copied {
    log: BTreeMap<u64, v1::LogRecord>,
    contradictions: Vec<String>,
}

impl Auditor {
    /// One that has seen nothing yet.
    pub fn new(access: Access) -> Auditor {
        Auditor { access, seen: Arc::default() }
    }

    /// Follows one replica until the task is aborted.
    pub fn follow(&self, id: u64, address: String) -> JoinHandle<()> {
        let auditor = self.clone();
        tokio::spawn(async move {
            let mut next = 1;
            let mut audit = service(&auditor.access, &address);
            loop {
                let copy = async {
                    match log(&mut audit, next).await {
                        // What it no longer has it may have from later on.
                        Err(_) => log(&mut audit, 0).await,
                        copied => copied,
                    }
                };
                if let Ok(Ok(records)) = tokio::time::timeout(COPY_TIMEOUT, copy).await {
                    let last = records.last().map(|record| record.revision);
                    next = last.map_or(next, |last| last.saturating_sub(OVERLAP).max(1));
                    auditor.saw(id, records);
                }
                tokio::time::sleep(COPY_EVERY).await;
            }
        })
    }

    fn saw(&self, id: u64, records: Vec<v1::LogRecord>) {
        let mut seen = self.lock();
        let Copied { log, contradictions } = &mut *seen;
        for record in records {
            let revision = record.revision;
            let first = log.entry(revision).or_insert_with(|| record.clone());
            if *first != record {
                contradictions
                    .push(format!("c{id} shows revision {revision} otherwise than it was shown before"));
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Copied> {
        self.seen.lock().expect("nothing panics under this lock")
    }

    /// Everything that was ever shown, and what replicas say now, once all are at one revision. The history is still missing.
    ///
    /// # Errors
    /// Where they cannot be asked, do not come to one revision within `patience`, or what they say cannot be read.
    pub async fn evidence(
        &self,
        members: &[(u64, String)],
        client: &Client,
        patience: Duration,
    ) -> Result<Evidence, String> {
        let until = Instant::now() + patience;
        // First the list, then the log: so the log reaches at least to the list.
        let (live, live_at) = live(client).await?;
        let replicas = loop {
            match replicas(&self.access, members).await {
                Ok(Some(replicas)) => break replicas,
                Ok(None) if Instant::now() >= until => {
                    return Err("replicas never came to one revision".to_owned());
                }
                Err(error) if Instant::now() >= until => return Err(error),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        };
        for (id, records) in &replicas.1 {
            self.saw(*id, records.clone());
        }
        let seen = self.lock();
        let read = |records: Vec<v1::LogRecord>| {
            records.into_iter().map(Record::read).collect::<Result<Vec<_>, _>>()
        };
        let mut evidence = Evidence {
            log: read(seen.log.values().cloned().collect())?,
            contradictions: seen.contradictions.clone(),
            live,
            live_at,
            ..Evidence::default()
        };
        for (digest, (id, records)) in replicas.0.into_iter().zip(replicas.1) {
            evidence.replicas.push(Replica {
                id,
                log: read(records)?,
                revision: digest.revision,
                digest: digest.digest.to_vec(),
                chain: digest.chain_hash.to_vec(),
            });
        }
        Ok(evidence)
    }
}

type Said = (Vec<v1::GetStateDigestResponse>, Vec<(u64, Vec<v1::LogRecord>)>);

async fn replicas(access: &Access, members: &[(u64, String)]) -> Result<Option<Said>, String> {
    let mut digests: Vec<v1::GetStateDigestResponse> = Vec::new();
    for (id, address) in members {
        let asked = digest(access, address).await.map_err(|error| format!("c{id}: {error}"))?;
        if digests.first().is_some_and(|first| first.revision != asked.revision) {
            return Ok(None);
        }
        digests.push(asked);
    }
    let revision = digests.first().map_or(0, |digest| digest.revision);
    let mut logs = Vec::new();
    for (id, address) in members {
        let mut records =
            log(&mut service(access, address), 0).await.map_err(|error| format!("c{id}: {error}"))?;
        records.retain(|record| record.revision <= revision);
        logs.push((*id, records));
    }
    Ok(Some((digests, logs)))
}

/// State digest of one replica now.
///
/// # Errors
/// Where it does not answer.
pub async fn digest(access: &Access, address: &str) -> Result<v1::GetStateDigestResponse, tonic::Status> {
    let request = v1::GetStateDigestRequest { at_revision: 0 };
    let mut audit = service(access, address);
    let asked = tokio::time::timeout(COPY_TIMEOUT, audit.get_state_digest(request)).await;
    asked.map_err(|_| tonic::Status::deadline_exceeded("no digest in time"))?.map(tonic::Response::into_inner)
}

async fn live(client: &Client) -> Result<(Vec<(u64, i32, u64)>, u64), String> {
    let (mut live, mut page_token, mut revision) = (Vec::new(), String::new(), 0);
    loop {
        let request = v1::ListReservationsRequest {
            page_size: 1_000,
            page_token,
            live_only: true,
            ..Default::default()
        };
        let page = client.list_reservations(request).await.map_err(|error| format!("list: {error}"))?;
        revision = page.revision.max(revision);
        live.extend(page.reservations.iter().filter_map(|one| {
            let seen = Seen::of(one);
            Some((number(&one.id)?, seen.state, seen.token))
        }));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            return Ok((live, revision));
        }
    }
}

async fn log(
    audit: &mut AuditServiceClient<Channel>,
    from_revision: u64,
) -> Result<Vec<v1::LogRecord>, tonic::Status> {
    let request = v1::ExportLogRequest { from_revision, limit: 0 };
    let mut stream = audit.export_log(request).await?.into_inner();
    let mut records = Vec::new();
    while let Some(part) = stream.message().await? {
        records.extend(part.records);
    }
    Ok(records)
}

fn service(access: &Access, address: &str) -> AuditServiceClient<Channel> {
    AuditServiceClient::new(access.channel(address)).max_decoding_message_size(MAX_ANSWER_BYTES)
}
