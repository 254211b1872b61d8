//! What the client does when coordinators fail: it follows the leader, repeats only under the same request id, and never
//! says "no" where nobody knows. The coordinators here are real gRPC servers with scripted answers.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use plimsoll_client::v1::cluster_service_server::{ClusterService, ClusterServiceServer};
use plimsoll_client::v1::{self, ErrorReason, GetStatusRequest, TransferLeaderRequest};
use plimsoll_client::{Client, ClientOptions, Error, RetryPolicy, SeededIds};
use plimsoll_proto::reason::Details;
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

/// What a coordinator does with one call.
enum Step {
    Succeed,
    Fail(Status),
    Hang,
}

#[derive(Clone, Default)]
struct Scripted {
    steps: Arc<Mutex<VecDeque<Step>>>,
    request_ids: Arc<Mutex<Vec<String>>>,
}

impl Scripted {
    async fn start(steps: impl IntoIterator<Item = Step>) -> (Scripted, SocketAddr) {
        let scripted = Scripted::default();
        scripted.steps.lock().unwrap().extend(steps);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let service = ClusterServiceServer::new(scripted.clone());
        let server = tonic::transport::Server::builder().add_service(service);
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        (scripted, address)
    }

    fn seen(&self) -> Vec<String> {
        self.request_ids.lock().unwrap().clone()
    }

    async fn play(&self, request_id: String) -> Result<(), Status> {
        self.request_ids.lock().unwrap().push(request_id);
        let step = self.steps.lock().unwrap().pop_front();
        match step {
            Some(Step::Succeed) | None => Ok(()),
            Some(Step::Fail(status)) => Err(status),
            Some(Step::Hang) => std::future::pending().await,
        }
    }
}

#[tonic::async_trait]
impl ClusterService for Scripted {
    async fn get_status(
        &self,
        _: Request<GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        self.play(String::new()).await?;
        Ok(Response::new(v1::GetStatusResponse::default()))
    }

    async fn transfer_leader(
        &self,
        request: Request<TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        self.play(request.into_inner().request_id).await?;
        Ok(Response::new(v1::TransferLeaderResponse {
            leader_id: 7,
            ..v1::TransferLeaderResponse::default()
        }))
    }

    async fn list_members(
        &self,
        _: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn add_member(
        &self,
        _: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn remove_member(
        &self,
        _: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn replace_member(
        &self,
        _: Request<v1::ReplaceMemberRequest>,
    ) -> Result<Response<v1::ReplaceMemberResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn upgrade(&self, _: Request<v1::UpgradeRequest>) -> Result<Response<v1::UpgradeResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }

    async fn bootstrap_cluster(
        &self,
        _: Request<v1::BootstrapClusterRequest>,
    ) -> Result<Response<v1::BootstrapClusterResponse>, Status> {
        Err(Status::unimplemented("not played"))
    }
}

fn status(reason: ErrorReason) -> Status {
    Details::new(reason, "scripted").into_status()
}

fn client(addresses: &[SocketAddr], timeout_ms: u64) -> Client {
    let options = ClientOptions {
        timeout: Duration::from_millis(timeout_ms),
        attempt_timeout: Duration::from_millis(150),
        retry: RetryPolicy { floor_ms: 5, cap_ms: 20, ..RetryPolicy::default() },
        ids: Arc::new(SeededIds::new(1)),
        ..ClientOptions::default()
    };
    Client::new(addresses.iter().map(SocketAddr::to_string), options).unwrap()
}

async fn transfer(client: &Client) -> Result<u64, Error> {
    client.transfer_leader(TransferLeaderRequest::default()).await.map(|answer| answer.leader_id)
}

#[tokio::test]
async fn the_leader_that_is_named_is_followed_and_kept() {
    let (leader, leader_address) = Scripted::start([]).await;
    let not_leader = Details::new(ErrorReason::NotLeader, "elsewhere").with("leader", leader_address);
    let (follower, address) = Scripted::start([Step::Fail(not_leader.into_status())]).await;
    let client = client(&[address], 2_000);
    assert_eq!(transfer(&client).await.unwrap(), 7);
    assert_eq!(client.address(), leader_address.to_string());
    assert_eq!(transfer(&client).await.unwrap(), 7);
    assert_eq!((follower.seen().len(), leader.seen().len()), (1, 2));
    assert_eq!(follower.seen()[0], leader.seen()[0], "the request id stays the same");
    assert_ne!(leader.seen()[0], leader.seen()[1], "another request has another id");
}

#[tokio::test]
async fn an_unknown_outcome_is_asked_again_under_the_same_id() {
    let steps =
        [Step::Fail(status(ErrorReason::OutcomeUnknown)), Step::Fail(Status::internal("cut")), Step::Succeed];
    let (server, address) = Scripted::start(steps).await;
    assert_eq!(transfer(&client(&[address], 2_000)).await.unwrap(), 7);
    let seen = server.seen();
    assert_eq!(seen.len(), 3);
    assert!(seen.iter().all(|id| *id == seen[0] && id.len() >= 16));
}

#[tokio::test]
async fn what_may_have_been_done_is_never_called_undone() {
    // First nobody knows, then nobody is there: the first must not be forgotten.
    let mut steps = vec![Step::Hang];
    steps.extend((0..200).map(|_| Step::Fail(status(ErrorReason::Unavailable))));
    let (server, address) = Scripted::start(steps).await;
    let error = transfer(&client(&[address], 600)).await.unwrap_err();
    let Error::Unknown { request_id, .. } = &error else { panic!("{error:?}") };
    assert_eq!(*request_id, server.seen()[0]);
    assert!(!error.is_definite());
    assert_eq!(error.exit_code(), 8);
}

#[tokio::test]
async fn what_was_certainly_not_done_is_called_so() {
    let steps = (0..200).map(|_| Step::Fail(status(ErrorReason::Unavailable)));
    let (_, address) = Scripted::start(steps).await;
    let error = transfer(&client(&[address], 300)).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { reason: Some(ErrorReason::Unavailable), .. }), "{error:?}");
    assert!(error.is_definite());
}

#[tokio::test]
async fn refusals_are_not_repeated() {
    for reason in
        [ErrorReason::NotFound, ErrorReason::RevisionMoved, ErrorReason::NoCapacity, ErrorReason::KeyConflict]
    {
        let (server, address) = Scripted::start([Step::Fail(status(reason))]).await;
        let error = transfer(&client(&[address], 2_000)).await.unwrap_err();
        assert_eq!(error.reason(), Some(reason));
        assert_eq!(server.seen().len(), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn a_coordinator_that_is_gone_is_left_for_the_next() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let (_, address) = Scripted::start([]).await;
    let client = client(&[gone, address], 2_000);
    for _ in 0..4 {
        assert_eq!(transfer(&client).await.unwrap(), 7);
    }
    assert_eq!(client.address(), address.to_string());
}

#[tokio::test]
async fn nobody_there_is_told_early_where_that_is_wished() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = listener.local_addr().unwrap();
    drop(listener);
    let options =
        ClientOptions { unreachable_after: Some(Duration::from_millis(200)), ..ClientOptions::default() };
    let client = Client::new([gone.to_string()], options).unwrap();
    let error = client.get_status(GetStatusRequest {}).await.unwrap_err();
    assert!(matches!(error, Error::Unavailable { .. }), "{error:?}");
    assert!(error.to_string().contains("refused"), "{error}");
}
