//! One request of any kind, as a value: it can be sent, kept, compared and sent again.

use plimsoll_client::{Client, Error, Refused, ReservationStream, v1};
use plimsoll_proto::v1::stream_reservations_request::Request as Streamed;

use crate::history::{Answer, Done};

/// Where the effect of a request shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Nowhere: it reads.
    Reads,
    /// Nowhere: it is answered from what a coordinator knows, which may be behind by as much as it was cut off.
    Knows,
    /// In the ledger's log, under its request id.
    Logged,
    /// In the membership of the cluster.
    Members,
    /// In the ledger's log, under an id for each part, and with no revision in the answer.
    Tokens,
}

/// What is kept of an answer.
macro_rules! keep {
    (Tokens $answer:ident $taken:expr) => {
        Done { taken: $taken, ..Done::default() }
    };
    ($effect:ident $answer:ident $reservation:expr) => {
        Done { revision: $answer.revision, reservation: $reservation, ..Done::default() }
    };
}

/// Writes `Request` and what can be said of it, from one line for each kind: variant, message, method of the client, the
/// word for it, where its effect shows, what it is about, and what to keep of the answer.
macro_rules! requests {
    ($($(#[$doc:meta])* $kind:ident($message:ident) $method:ident $word:literal $effect:ident
        about($request:ident) $about:expr, done($answer:ident) $done:expr;)*) => {
        /// A request to the cluster.
        #[derive(Clone, Debug, PartialEq)]
        pub enum Request {
            $($(#[$doc])* $kind(v1::$message),)*
        }

        impl Request {
            /// One word for its kind.
            pub fn kind(&self) -> &'static str {
                match self { $(Request::$kind(_) => $word,)* }
            }

            /// Where its effect shows.
            pub fn effect(&self) -> Effect {
                match self { $(Request::$kind(_) => Effect::$effect,)* }
            }

            /// Name of what it is about; empty for what is new or many.
            pub fn about(&self) -> String {
                match self { $(Request::$kind($request) => { let _ = $request; $about })* }
            }

            /// Sends it through the SDK, which follows the leader and tries again where that is safe.
            ///
            /// # Errors
            /// As the SDK's.
            pub async fn send(self, client: &Client) -> Result<Done, Error> {
                match self {
                    $(Request::$kind(request) => {
                        let $answer = client.$method(request).await?;
                        Ok(keep!($effect $answer $done))
                    })*
                }
            }
        }
    };
}

requests! {
    /// Asks for resources.
    Create(CreateReservationRequest) create_reservation "create" Logged
        about(request) String::new(), done(answer) answer.reservation;
    /// Takes up a held grant.
    Confirm(ConfirmReservationRequest) confirm_reservation "confirm" Logged
        about(request) request.name.clone(), done(answer) answer.reservation;
    /// Buys another lease length.
    Renew(RenewReservationRequest) renew_reservation "renew" Logged
        about(request) request.name.clone(), done(answer) answer.reservation;
    /// Changes amounts.
    Resize(ResizeReservationRequest) resize_reservation "resize" Logged
        about(request) request.name.clone(), done(answer) answer.reservation;
    /// Gives back.
    Release(ReleaseReservationRequest) release_reservation "release" Logged
        about(request) request.name.clone(), done(answer) answer.reservation;
    /// Says where a replica listens.
    Announce(SetEndpointRequest) set_endpoint "announce" Logged
        about(request) request.name.clone(), done(answer) answer.reservation;
    /// Ends without a token.
    Cancel(CancelReservationRequest) cancel_reservation "cancel" Logged
        about(request) request.name.clone(), done(answer) answer.reservation;
    /// Keeps new work off a node.
    Cordon(CordonNodeRequest) cordon_node "cordon" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Lets new work on a node again.
    Uncordon(UncordonNodeRequest) uncordon_node "uncordon" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Keeps new work off a node, and ends what runs there at a deadline.
    Drain(DrainNodeRequest) drain_node "drain" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Says that the provider of a node takes it back.
    Interrupt(InterruptNodeRequest) interrupt_node "interrupt" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Says that a node is off.
    Fence(FenceNodeRequest) fence_node "fence" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Says that a node is broken.
    Fail(FailNodeRequest) fail_node "fail" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Forgets a node.
    Remove(RemoveNodeRequest) remove_node "remove-node" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Says whether a device may be granted.
    Device(SetDeviceHealthRequest) set_device_health "device" Logged
        about(request) request.name.clone(), done(answer) None;
    /// Creates, replaces and deletes policy objects.
    Apply(ApplyPolicyRequest) apply_policy "apply" Logged
        about(request) String::new(), done(answer) None;
    /// Deletes policy objects.
    Delete(DeletePolicyRequest) delete_policy "delete" Logged
        about(request) String::new(), done(answer) None;
    /// Takes tokens of a rate: one take.
    Take(TakeTokensRequest) take_tokens "take" Tokens
        about(request) request.takes.first().map_or_else(String::new, |take| format!("{}/{}", take.quota, take.rate)),
        done(answer) match answer.results.into_iter().next() {
            Some(v1::TokenResult { failure: Some(failure), .. }) => {
                return Err(Error::Refused(Box::new(Refused::from_failure(failure))));
            }
            result => result.map(|result| result.taken),
        };
    /// Adds a coordinator.
    AddMember(AddMemberRequest) add_member "add-member" Members
        about(request) format!("c{}", request.id), done(answer) None;
    /// Takes a coordinator out.
    RemoveMember(RemoveMemberRequest) remove_member "remove-member" Members
        about(request) format!("c{}", request.id), done(answer) None;
    /// Puts one coordinator in another's place.
    ReplaceMember(ReplaceMemberRequest) replace_member "replace-member" Members
        about(request) format!("c{} by c{}", request.old_id, request.new_id), done(answer) None;
    /// Raises the ledger version.
    Upgrade(UpgradeRequest) upgrade "upgrade" Members
        about(request) format!("to {}", request.to), done(answer) None;
    /// Hands leadership on.
    Transfer(TransferLeaderRequest) transfer_leader "transfer" Members
        about(request) format!("to c{}", request.to), done(answer) None;
    /// Says how loaded replicas are: nothing that is acknowledged is ever missed.
    Report(ReportLoadRequest) report_load "report" Knows
        about(request) String::new(), done(answer) None;
    /// Asks for an endpoint.
    Pick(PickEndpointRequest) pick_endpoint "pick" Knows
        about(request) request.service.clone(), done(answer) None;
    /// Reads one reservation, linearizably.
    Read(GetReservationRequest) get_reservation "read" Reads
        about(request) request.name.clone(), done(answer) answer.reservation;
    /// Reads many, linearizably.
    List(ListReservationsRequest) list_reservations "list" Reads
        about(request) String::new(), done(answer) None;
    /// Asks why, linearizably.
    Explain(ExplainReservationRequest) explain_reservation "explain" Reads
        about(request) String::new(), done(answer) None;
}

impl Request {
    /// Its idempotency key; empty for reads.
    pub fn request_id(&self) -> &str {
        match self {
            Request::Create(request) => &request.request_id,
            Request::Confirm(request) => &request.request_id,
            Request::Renew(request) => &request.request_id,
            Request::Resize(request) => &request.request_id,
            Request::Release(request) => &request.request_id,
            Request::Cancel(request) => &request.request_id,
            Request::Announce(request) => &request.request_id,
            Request::Cordon(request) => &request.request_id,
            Request::Uncordon(request) => &request.request_id,
            Request::Drain(request) => &request.request_id,
            Request::Interrupt(request) => &request.request_id,
            Request::Fence(request) => &request.request_id,
            Request::Fail(request) => &request.request_id,
            Request::Remove(request) => &request.request_id,
            Request::Device(request) => &request.request_id,
            Request::Apply(request) => &request.request_id,
            Request::Delete(request) => &request.request_id,
            Request::Take(request) => &request.request_id,
            Request::AddMember(request) => &request.request_id,
            Request::RemoveMember(request) => &request.request_id,
            Request::ReplaceMember(request) => &request.request_id,
            Request::Transfer(request) => &request.request_id,
            Request::Upgrade(request) => &request.request_id,
            Request::Report(_)
            | Request::Pick(_)
            | Request::Read(_)
            | Request::List(_)
            | Request::Explain(_) => "",
        }
    }

    /// Its effect shows in the ledger's log.
    pub fn is_logged(&self) -> bool {
        self.effect() == Effect::Logged
    }

    /// Sends it in a conversation; `None` for what a conversation does not carry.
    pub async fn converse(self, stream: &ReservationStream) -> Option<Answer> {
        let request = match self {
            Request::Create(request) => Streamed::Create(request),
            Request::Confirm(request) => Streamed::Confirm(request),
            Request::Renew(request) => Streamed::Renew(request),
            Request::Resize(request) => Streamed::Resize(request),
            Request::Release(request) => Streamed::Release(request),
            Request::Cancel(request) => Streamed::Cancel(request),
            _ => return None,
        };
        let done = stream.send(request).await;
        Some(Answer::of(done.map(|one| Done {
            revision: one.revision,
            reservation: Some(one.reservation),
            ..Done::default()
        })))
    }
}

/// Sends requests of one kind as one call; one answer for each, in order. `None` where there is no such call for them.
pub async fn send_batch(client: &Client, requests: &[Request]) -> Option<Vec<Answer>> {
    // Takes the messages of one kind out of the requests, makes the call, and takes the answers apart.
    macro_rules! batch {
        ($kind:ident $call:ident $message:ident $result:ident) => {{
            let messages = requests.iter().filter_map(|request| match request {
                Request::$kind(message) => Some(message.clone()),
                _ => None,
            });
            let requests = v1::$message { requests: messages.collect() };
            client.$call(requests).await.map(|answers| {
                let of = |one: Option<v1::$result::Result>| match one {
                    Some(v1::$result::Result::Response(done)) => {
                        Ok(Done { revision: done.revision, reservation: done.reservation, ..Done::default() })
                    }
                    Some(v1::$result::Result::Failure(failure)) => {
                        Err(Error::Refused(Box::new(Refused::from_failure(failure))))
                    }
                    None => Err(Error::Invalid("an answer of a batch is empty".to_owned())),
                };
                answers.results.into_iter().map(|one| Answer::of(of(one.result))).collect::<Vec<_>>()
            })
        }};
    }
    let answers = match requests.first()? {
        Request::Create(_) => {
            batch!(Create batch_create_reservations BatchCreateReservationsRequest batch_create_reservations_result)
        }
        Request::Renew(_) => {
            batch!(Renew batch_renew_reservations BatchRenewReservationsRequest batch_renew_reservations_result)
        }
        Request::Release(_) => {
            batch!(Release batch_release_reservations BatchReleaseReservationsRequest batch_release_reservations_result)
        }
        _ => return None,
    };
    Some(match answers {
        Ok(answers) => answers,
        // One fate for all: a batch whose answer is lost may have been done in part.
        Err(error) => vec![Answer::of(Err(error)); requests.len()],
    })
}
