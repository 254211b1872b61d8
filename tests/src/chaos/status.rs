//! What each coordinator says of itself, asked directly and without retries.

use std::time::Duration;

use crate::Access;
use plimsoll_client::v1;
use plimsoll_client::v1::cluster_service_client::ClusterServiceClient;

/// Longest wait for one answer.
const PATIENCE: Duration = Duration::from_millis(500);

/// Its status, if it answers soon.
pub async fn of(access: &Access, address: &str) -> Option<v1::CoordinatorStatus> {
    let mut service = ClusterServiceClient::new(access.channel(address));
    let asked = service.get_status(v1::GetStatusRequest {});
    tokio::time::timeout(PATIENCE, asked).await.ok()?.ok()?.into_inner().status
}

/// Who takes itself for the leader, in the newest term that anybody knows of; `None` where nobody does.
pub async fn leader(access: &Access, addresses: &[(u64, String)]) -> Option<u64> {
    let mut best: Option<(u64, u64)> = None;
    for (id, address) in addresses {
        let Some(status) = of(access, address).await else { continue };
        if status.role() == v1::MemberRole::Leader && best.is_none_or(|(term, _)| status.term > term) {
            best = Some((status.term, *id));
        }
    }
    best.map(|(_, id)| id)
}
