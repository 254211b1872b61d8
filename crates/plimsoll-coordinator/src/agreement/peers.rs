//! What the other replicas say that they have, by the calls that auditors use.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_consensus::Dialer;
use plimsoll_proto::v1;
use plimsoll_proto::v1::audit_service_client::AuditServiceClient;
use plimsoll_types::Revision;
use tonic::transport::Channel;

use super::votes::Hash;
use crate::core::Core;

/// Longest wait for one answer. One that does not come is no vote.
const ANSWER_WITHIN: Duration = Duration::from_secs(2);

/// Another member of the group.
pub(super) struct Peer {
    pub(super) id: u64,
    client: AuditServiceClient<Channel>,
}

/// All other members, as this replica knows them. Connections are made when they are used.
pub(super) fn others(core: &Core, dialer: &Arc<dyn Dialer>) -> Vec<Peer> {
    let members = core.group().metrics().members;
    let others = members.into_iter().filter(|(id, _)| *id != core.node_id());
    others
        .map(|(id, info)| Peer { id, client: AuditServiceClient::new(dialer.channel(&info.address)) })
        .collect()
}

/// The chain hash here; `None` where the record of that revision is not kept here.
pub(super) fn own_chain(core: &Core, revision: Revision) -> Option<Hash> {
    let records = core.history(revision, 1).ok()?;
    records.first().filter(|record| record.revision == revision).map(|record| record.chain)
}

impl Peer {
    /// The chain hash there; `None` where it does not answer, is not there yet, or does not keep that record any more.
    pub(super) async fn chain(&self, revision: Revision) -> Option<Hash> {
        let asked = v1::ExportLogRequest { from_revision: revision.0, limit: 1 };
        let mut client = self.client.clone();
        let answer = async move {
            let mut records = client.export_log(asked).await.ok()?.into_inner();
            records.message().await.ok()?
        };
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()??;
        let record = answer.records.into_iter().find(|record| record.revision == revision.0)?;
        record.chain_hash.as_ref().try_into().ok()
    }

    /// The digest of the state there; `None` where it does not answer, or is at another revision.
    pub(super) async fn digest(&self, revision: Revision) -> Option<Hash> {
        let mut client = self.client.clone();
        let answer = client.get_state_digest(v1::GetStateDigestRequest { at_revision: revision.0 });
        let answer = tokio::time::timeout(ANSWER_WITHIN, answer).await.ok()?.ok()?.into_inner();
        answer.digest.as_ref().try_into().ok().filter(|_| answer.revision == revision.0)
    }

    /// The first revision at which the chain hash there is another than here, known to differ at `last`: each hash
    /// covers all before it, so that it can be halved towards. `None` where one of the two does not keep enough.
    pub(super) async fn first_difference(&self, core: &Core, last: Revision) -> Option<Revision> {
        let (mut same, mut differs) = (core.first_revision().0.saturating_sub(1), last.0);
        while differs - same > 1 {
            let middle = Revision(same + (differs - same) / 2);
            match (own_chain(core, middle)?, self.chain(middle).await?) {
                (own, theirs) if own == theirs => same = middle.0,
                _ => differs = middle.0,
            }
        }
        Some(Revision(differs))
    }
}
