//! A pool that grows for what waits and shrinks after it, on real agents, with the leader killed in between: nothing is started twice, and nobody
//! loses what he holds.

use std::time::{Duration, Instant};

use plimsoll_client::{Client, v1};
use plimsoll_provider::end_all;
use plimsoll_tests::{Cluster, Layout};

const POLICY: &str = r"
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: burst }
---
apiVersion: plimsoll/v1
kind: ScalingPolicy
metadata: { name: burst }
spec:
  target: pool/burst
  min: 0
  max: 4
  activation: { cooldown: 1s }
  scaleDown: { cooldown: 1s }
  maxLeaving: 2
  provider: { type: process, timeout: 10s }
  template: { resources: { cpu: 1, memory: 1Gi } }
  startWithin: 30s
";

/// Machines of this scope: ended, whatever becomes of the test.
struct Scope(String);

impl Drop for Scope {
    fn drop(&mut self) {
        let scope = self.0.clone();
        let ended = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.expect("a runtime").block_on(end_all(&scope))
        });
        // A test that failed for another reason says that one.
        drop(ended.join());
    }
}

impl Scope {
    /// Processes on this machine that are this scope's.
    fn processes(&self) -> usize {
        let prefix = format!("plimsoll-machine={}.", self.0);
        let all = std::fs::read_dir("/proc").expect("it is there").flatten();
        let lines = all.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
        let marked =
            |line: &Vec<u8>| line.split(|byte| *byte == 0).any(|word| word.starts_with(prefix.as_bytes()));
        lines.filter(marked).count()
    }
}

fn asked(number: u32) -> v1::CreateReservationRequest {
    let amounts = v1::Quantities { cpu_millis: 1_000, memory_bytes: 1 << 20, ..Default::default() };
    let spec = v1::ReservationSpec {
        name: format!("wish-{number}"),
        pool: "burst".to_owned(),
        requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
        ttl_ms: 3_600_000,
        auto_confirm: true,
        wait: Some(v1::WaitPolicy { queue: true, ..Default::default() }),
        ..Default::default()
    };
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

async fn status(client: &Client) -> v1::ScalingStatus {
    let request = v1::GetScalingPolicyRequest { name: "pool/burst".to_owned(), ..Default::default() };
    client.get_scaling_policy(request).await.expect("it is there").status.expect("with a status")
}

async fn active(client: &Client) -> usize {
    let request = v1::ListReservationsRequest { pool: "burst".to_owned(), ..Default::default() };
    // Nobody leads for a moment: then nobody is known to run.
    let all = client.all_reservations(request).await.map(|all| all.items).unwrap_or_default();
    all.iter().filter(|one| one.state() == v1::ReservationState::Active).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pool_grows_for_what_waits_and_shrinks_after_it_with_the_leader_killed_in_between() {
    let scope = Scope(format!("cluster-{}", std::process::id()));
    let mut layout = Layout::default();
    let flags = format!("exec \"$@\" --scaling-provider process --scaling-scope {}", scope.0);
    for id in 1..=3 {
        let prefix = ["sh", "-c", flags.as_str(), "sh"];
        layout.prefix.insert(id, prefix.iter().map(|word| (*word).to_owned()).collect());
    }
    let mut cluster = Cluster::start_as(3, layout).await;
    let file = cluster.root().join("burst.yaml");
    std::fs::write(&file, POLICY).expect("a file");
    let applied = cluster.cli(&["apply", "-f", &file.to_string_lossy()]);
    assert!(applied.status.success(), "{}", String::from_utf8_lossy(&applied.stderr));
    let client = cluster.client().await;
    let mut names = Vec::new();
    for number in 0..3 {
        let answer = client.create_reservation(asked(number)).await.expect("it waits");
        names.push(answer.reservation.expect("a reservation"));
    }
    // As soon as somebody was asked for a machine, the leader dies.
    let deadline = Instant::now() + Duration::from_secs(60);
    while scope.processes() == 0 {
        assert!(Instant::now() < deadline, "no machine was started: {:?}", status(&client).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let leader = cluster.leader().await;
    cluster.member_mut(leader).kill();
    while active(&client).await < 3 {
        assert!(Instant::now() < deadline, "what waits has no place: {:?}", status(&client).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // What is just being started may be seen twice, before and after it becomes another program.
    while scope.processes() != 3 {
        assert!(Instant::now() < deadline, "{} machines: {:?}", scope.processes(), status(&client).await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let grown = status(&client).await;
    assert_eq!(grown.present, 3, "one machine for each: {grown:?}");
    // Nobody loses what he holds.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!((active(&client).await, scope.processes()), (3, 3));
    cluster.member_mut(leader).restart();
    for one in names {
        let request = v1::CancelReservationRequest { name: one.id, ..Default::default() };
        client.cancel_reservation(request).await.expect("cancelled");
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let now = status(&client).await;
        if now.present == 0 && now.leaving == 0 && scope.processes() == 0 {
            assert_eq!(now.intents.len(), 0, "{now:?}");
            break;
        }
        assert!(Instant::now() < deadline, "{} processes are left: {now:?}", scope.processes());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}
