//! A webhook and a server of the external gRPC protocol, small and real.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use axum::{Json, Router};
use parking_lot::Mutex;
use plimsoll_ledger::{ProviderKind, ScalingTarget};
use plimsoll_provider::externalgrpc::cloud_provider_server::{CloudProvider, CloudProviderServer};
use plimsoll_provider::externalgrpc::instance_status::InstanceState;
use plimsoll_provider::externalgrpc::{self as wire, Instance, InstanceStatus};
use plimsoll_provider::{Ask, ProviderSettings, Providers, RealProviders};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status};

fn ask(machine: u64, wanted: u64, taken: &[&str]) -> Ask {
    Ask {
        scope: "test".to_owned(),
        machine,
        policy: "grow".to_owned(),
        target: ScalingTarget::Pool("default".to_owned()),
        node: format!("grow-i{machine}"),
        wanted,
        taken: taken.iter().map(|handle| (*handle).to_owned()).collect(),
        ..Ask::default()
    }
}

/// What a webhook was asked, and how it answers.
#[derive(Clone, Default)]
struct Hook {
    asked: Arc<Mutex<Vec<(String, Value)>>>,
    answer: Arc<Mutex<Option<StatusCode>>>,
}

async fn answer(
    State(hook): State<Hook>,
    headers: HeaderMap,
    Json(asked): Json<Value>,
) -> Result<Json<Value>, (StatusCode, &'static str)> {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).unwrap_or_default().to_owned();
    hook.asked.lock().push((key, asked));
    match *hook.answer.lock() {
        None => Ok(Json(json!({ "handle": "vm-1" }))),
        Some(status) => Err((status, "not now")),
    }
}

#[tokio::test]
async fn a_webhook_is_posted_what_is_asked_under_its_key() {
    let hook = Hook::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let url = format!("http://{}/scale?zone=a", listener.local_addr().expect("bound"));
    let router = Router::new().route("/scale", post(answer)).with_state(hook.clone());
    let server = tokio::spawn(async move { axum::serve(listener, router).await });
    let providers = RealProviders::new(ProviderSettings { webhook: true, ..ProviderSettings::default() });
    let machines = providers.machines(&ProviderKind::Webhook { url }).expect("it may");
    assert_eq!(machines.start(&ask(5, 1, &[])).await.expect("it starts").handle, "vm-1");
    machines.stop(&ask(5, 1, &[])).await.expect("it stops");
    let asked = hook.asked.lock().clone();
    let keys: Vec<&str> = asked.iter().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["test/5/start", "test/5/stop"]);
    assert_eq!((&asked[0].1["action"], &asked[0].1["node"]), (&json!("start"), &json!("grow-i5")));
    for (status, again) in [
        (StatusCode::INTERNAL_SERVER_ERROR, true),
        (StatusCode::TOO_MANY_REQUESTS, true),
        (StatusCode::BAD_REQUEST, false),
    ] {
        *hook.answer.lock() = Some(status);
        let error = machines.start(&ask(6, 1, &[])).await.expect_err("it fails");
        assert_eq!(error.again, again, "{error}");
        assert!(error.message.contains("not now"), "{error}");
    }
    server.abort();
    let _ = server.await;
    assert!(machines.start(&ask(7, 1, &[])).await.expect_err("nobody is there").again);
}

/// A cloud with one group, whose instances come a call later.
#[derive(Clone, Default)]
struct Cloud {
    state: Arc<Mutex<CloudState>>,
}

#[derive(Default)]
struct CloudState {
    size: i32,
    made: i32,
    increases: u32,
    instances: BTreeMap<String, InstanceState>,
}

impl Cloud {
    /// Its size, how often that was raised, and how many instances there are.
    fn counts(&self) -> (i32, u32, usize) {
        let state = self.state.lock();
        (state.size, state.increases, state.instances.len())
    }
}

#[tonic::async_trait]
impl CloudProvider for Cloud {
    async fn refresh(
        &self,
        _: Request<wire::RefreshRequest>,
    ) -> Result<Response<wire::RefreshResponse>, Status> {
        let mut state = self.state.lock();
        let running = i32::try_from(state.instances.len()).expect("few");
        for _ in running..state.size {
            state.made += 1;
            let id = format!("fake://zone-a/VM-{}", state.made);
            state.instances.insert(id, InstanceState::InstanceCreating);
        }
        Ok(Response::new(wire::RefreshResponse {}))
    }

    async fn node_group_target_size(
        &self,
        request: Request<wire::NodeGroupTargetSizeRequest>,
    ) -> Result<Response<wire::NodeGroupTargetSizeResponse>, Status> {
        if request.into_inner().id != "gpu" {
            return Err(Status::not_found("no such group"));
        }
        Ok(Response::new(wire::NodeGroupTargetSizeResponse { target_size: self.state.lock().size }))
    }

    async fn node_group_increase_size(
        &self,
        request: Request<wire::NodeGroupIncreaseSizeRequest>,
    ) -> Result<Response<wire::NodeGroupIncreaseSizeResponse>, Status> {
        let mut state = self.state.lock();
        state.size += request.into_inner().delta;
        state.increases += 1;
        Ok(Response::new(wire::NodeGroupIncreaseSizeResponse {}))
    }

    async fn node_group_delete_nodes(
        &self,
        request: Request<wire::NodeGroupDeleteNodesRequest>,
    ) -> Result<Response<wire::NodeGroupDeleteNodesResponse>, Status> {
        let mut state = self.state.lock();
        for node in request.into_inner().nodes {
            if state.instances.remove(&node.provider_id).is_some() {
                state.size -= 1;
            }
        }
        Ok(Response::new(wire::NodeGroupDeleteNodesResponse {}))
    }

    async fn node_group_decrease_target_size(
        &self,
        _: Request<wire::NodeGroupDecreaseTargetSizeRequest>,
    ) -> Result<Response<wire::NodeGroupDecreaseTargetSizeResponse>, Status> {
        Err(Status::unimplemented("nobody asks for it"))
    }

    async fn node_group_nodes(
        &self,
        _: Request<wire::NodeGroupNodesRequest>,
    ) -> Result<Response<wire::NodeGroupNodesResponse>, Status> {
        let state = self.state.lock();
        let instance = |(id, state): (&String, &InstanceState)| Instance {
            id: id.clone(),
            status: Some(InstanceStatus { instance_state: (*state).into(), error_info: None }),
        };
        Ok(Response::new(wire::NodeGroupNodesResponse {
            instances: state.instances.iter().map(instance).collect(),
        }))
    }
}

#[tokio::test]
async fn a_group_grows_to_what_is_wanted_once_whoever_asks_and_gives_nodes_back_by_name() {
    let cloud = Cloud::default();
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound").to_string();
    let service = CloudProviderServer::new(cloud.clone());
    let incoming = TcpListenerStream::new(listener);
    let server =
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
    let settings = ProviderSettings { external_grpc: true, ..ProviderSettings::default() };
    let kind = |group: &str| ProviderKind::ExternalGrpc { address: address.clone(), group: group.to_owned() };
    let providers = RealProviders::new(settings.clone());
    let machines = providers.machines(&kind("gpu")).expect("it may");
    // Two machines of one policy: the group is told once how many there are to be.
    for machine in [1, 2] {
        let error = machines.start(&ask(machine, 2, &[])).await;
        if machine == 1 {
            assert!(error.expect_err("on its way").underway);
        }
    }
    assert_eq!(cloud.counts(), (2, 1, 2));
    let second = machines.start(&ask(2, 2, &[])).await.expect("it is there");
    let first = machines.start(&ask(1, 2, &[])).await.expect("it is there");
    assert_ne!(first.handle, second.handle);
    assert!(first.node.starts_with("vm-"), "{first:?}");
    // Another leader knows what was written, and takes nothing that has an owner.
    let next = RealProviders::new(settings).machines(&kind("gpu")).expect("it may");
    let taken = next.start(&ask(1, 2, &[second.handle.as_str()])).await.expect("it is there");
    assert_eq!(taken, first);
    assert_eq!(cloud.state.lock().made, 2, "nothing was bought twice");
    let back = Ask { handle: first.handle.clone(), ..ask(1, 2, &[]) };
    next.stop(&back).await.expect("given back");
    next.stop(&back).await.expect("what is not there is stopped");
    assert_eq!(cloud.counts(), (1, 1, 1));
    let nowhere = machines_of(&providers, &kind("other"));
    let error = nowhere.start(&ask(9, 9, &[first.handle.as_str(), second.handle.as_str()])).await;
    assert!(error.expect_err("no such group").message.contains("no such group"));
    server.abort();
}

fn machines_of(providers: &RealProviders, kind: &ProviderKind) -> Arc<dyn plimsoll_provider::Machines> {
    providers.machines(kind).expect("it may")
}
