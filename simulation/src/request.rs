//! One request of any kind, as a value: it can be sent, kept, compared and sent again.

use plimsoll_client::{Client, Error, v1};

use crate::history::Done;

/// A request to the cluster.
#[derive(Clone, Debug, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most requests are the largest kind, and a run has some hundreds"
)]
pub enum Request {
    /// Asks for resources.
    Create(v1::CreateReservationRequest),
    /// Takes up a held grant.
    Confirm(v1::ConfirmReservationRequest),
    /// Buys another lease length.
    Renew(v1::RenewReservationRequest),
    /// Changes amounts.
    Resize(v1::ResizeReservationRequest),
    /// Gives back.
    Release(v1::ReleaseReservationRequest),
    /// Ends without a token.
    Cancel(v1::CancelReservationRequest),
    /// Keeps new work off a node.
    Cordon(v1::CordonNodeRequest),
    /// Lets new work on a node again.
    Uncordon(v1::UncordonNodeRequest),
    /// Reads one reservation, linearizably.
    Read(v1::GetReservationRequest),
}

impl Request {
    /// One word for its kind.
    pub fn kind(&self) -> &'static str {
        match self {
            Request::Create(_) => "create",
            Request::Confirm(_) => "confirm",
            Request::Renew(_) => "renew",
            Request::Resize(_) => "resize",
            Request::Release(_) => "release",
            Request::Cancel(_) => "cancel",
            Request::Cordon(_) => "cordon",
            Request::Uncordon(_) => "uncordon",
            Request::Read(_) => "read",
        }
    }

    /// Its idempotency key; empty for reads.
    pub fn request_id(&self) -> &str {
        match self {
            Request::Create(request) => &request.request_id,
            Request::Confirm(request) => &request.request_id,
            Request::Renew(request) => &request.request_id,
            Request::Resize(request) => &request.request_id,
            Request::Release(request) => &request.request_id,
            Request::Cancel(request) => &request.request_id,
            Request::Cordon(request) => &request.request_id,
            Request::Uncordon(request) => &request.request_id,
            Request::Read(_) => "",
        }
    }

    /// Name of the reservation or node that it is about; empty for a new one.
    pub fn about(&self) -> &str {
        match self {
            Request::Create(_) => "",
            Request::Confirm(request) => &request.name,
            Request::Renew(request) => &request.name,
            Request::Resize(request) => &request.name,
            Request::Release(request) => &request.name,
            Request::Cancel(request) => &request.name,
            Request::Cordon(request) => &request.name,
            Request::Uncordon(request) => &request.name,
            Request::Read(request) => &request.name,
        }
    }

    /// Sends it through the SDK, which follows the leader and tries again where that is safe.
    ///
    /// # Errors
    /// As the SDK's.
    pub async fn send(self, client: &Client) -> Result<Done, Error> {
        let of = |revision, reservation| Done { revision, reservation };
        Ok(match self {
            Request::Create(request) => {
                let answer = client.create_reservation(request).await?;
                of(answer.revision, answer.reservation)
            }
            Request::Confirm(request) => {
                let answer = client.confirm_reservation(request).await?;
                of(answer.revision, answer.reservation)
            }
            Request::Renew(request) => {
                let answer = client.renew_reservation(request).await?;
                of(answer.revision, answer.reservation)
            }
            Request::Resize(request) => {
                let answer = client.resize_reservation(request).await?;
                of(answer.revision, answer.reservation)
            }
            Request::Release(request) => {
                let answer = client.release_reservation(request).await?;
                of(answer.revision, answer.reservation)
            }
            Request::Cancel(request) => {
                let answer = client.cancel_reservation(request).await?;
                of(answer.revision, answer.reservation)
            }
            Request::Cordon(request) => of(client.cordon_node(request).await?.revision, None),
            Request::Uncordon(request) => of(client.uncordon_node(request).await?.revision, None),
            Request::Read(request) => {
                let answer = client.get_reservation(request).await?;
                of(answer.revision, answer.reservation)
            }
        })
    }
}
