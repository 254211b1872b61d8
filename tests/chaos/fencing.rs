//! Leases and fencing on real processes: a holder that sleeps past its lease, an agent that does, and an outage of our own.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plimsoll_client::v1::ReservationState;
use plimsoll_client::{Client, v1};
use plimsoll_tests::agents::Agents;
use plimsoll_tests::{Cluster, plimsoll};

const PATIENCE: Duration = Duration::from_secs(30);

/// Three coordinators and one agent with one GPU.
async fn one_gpu() -> (Cluster, Agents, Client) {
    let cluster = Cluster::start(3).await;
    let client = cluster.client().await;
    let agents = Agents::start(1, "a100:1", &cluster, &client).await;
    (cluster, agents, client)
}

fn the_gpu(name: &str, ttl_ms: u64) -> v1::CreateReservationRequest {
    let gpu = v1::GpuAsk { count: 1, ..Default::default() };
    let spec = v1::ReservationSpec {
        name: name.to_owned(),
        requirements: Some(v1::Requirements { gpu: Some(gpu), ..Default::default() }),
        ttl_ms,
        auto_confirm: true,
        ..Default::default()
    };
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

/// Asks for the GPU until it is granted.
async fn granted(client: &Client, name: &str, ttl_ms: u64) -> v1::Reservation {
    let until = Instant::now() + PATIENCE;
    loop {
        match client.create_reservation(the_gpu(name, ttl_ms)).await {
            Ok(answer) => return answer.reservation.expect("a reservation"),
            Err(error) => assert!(Instant::now() < until, "{name} never got the GPU: {error}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn by_name(client: &Client, name: &str) -> Option<v1::Reservation> {
    let request = v1::ListReservationsRequest { spec_name: name.to_owned(), ..Default::default() };
    client.list_reservations(request).await.expect("a list").reservations.pop()
}

/// What the agent says of a token, for a device where one is named.
fn check_device(agents: &Agents, token: u64, device: Option<&str>) -> String {
    use std::io::{Read, Write};
    let device = device.map(|uuid| format!("&device={uuid}")).unwrap_or_default();
    let mut stream = std::net::TcpStream::connect(&agents.all[0].local).expect("the local API listens");
    write!(
        stream,
        "GET /v1/check?token={token}{device} HTTP/1.1\r\nHost: agent\r\nConnection: close\r\n\r\n"
    )
    .expect("asked");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("answered");
    answer
}

fn check(agents: &Agents, token: u64) -> String {
    check_device(agents, token, None)
}

/// UUID of the one GPU, as the grant says.
fn device(reservation: &v1::Reservation) -> &str {
    &reservation.allocations[0].devices[0].uuid
}

async fn wait_for_check(agents: &Agents, token: u64, what: &str) {
    let until = Instant::now() + PATIENCE;
    while !check(agents, token).starts_with(what) {
        assert!(Instant::now() < until, "token {token} never got {what}: {}", check(agents, token));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn signal(child: &Child, signal: Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(child.id()).expect("a pid"));
    nix::sys::signal::kill(pid, signal).expect("it is there");
}

fn run(cluster: &Cluster, name: &str) -> Child {
    Command::new(plimsoll())
        .env("PLIMSOLL_HOME", cluster.root().join("zombie"))
        .args(["--addr", &cluster.addresses().join(","), "run", "--anywhere", "--gpu", "1", "--ttl", "2s"])
        .args(["--name", name, "--", "sleep", "600"])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the command line starts")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_slept_past_its_lease_is_fenced() {
    let (cluster, agents, client) = one_gpu().await;
    let mut zombie = run(&cluster, "zombie");
    let until = Instant::now() + PATIENCE;
    let first = loop {
        match by_name(&client, "zombie").await.filter(|one| one.state() == ReservationState::Active) {
            Some(one) => break one,
            None => assert!(Instant::now() < until, "never granted"),
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    wait_for_check(&agents, first.token, "HTTP/1.1 200").await;
    signal(&zombie, Signal::SIGSTOP);
    let second = granted(&client, "second", 600_000).await;
    assert!(second.token > first.token, "{} and then {}", first.token, second.token);
    wait_for_check(&agents, second.token, "HTTP/1.1 200").await;
    let stale = check_device(&agents, first.token, Some(device(&second)));
    assert!(stale.starts_with("HTTP/1.1 409"), "{stale}");
    signal(&zombie, Signal::SIGCONT);

    // It wakes up, is told, and ends its command: 125 is `plimsoll run` having lost the lease.
    let until = Instant::now() + PATIENCE;
    let ended = loop {
        if let Some(status) = zombie.try_wait().expect("a child of ours") {
            break status;
        }
        assert!(Instant::now() < until, "it goes on without a lease");
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!(ended.code(), Some(125));
    let (name, token) = (second.id.clone(), first.token);
    let renewed =
        client.renew_reservation(v1::RenewReservationRequest { name, token, ..Default::default() }).await;
    let refused = renewed.expect_err("the old token must not do anything to the new grant");
    assert_eq!(refused.reason(), Some(v1::ErrorReason::Fenced), "{refused}");
    let (name, token) = (first.id.clone(), first.token);
    let released =
        client.release_reservation(v1::ReleaseReservationRequest { name, token, ..Default::default() }).await;
    assert!(released.is_err_and(|error| error.is_definite()), "its reservation is over");
    let now = by_name(&client, "second").await.expect("it is there");
    assert_eq!((now.state(), now.token), (ReservationState::Active, second.token));
    cluster.assert_digests_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_agent_that_slept_had_is_not_given_away_before_it_is_back() {
    let (cluster, agents, client) = one_gpu().await;
    // Longer than it takes to be suspected: so the node falls silent before the lease is over.
    let first = granted(&client, "first", 14_000).await;
    wait_for_check(&agents, first.token, "HTTP/1.1 200").await;
    agents.all[0].signal(Signal::SIGSTOP);
    // Nobody renews: node silent, lease over, node lost. What ran there may still run, so nobody else gets the device.
    let until = Instant::now() + PATIENCE;
    while by_name(&client, "first").await.is_none_or(|one| one.state() != ReservationState::Failed) {
        assert!(Instant::now() < until, "it never ended: {:?}", by_name(&client, "first").await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let early =
        client.with_timeout(Duration::from_secs(2)).create_reservation(the_gpu("early", 60_000)).await;
    assert!(early.is_err(), "granted on a node that nobody hears of: {early:?}");
    agents.all[0].signal(Signal::SIGCONT);
    let second = granted(&client, "second", 60_000).await;
    assert!(second.token > first.token);
    wait_for_check(&agents, second.token, "HTTP/1.1 200").await;
    let stale = check(&agents, first.token);
    assert!(!stale.starts_with("HTTP/1.1 200"), "the agent obeys an old token: {stale}");
    cluster.assert_digests_equal().await;
}

/// Length of the leases in the tests of our own outage, in milliseconds.
const SHORT_MS: u64 = 4_000;

async fn twenty_leases(client: &Client) -> Vec<v1::Reservation> {
    let mut leases = Vec::new();
    for index in 0..20 {
        let mut request = the_gpu(&format!("lease-{index}"), SHORT_MS);
        if let Some(requirements) = request.spec.as_mut().and_then(|spec| spec.requirements.as_mut()) {
            requirements.gpu = None;
            requirements.amounts = Some(v1::Quantities { cpu_millis: 10, ..Default::default() });
        }
        let answer = client.create_reservation(request).await.expect("granted");
        leases.push(answer.reservation.expect("a reservation"));
    }
    leases
}

/// All coordinators are down until leases, slack and grace are long over.
async fn outage(cluster: &mut Cluster) {
    for member in &mut cluster.members {
        member.kill();
    }
    tokio::time::sleep(Duration::from_millis(2 * SHORT_MS + 2_000)).await;
    for member in &mut cluster.members {
        member.restart();
    }
    cluster.leader().await;
}

async fn renew_all(client: &Client, leases: &[v1::Reservation], length: Duration) {
    let until = Instant::now() + length;
    while Instant::now() < until {
        for lease in leases {
            let (name, token) = (lease.id.clone(), lease.token);
            let request = v1::RenewReservationRequest { name, token, ..Default::default() };
            let renewed = client.renew_reservation(request).await;
            let renewed =
                renewed.unwrap_or_else(|error| panic!("{} did not survive our outage: {error}", lease.id));
            assert_eq!(renewed.reservation.map(|one| one.token), Some(token));
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn our_own_outage_expires_nobody() {
    let (mut cluster, agents, client) = one_gpu().await;
    let leases = twenty_leases(&client).await;
    // The agent sleeps as well: what it says of leases is another test's affair.
    agents.all[0].signal(Signal::SIGSTOP);
    outage(&mut cluster).await;
    renew_all(&client, &leases, Duration::from_millis(SHORT_MS)).await;
    agents.all[0].signal(Signal::SIGCONT);
    cluster.assert_digests_equal().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_agent_that_is_back_after_our_outage_ends_nobodys_lease() {
    let (mut cluster, agents, client) = one_gpu().await;
    let leases = twenty_leases(&client).await;
    outage(&mut cluster).await;
    renew_all(&client, &leases, Duration::from_secs(8)).await;
    agents.wait(&client).await;
    cluster.assert_digests_equal().await;
}
