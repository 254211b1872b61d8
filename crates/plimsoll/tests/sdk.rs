//! The Rust SDK against a real coordinator process: streams, leases, watches, also over a restart of the process.

use std::collections::BTreeSet;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use plimsoll_client::v1::stream_reservations_request::Request as Kind;
use plimsoll_client::v1::{
    CreateReservationRequest, ListReservationsRequest, ObjectKind, Quantities, Requirements, ReservationSpec,
    ReservationState, WatchRequest,
};
use plimsoll_client::{Client, ClientOptions, Error, RetryPolicy, Standing};

const PLIMSOLL: &str = env!("CARGO_BIN_EXE_plimsoll");

/// A `dev` whose data is kept, so that it can be killed and started again.
struct Dev {
    child: Child,
    port: String,
}

impl Dev {
    fn start(home: &Path, port: &str) -> Dev {
        let data = home.join("data");
        let mut child = Command::new(PLIMSOLL)
            .args(["dev", "--http-port", "0", "-o", "jsonl", "--port", port, "--data"])
            .arg(data)
            .env("PLIMSOLL_HOME", home)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let told: serde_json::Value = serde_json::from_str(&line).expect("it starts");
        let port = told["address"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
        Dev { child, port }
    }

    fn client(&self) -> Client {
        let retry = RetryPolicy { cap_ms: 200, ..RetryPolicy::default() };
        let options = ClientOptions { retry, ..ClientOptions::default() };
        Client::new([format!("127.0.0.1:{}", self.port)], options).unwrap()
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Dev {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spec(name: String) -> ReservationSpec {
    let amounts = Quantities { cpu_millis: 1, ..Quantities::default() };
    let requirements = Requirements { amounts: Some(amounts), ..Requirements::default() };
    ReservationSpec {
        name,
        requirements: Some(requirements),
        auto_confirm: true,
        ttl_ms: 3_600_000,
        ..ReservationSpec::default()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_survives_kill_9_and_every_request_has_exactly_one_reservation() {
    let home = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(home.path(), "0");
    let client = dev.client();
    let stream = client.reservation_stream(64);
    let mut answers = tokio::task::JoinSet::new();
    for number in 0..400 {
        let stream = stream.clone();
        answers.spawn(async move {
            let spec = Some(spec(format!("n-{number}")));
            stream
                .send(Kind::Create(CreateReservationRequest { spec, ..CreateReservationRequest::default() }))
                .await
        });
    }
    let mut ids = BTreeSet::new();
    let mut restarted = None;
    while let Some(answer) = answers.join_next().await {
        ids.insert(answer.unwrap().unwrap().reservation.id);
        if ids.len() == 100 && restarted.is_none() {
            dev.kill();
            restarted = Some(Dev::start(home.path(), &dev.port));
        }
    }
    assert_eq!(ids.len(), 400);
    let listed = client.all_reservations(ListReservationsRequest::default()).await.unwrap();
    let names: BTreeSet<String> =
        listed.items.iter().map(|r| r.spec.clone().unwrap_or_default().name).collect();
    assert_eq!((listed.items.len(), names.len()), (400, 400), "none is lost, none is there twice");
    assert_eq!(listed.items.iter().map(|r| r.id.clone()).collect::<BTreeSet<_>>(), ids);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_watch_goes_on_where_it_was_after_kill_9() {
    let home = tempfile::tempdir().unwrap();
    let mut dev = Dev::start(home.path(), "0");
    let client = dev.client();
    let kinds = vec![ObjectKind::Reservation.into()];
    let mut watch = client.watch(WatchRequest { kinds, ..WatchRequest::default() }).await.unwrap();
    let mut made = Vec::new();
    let mut restarted = None;
    for round in 0..2 {
        for number in 0..5 {
            made.push(client.reserve(spec(format!("{round}-{number}"))).await.unwrap().revision);
        }
        if round == 0 {
            dev.kill();
            restarted = Some(Dev::start(home.path(), &dev.port));
        }
    }
    let mut seen = Vec::new();
    while seen.len() < made.len() {
        let message = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.unwrap().unwrap();
        seen.extend(
            message
                .events
                .iter()
                .filter(|event| event.transition.is_some_and(|t| t.from == 0))
                .map(|e| e.revision),
        );
    }
    assert_eq!(seen, made, "no gap, nothing twice");
    drop(restarted);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_renews_itself_and_is_given_back() {
    let home = tempfile::tempdir().unwrap();
    let dev = Dev::start(home.path(), "0");
    let client = dev.client();
    let pool = client.pool("default");
    let lease = pool.request().cpu("10m").ttl(Duration::from_secs(1)).acquire().await.unwrap();
    assert_eq!(lease.env()["PLIMSOLL_TOKEN"], lease.token().to_string());
    let first = lease.deadline();
    tokio::time::sleep(Duration::from_millis(3_500)).await;
    assert!(lease.deadline() > first + Duration::from_secs(2), "it was renewed");
    assert_eq!(lease.standing().await, Standing::Granted);
    let id = lease.id().to_owned();
    assert_eq!(lease.release().await.unwrap().state(), ReservationState::Released);

    // Dropped in place of released, and dropped while it waits: both are given back.
    let everything = pool.request().cpu("10m").name("dropped").acquire().await.unwrap();
    drop(everything);
    let total =
        client.all_pools(plimsoll_client::v1::ListPoolsRequest::default()).await.unwrap().items[0].1.clone();
    let cores = total.allocatable.unwrap().cpu_millis;
    let taken = pool.request().cpu(&format!("{cores}m")).wait(None).acquire().await.unwrap();
    let waiting = pool.request().cpu("10m").wait(None).acquire();
    assert!(tokio::time::timeout(Duration::from_millis(300), waiting).await.is_err());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let live = ListReservationsRequest { live_only: true, ..ListReservationsRequest::default() };
    let left: Vec<String> =
        client.all_reservations(live).await.unwrap().items.into_iter().map(|r| r.id).collect();
    assert_eq!(left, [taken.id()], "{id} and the dropped ones are gone");

    let error = pool.request().cpu("100000").acquire().await.unwrap_err();
    assert!(
        matches!(&error, Error::Refused(_)) && error.exit_code() == 7 && !error.blockers().is_empty(),
        "{error:?}"
    );
}
