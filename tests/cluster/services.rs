//! A service under load while its cluster changes: the leader dies, leases end, a node drains, replicas come. No call reaches an endpoint whose lease
//! has ended, or that drains, later than a bound on propagation.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use plimsoll_client::{Asked, Client, ServicePicker, v1};
use plimsoll_tests::Cluster;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::failover::one_core;
use crate::fleet;

/// After its end was acknowledged a client may take so long to hear of it. Followers hear of a commit with the next entry or heartbeat (50 ms), and where the
/// leader dies before, when the next one leads; a watcher is told within 5 ms of that.
pub(crate) const PROPAGATION: Duration = Duration::from_millis(3_000);

/// Nodes of the fleet.
const NODES: u32 = 4;

/// A model server: answers a byte with a byte, and notes when it was last asked.
struct Server {
    id: String,
    node: String,
    token: u64,
    /// Microseconds after the start of the test; 0 for never.
    last_call_us: Arc<AtomicU64>,
    calls: Arc<AtomicU64>,
    accepting: JoinHandle<()>,
}

impl Server {
    /// Reserves a place, listens, and announces it.
    async fn start(client: &Client, began: Instant, number: u32) -> Server {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("bound").to_string();
        // Five on each node: one of four is drained.
        let granted = reserve_replica(client, number, &format!("node-{}", number % NODES)).await;
        let (last_call_us, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let (last, count) = (Arc::clone(&last_call_us), Arc::clone(&calls));
        let accepting = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let (last, count) = (Arc::clone(&last), Arc::clone(&count));
                tokio::spawn(async move {
                    let mut byte = [0];
                    while stream.read_exact(&mut byte).await.is_ok() {
                        let at = u64::try_from(began.elapsed().as_micros()).expect("a short test");
                        last.fetch_max(at, Ordering::Relaxed);
                        count.fetch_add(1, Ordering::Relaxed);
                        if stream.write_all(&byte).await.is_err() {
                            return;
                        }
                    }
                });
            }
        });
        announce(client, &granted, &address).await;
        let (node, token) = (granted.allocations[0].node.clone(), granted.token);
        Server { id: granted.id, node, token, last_call_us, calls, accepting }
    }

    async fn release(&self, client: &Client) {
        let (name, token) = (self.id.clone(), self.token);
        let request =
            v1::ReleaseReservationRequest { name, token, ..v1::ReleaseReservationRequest::default() };
        client.release_reservation(request).await.expect("released");
    }
}

/// The service that the tests of this binary are about.
pub(crate) async fn apply_service(client: &Client) {
    let service = v1::Service { name: "model-a".to_owned(), ..v1::Service::default() };
    let object = v1::PolicyObject { object: Some(v1::policy_object::Object::Service(service)) };
    let request = v1::ApplyPolicyRequest { objects: vec![object], ..v1::ApplyPolicyRequest::default() };
    client.apply_policy(request).await.expect("applied");
}

/// A place for a replica, on this node.
pub(crate) async fn reserve_replica(client: &Client, number: u32, node: &str) -> v1::Reservation {
    let mut create = one_core(format!("model-{number}"));
    let spec = create.spec.as_mut().expect("a spec");
    spec.service = "model-a".to_owned();
    let node = v1::NodeSelectorTerm {
        key: "node".to_owned(),
        operator: v1::SelectorOperator::In.into(),
        values: vec![node.to_owned()],
    };
    spec.requirements.as_mut().expect("requirements").required.push(node);
    client.create_reservation(create).await.expect("granted").reservation.expect("a reservation")
}

/// Says where a replica listens.
pub(crate) async fn announce(client: &Client, replica: &v1::Reservation, address: &str) {
    let endpoint = Some(v1::Endpoint { address: address.to_owned(), ..v1::Endpoint::default() });
    let (name, token) = (replica.name.clone(), replica.token);
    let request = v1::SetEndpointRequest { name, token, endpoint, ..v1::SetEndpointRequest::default() };
    client.set_endpoint(request).await.expect("announced");
}

/// Calls until it is told to stop; errors by what they were.
async fn call(picker: ServicePicker, stop: Arc<AtomicBool>, errors: Arc<Mutex<Vec<String>>>) {
    while !stop.load(Ordering::Relaxed) {
        let pick = match picker.pick(&Asked::default()) {
            Ok(pick) => pick,
            Err(nobody) => {
                errors.lock().expect("a list").push(nobody.to_string());
                tokio::time::sleep(Duration::from_millis(10)).await;
                continue;
            }
        };
        match ask(pick.address()).await {
            Ok(()) => pick.answered(1),
            Err(error) => {
                errors.lock().expect("a list").push(error.to_string());
                pick.failed();
            }
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn ask(address: &str) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&[7]).await?;
    let mut byte = [0];
    stream.read_exact(&mut byte).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_reaches_an_endpoint_that_left_whatever_happens_to_the_cluster() {
    let mut cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(NODES)).await;
    let client = cluster.client().await;
    apply_service(&client).await;
    let began = Instant::now();
    let mut servers = Vec::new();
    for number in 0..20 {
        servers.push(Server::start(&client, began, number).await);
    }
    // Clients follow whichever coordinator answers them.
    let (stop, errors) = (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(Vec::new())));
    let mut callers = Vec::new();
    let mut pickers = Vec::new();
    for _ in 0..6 {
        let picker = cluster.client().await.service("model-a").await.expect("a watch");
        callers.push(tokio::spawn(call(picker.clone(), Arc::clone(&stop), Arc::clone(&errors))));
        pickers.push(picker);
    }
    tokio::time::sleep(Duration::from_millis(500)).await;

    // A lease ends before, while and after there is a leader; a node drains; replicas come.
    let mut ended: Vec<(usize, Duration)> = Vec::new();
    servers[0].release(&client).await;
    ended.push((0, began.elapsed()));
    let leader = cluster.leader().await;
    cluster.member_mut(leader).kill();
    servers[1].release(&client).await;
    ended.push((1, began.elapsed()));
    cluster.member_mut(leader).restart();
    let drained = servers[2].node.clone();
    let request = v1::DrainNodeRequest { name: drained.clone(), ..v1::DrainNodeRequest::default() };
    client.drain_node(request).await.expect("drained");
    let at = began.elapsed();
    ended.extend((2..servers.len()).filter(|index| servers[*index].node == drained).map(|index| (index, at)));
    for number in 20..24 {
        // None on the node that takes nothing new.
        let number = if format!("node-{}", number % NODES) == drained { number + 1 } else { number };
        servers.push(Server::start(&client, began, number).await);
    }
    tokio::time::sleep(PROPAGATION + Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.expect("no panic");
    }

    let mut slowest = Duration::ZERO;
    for (index, at) in &ended {
        let last = Duration::from_micros(servers[*index].last_call_us.load(Ordering::Relaxed));
        let late = last.saturating_sub(*at);
        slowest = slowest.max(late);
        assert!(
            late < PROPAGATION,
            "server {index} was called {late:?} after it left: {:?}",
            servers[*index].id
        );
        assert!(servers[*index].calls.load(Ordering::Relaxed) > 0, "it was called before");
    }
    for server in &servers[20..] {
        assert!(server.calls.load(Ordering::Relaxed) > 0, "{} came and was never called", server.id);
    }
    let errors = errors.lock().expect("a list").clone();
    assert_eq!(errors, Vec::<String>::new(), "no call failed");
    let calls: u64 = servers.iter().map(|server| server.calls.load(Ordering::Relaxed)).sum();
    println!("{calls} calls, {} endpoints left, the last call {slowest:?} after that", ended.len());
    assert_eq!(pickers[0].endpoints().len(), 22, "20, less two, and four more");
    for server in servers {
        server.accepting.abort();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn loads_are_written_about_once_a_second_and_every_coordinator_answers_with_them() {
    let cluster = Cluster::start(3).await;
    let _nodes = fleet::register(&cluster.addresses(), fleet::small(2)).await;
    let client = cluster.client().await;
    apply_service(&client).await;
    let server = Server::start(&client, Instant::now(), 0).await;
    let report = |token: u64, rate_milli: u64| v1::LoadReport {
        name: server.id.clone(),
        token,
        load: Some(v1::EndpointLoad { utilization_permille: 504, rate_milli, ..v1::EndpointLoad::default() }),
    };
    let before = client.get_service(get()).await.expect("a service").revision;
    let began = Instant::now();
    // Ten times as often as it is written, each another number.
    let mut last = 0;
    for step in 1..=40 {
        last = 10_000 * step;
        let reports = vec![report(server.token, last), report(1, 7)];
        let answer =
            client.report_load(v1::ReportLoadRequest { reports, ..Default::default() }).await.expect("taken");
        assert!(answer.results[0].failure.is_none());
        let failure = answer.results[1].failure.as_ref().expect("another token");
        assert_eq!(failure.reason(), v1::ErrorReason::Fenced);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let entries = client.get_service(get()).await.expect("a service").revision - before;
    let seconds = began.elapsed().as_secs();
    assert!((2..=seconds + 2).contains(&entries), "{entries} entries in {seconds} s");
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    for member in &cluster.members {
        let endpoint =
            tonic::transport::Endpoint::from_shared(format!("http://{}", member.address)).expect("address");
        let mut asked = v1::endpoint_service_client::EndpointServiceClient::new(endpoint.connect_lazy());
        let request =
            v1::ListEndpointsRequest { service: "model-a".to_owned(), ..v1::ListEndpointsRequest::default() };
        let listed = asked.list_endpoints(request).await.expect("a list").into_inner();
        let load = listed.endpoints[0].load.clone().expect("it reported");
        assert_eq!((load.utilization_permille, load.rate_milli), (500, last));
    }
    server.release(&client).await;
    let request =
        v1::PickEndpointRequest { service: "model-a".to_owned(), ..v1::PickEndpointRequest::default() };
    let nobody = client.pick_endpoint(request).await.expect_err("nobody is left");
    assert!(nobody.to_string().contains("0 serving"), "{nobody}");
}

fn get() -> v1::GetServiceRequest {
    v1::GetServiceRequest { name: "model-a".to_owned(), ..v1::GetServiceRequest::default() }
}
