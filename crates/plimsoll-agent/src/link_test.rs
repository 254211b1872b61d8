//! Links against a coordinator that is played by the test, on paused time.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;

use crate::clock::{Clock, TokioClock};
use crate::dial::{Conversation, Dial, LinkError};
use crate::fleet::{FleetConfig, SimulatedFleet, SimulatedNode};
use crate::inventory::Inventory;
use crate::lease::Lease;
use crate::message::{
    FromCoordinator, LeaseNews, RegisterAnswer, RegisterFailure, Registered, Registration, Report,
    ToCoordinator, Word,
};

/// One conversation as the test's coordinator has it.
struct Side {
    heard: mpsc::Receiver<ToCoordinator>,
    say: mpsc::Sender<Result<FromCoordinator, LinkError>>,
}

/// Hands each conversation to the test; refuses while the door is shut.
struct TestDial {
    opened: mpsc::UnboundedSender<Side>,
    shut: Mutex<bool>,
    attempts: Mutex<BTreeSet<u64>>,
}

impl Dial for TestDial {
    fn open(&self, attempt: u64) -> BoxFuture<'_, Result<Conversation, LinkError>> {
        Box::pin(async move {
            self.attempts.lock().insert(attempt);
            if *self.shut.lock() {
                return Err(LinkError::new("refused"));
            }
            let (outgoing, heard) = mpsc::channel(64);
            let (say, incoming) = mpsc::channel(64);
            self.opened.send(Side { heard, say }).map_err(|_| LinkError::new("the test is over"))?;
            Ok(Conversation { outgoing, incoming: ReceiverStream::new(incoming).boxed() })
        })
    }
}

struct Stage {
    dial: Arc<TestDial>,
    opened: mpsc::UnboundedReceiver<Side>,
    fleet: Option<SimulatedFleet>,
    shutdown: CancellationToken,
}

fn stage(nodes: usize) -> Stage {
    let (sender, opened) = mpsc::unbounded_channel();
    let dial = Arc::new(TestDial { opened: sender, shut: Mutex::new(false), attempts: Mutex::default() });
    let node = |i| SimulatedNode {
        name: format!("n{i}"),
        pool: String::new(),
        inventory: Inventory::simulated("n", 1000, 1 << 30, &"t4:1".parse().unwrap()),
        extra: Default::default(),
    };
    let nodes = (0..nodes).map(node).collect();
    let config =
        FleetConfig { nodes_per_stream: 100, heartbeat_interval_ms: 1_000, incarnation: 3, played: None };
    let fleet = SimulatedFleet::new(nodes, config, dial.clone(), Arc::new(TokioClock::start()));
    Stage { dial, opened, fleet: Some(fleet), shutdown: CancellationToken::new() }
}

impl Stage {
    fn run(&mut self) {
        let fleet = self.fleet.take().unwrap();
        tokio::spawn(fleet.run(self.shutdown.clone()));
    }

    async fn conversation(&mut self) -> Side {
        self.opened.recv().await.unwrap()
    }
}

impl Side {
    async fn answer(&self, sequence: u64, revision: u64, what: Word) {
        self.say.send(Ok(FromCoordinator { revision, sequence, what })).await.unwrap();
    }

    async fn say(&self, revision: u64, what: Word) {
        self.answer(0, revision, what).await;
    }

    async fn seen(&self, sequence: u64) {
        self.answer(sequence, 5, Word::HeartbeatSeen { clock_ms: 0, refused: Vec::new() }).await;
    }

    /// Answers registrations and heartbeats until `enough` heartbeat messages came, and returns the registrations.
    async fn serve(&mut self, enough: usize) -> Vec<Registration> {
        let mut registrations = Vec::new();
        let mut beats = 0;
        while beats < enough {
            let ToCoordinator { sequence, what } = self.heard.recv().await.unwrap();
            match what {
                Report::Register(list) => {
                    let accepted = |node: &Registration| {
                        answer_for(&node.name, Ok(Registered { epoch: 5, leases: Vec::new() }))
                    };
                    let nodes = list.iter().map(accepted).collect();
                    self.answer(sequence, 5, Word::Registered { nodes, heartbeat_interval_ms: 0 }).await;
                    registrations.extend(list);
                }
                Report::Heartbeat(_) => {
                    beats += 1;
                    self.seen(sequence).await;
                }
                Report::WorkloadEnded { .. } => {}
            }
        }
        registrations
    }
}

fn answer_for(node: &str, result: Result<Registered, RegisterFailure>) -> RegisterAnswer {
    RegisterAnswer { node: node.to_owned(), result }
}

fn lease(token: u64, remaining_ms: u64) -> Word {
    Word::Lease { node: "n0".into(), news: news(token, remaining_ms) }
}

fn news(token: u64, remaining_ms: u64) -> LeaseNews {
    let lease = Lease {
        reservation: format!("r-{token:04}"),
        token,
        cpu_millis: 1,
        memory_bytes: 1,
        devices: Vec::new(),
    };
    LeaseNews { lease, remaining_ms: Some(remaining_ms), end_ms: 0, stopping: false }
}

#[tokio::test(start_paused = true)]
async fn a_fleet_registers_over_few_streams_and_comes_back_after_a_break() {
    let mut stage = stage(250);
    let mut status = stage.fleet.as_ref().unwrap().status();
    stage.run();
    let mut sides = Vec::new();
    for _ in 0..3 {
        sides.push(stage.conversation().await);
    }
    let mut registered = 0;
    for side in &mut sides {
        registered += side.serve(2).await.len();
    }
    assert_eq!(registered, 250, "three streams carry them all");
    assert!(status.settled().await);
    assert_eq!((status.registered(), status.refused().len()), (250, 0));

    *stage.dial.shut.lock() = true;
    drop(sides);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(status.registered(), 0);
    let attempts = stage.dial.attempts.lock().len();
    assert!((30..1_000).contains(&attempts), "tries again and again, with pauses: {attempts}");
    *stage.dial.shut.lock() = false;
    let mut side = stage.conversation().await;
    let again = side.serve(1).await;
    assert!(again.iter().all(|node| node.incarnation == 3), "a broken stream is no new incarnation");
    stage.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_lease_ends_on_time_while_no_coordinator_can_be_reached() {
    let mut stage = stage(1);
    let leases = stage.fleet.as_ref().unwrap().leases()[0].1.clone();
    stage.run();
    let mut side = stage.conversation().await;
    side.serve(1).await;
    let clock = TokioClock::start();
    let begun = clock.now();
    side.say(9, lease(8, 10_000)).await;
    side.say(10, lease(10, 30_000)).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(leases.lock().len(), 2);
    *stage.dial.shut.lock() = true;
    drop(side);
    while leases.lock().len() == 2 {
        sleep(Duration::from_millis(10)).await;
    }
    let lived_ms = clock.now().ms_since(begun);
    assert!((9_000..=10_010).contains(&lived_ms), "never later than the ledger thinks: {lived_ms} ms");
    assert!(leases.lock().check(10, TokioClock::start().now()).is_ok());
    stage.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_lapsed_here_is_not_reported_and_the_ledgers_end_is_obeyed() {
    let mut stage = stage(1);
    let leases = stage.fleet.as_ref().unwrap().leases()[0].1.clone();
    stage.run();
    let mut side = stage.conversation().await;
    side.serve(1).await;
    side.say(10, lease(10, 1_500)).await;
    side.say(11, lease(11, 60_000)).await;
    let mut beats_since = 0;
    while beats_since < 3 {
        let ToCoordinator { sequence, what } = side.heard.recv().await.unwrap();
        match what {
            Report::WorkloadEnded { token, .. } => panic!("{token} is the ledger's to end"),
            Report::Heartbeat(_) => side.seen(sequence).await,
            Report::Register(_) => {}
        }
        beats_since += u32::from(leases.lock().len() == 1);
    }
    let (node, reservation, reason) = ("n0".to_owned(), "r-0011".to_owned(), "released".to_owned());
    side.say(12, Word::LeaseEnded { node, reservation, token: 11, reason }).await;
    sleep(Duration::from_millis(1)).await;
    assert!(leases.lock().is_empty());
    stage.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_silent_coordinator_is_left_and_a_node_given_up_registers_again() {
    let mut stage = stage(1);
    let status = stage.fleet.as_ref().unwrap().status();
    stage.run();
    let mut side = stage.conversation().await;
    side.serve(1).await;
    side.say(6, Word::HeartbeatSeen { clock_ms: 0, refused: vec!["n0".into()] }).await;
    assert_eq!(side.serve(1).await.len(), 1, "registers again in the same conversation");
    assert_eq!((status.registered(), status.refused().len()), (1, 0));
    // From here on nothing is answered, though the stream stays open.
    let next = tokio::time::timeout(Duration::from_secs(10), stage.conversation()).await;
    assert!(next.is_ok(), "silence ends a conversation");
    stage.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_refused_node_says_why_and_asks_again_rarely() {
    let mut stage = stage(2);
    let table = stage.fleet.as_ref().unwrap().leases()[0].1.clone();
    let mut status = stage.fleet.as_ref().unwrap().status();
    stage.run();
    let mut side = stage.conversation().await;
    let Some(ToCoordinator { sequence, what: Report::Register(nodes) }) = side.heard.recv().await else {
        panic!("a registration comes first")
    };
    assert_eq!(nodes.len(), 2);
    let failure = RegisterFailure { message: "no such pool".into(), definite: true };
    let leases = vec![news(3, 60_000)];
    let nodes = vec![answer_for("n0", Ok(Registered { epoch: 4, leases })), answer_for("n1", Err(failure))];
    side.answer(sequence, 4, Word::Registered { nodes, heartbeat_interval_ms: 500 }).await;
    assert!(status.settled().await);
    assert_eq!(status.refused(), [("n1".to_owned(), "no such pool".to_owned())]);
    assert_eq!(table.lock().len(), 1, "the answer lists what is alive");
    let begun = tokio::time::Instant::now();
    // One out of turn, which reads the coordinator's clock, and seven at the pace.
    assert_eq!(side.serve(8).await.len(), 0);
    assert!(begun.elapsed() < Duration::from_millis(4_600), "the coordinator's pace, where it is faster");
    assert_eq!(side.serve(2).await.len(), 1, "later, once");
    assert_eq!((status.registered(), status.refused().len()), (2, 0));
    stage.shutdown.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_short_lease_lives_while_it_is_renewed_and_ends_when_it_is_not() {
    const TTL_MS: u64 = 300;
    let mut stage = stage(1);
    let leases = stage.fleet.as_ref().unwrap().leases()[0].1.clone();
    stage.run();
    let mut side = stage.conversation().await;
    let clock = TokioClock::start();
    // The ledger's clock is another one: ahead by an amount that the agent is not told.
    let ledger_ms = |clock: &TokioClock| 1_700_000_000_000 + clock.now().0;
    let mut renew = tokio::time::interval(Duration::from_millis(100));
    let mut is_registered = false;
    let mut renewals = 0;
    // Several heartbeat intervals (1 s) of renewals, each pushed as it is applied.
    while renewals < 45 {
        tokio::select! {
            biased;
            message = side.heard.recv() => match message.unwrap() {
                ToCoordinator { sequence, what: Report::Register(_) } => {
                    let nodes = vec![answer_for("n0", Ok(Registered { epoch: 5, leases: Vec::new() }))];
                    side.answer(sequence, 5, Word::Registered { nodes, heartbeat_interval_ms: 0 }).await;
                }
                ToCoordinator { sequence, what: Report::Heartbeat(_) } => {
                    let clock_ms = ledger_ms(&clock);
                    side.answer(sequence, 5, Word::HeartbeatSeen { clock_ms, refused: Vec::new() }).await;
                    is_registered = true;
                }
                ToCoordinator { what: Report::WorkloadEnded { .. }, .. } => {
                    panic!("ended after {renewals} renewals")
                }
            },
            _ = renew.tick(), if is_registered => {
                let news = LeaseNews { end_ms: ledger_ms(&clock) + TTL_MS, ..news(10, TTL_MS) };
                side.say(10 + renewals, Word::Lease { node: "n0".into(), news }).await;
                renewals += 1;
                sleep(Duration::from_millis(1)).await;
                assert_eq!(leases.lock().len(), 1, "after {renewals} renewals");
            }
        }
    }
    let last = clock.now();
    while !leases.lock().is_empty() {
        sleep(Duration::from_millis(10)).await;
    }
    let lived_ms = clock.now().ms_since(last);
    assert!((TTL_MS - 20..=TTL_MS + 20).contains(&lived_ms), "no renewal, no lease: {lived_ms} ms");
    stage.shutdown.cancel();
}
