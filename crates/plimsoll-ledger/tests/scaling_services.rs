//! Replicas of a service that come and go: from ledger version 12 on nobody is stopped before its clients can know that it leaves.

mod fixture;

use std::sync::Arc;

use fixture::{Fixture, active, on, request, reservation};
use plimsoll_autoscaler::{Behavior, Policy};
use plimsoll_ledger::{
    Announcement, Command, EndpointState, Intent, IntentState, IntentStep, LATEST_VERSION, LoadReport,
    Outcome, PolicyObject, Provider, ProviderKind, Reason, Request, Reservation, ScaleDecided, ScalingPolicy,
    ScalingTarget, Service,
};
use plimsoll_types::Revision;

const DRAIN_MS: u64 = 20_000;

fn policy() -> ScalingPolicy {
    let down = Behavior { cooldown_ms: 1_000, ..Behavior::unlimited() };
    ScalingPolicy {
        name: "grow".to_owned(),
        target: ScalingTarget::Service("web".to_owned()),
        rules: Policy { min: 1, max: 4, up: Behavior::unlimited(), down, ..Policy::default() },
        provider: Some(Provider { kind: ProviderKind::Process, timeout_ms: 5_000, attempts: 3 }),
        max_leaving: 2,
        drain_ms: DRAIN_MS,
        start_within_ms: 30_000,
        ..ScalingPolicy::default()
    }
}

/// A service of two replicas that its scaling policy started.
struct Scaled {
    f: Fixture,
    machines: Vec<Arc<Intent>>,
}

impl Scaled {
    fn new(version: u32) -> Scaled {
        let mut f = Fixture::new(2);
        f.run(Command::Upgrade { to: version });
        let service = Service {
            name: "web".into(),
            pool: "default".into(),
            class: "standard".into(),
            ..Service::default()
        };
        let put = vec![PolicyObject::Service(service), PolicyObject::ScalingPolicy(policy())];
        assert_eq!(
            f.run(Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }),
            Outcome::Done
        );
        let mut scaled = Scaled { f, machines: Vec::new() };
        scaled.want(2);
        for number in 0..2_u16 {
            assert_eq!(scaled.open(None), Outcome::Done);
            let id = scaled.f.ledger.revision();
            scaled.step(id, IntentStep::Act);
            scaled.step(id, IntentStep::Answered { handle: format!("h{}", id.0), node: String::new() });
            scaled.listen(number, &scaled.intent(id).node.clone());
            scaled.step(id, IntentStep::Ready);
            let machine = scaled.intent(id);
            assert_eq!(machine.state, IntentState::Ready);
            scaled.machines.push(machine);
        }
        scaled.f.now_ms += 10_000;
        scaled
    }

    /// A replica of this name listens.
    fn listen(&mut self, number: u16, name: &str) {
        let asked = Request { service: "web".into(), name: name.to_owned(), ..active(request(1_000)) };
        let asked = Request { ttl_ms: 600_000, ..asked };
        let replica = self.f.submit(asked, on(&[u32::from(number)]));
        self.announce(&replica, number, false);
    }

    fn announce(&mut self, replica: &Reservation, number: u16, draining: bool) {
        let address = format!("10.0.0.1:{}", 80 + number);
        let announced =
            Some(Announcement { address, weight_milli: 1_000, draining, ..Announcement::default() });
        let command = Command::SetEndpoint { reservation: replica.id, token: replica.token, announced };
        reservation(self.f.run(command));
    }

    fn want(&mut self, desired: u64) {
        let decided = ScaleDecided {
            policy: "grow".to_owned(),
            desired,
            computed_from: self.f.ledger.revision(),
            rule: "load".to_owned(),
            inputs: Vec::new(),
        };
        assert_eq!(self.f.run(Command::SetDesired(decided)), Outcome::Done);
    }

    fn open(&mut self, machine: Option<Revision>) -> Outcome {
        self.f.run(Command::OpenIntent { policy: "grow".to_owned(), machine, template: String::new() })
    }

    fn intent(&self, id: Revision) -> Arc<Intent> {
        Arc::clone(self.f.ledger.intent(id).expect("it is there"))
    }

    fn command(&self, id: Revision, step: IntentStep) -> Command {
        Command::StepIntent { intent: id, attempts: self.intent(id).attempts, step }
    }

    fn step(&mut self, id: Revision, step: IntentStep) {
        let command = self.command(id, step);
        assert_eq!(self.f.run(command), Outcome::Done);
    }

    /// The replica of the first machine, with its state.
    fn first(&self) -> (Arc<Reservation>, Option<EndpointState>) {
        let replica = self.f.ledger.replica_of(&policy(), &self.machines[0]).expect("it listens");
        (Arc::clone(replica), self.f.ledger.endpoint_state(replica))
    }

    /// The first machine is to leave: the number of the intent.
    fn let_go(&mut self) -> Revision {
        self.want(1);
        let machine = self.machines[0].id;
        assert_eq!(self.open(Some(machine)), Outcome::Done);
        self.f.ledger.revision()
    }

    fn says(&mut self, in_flight: u32, queue_depth: u32) {
        let report = LoadReport {
            reservation: self.first().0.id,
            utilization_permille: 1,
            rate_milli: 0,
            errors_milli: 0,
            in_flight,
            queue_depth,
            latency_us: 1,
            ..LoadReport::default()
        };
        assert_eq!(self.f.run(Command::ReportLoad { reports: vec![report] }), Outcome::Done);
    }
}

#[test]
fn the_entry_that_lets_a_replica_go_takes_it_from_its_clients() {
    let mut scaled = Scaled::new(LATEST_VERSION);
    assert_eq!(scaled.first().1, Some(EndpointState::Serving));
    let before = scaled.f.ledger.endpoints_changed();
    let removal = scaled.let_go();
    assert_eq!(scaled.first().1, Some(EndpointState::Draining));
    assert!(scaled.f.ledger.endpoints_changed() > before, "whoever follows the endpoints is told");
    let fleet = scaled.f.ledger.fleet(&policy());
    assert_eq!((fleet.present, fleet.ready, fleet.leaving), (1, 1, 1), "it is counted once");
    // Whatever it says of itself, it leaves.
    let replica = scaled.first().0;
    scaled.announce(&replica, 0, false);
    assert_eq!(scaled.first().1, Some(EndpointState::Draining));
    let failed = IntentStep::Failed { detail: "the provider is away".to_owned() };
    let before = scaled.f.ledger.endpoints_changed();
    scaled.step(removal, failed);
    assert_eq!(scaled.first().1, Some(EndpointState::Serving), "it stays after all");
    assert!(scaled.f.ledger.endpoints_changed() > before);
}

#[test]
fn it_is_stopped_once_its_clients_know_and_its_requests_are_over() {
    let mut scaled = Scaled::new(LATEST_VERSION);
    scaled.says(2, 0);
    let removal = scaled.let_go();
    let opened_ms = scaled.f.now_ms;
    let act = scaled.command(removal, IntentStep::Act);
    for (after_ms, in_flight, queue_depth) in [(999, 0, 0), (1_000, 1, 0), (DRAIN_MS - 1, 0, 3)] {
        scaled.f.now_ms = opened_ms + after_ms;
        scaled.says(in_flight, queue_depth);
        assert_eq!(scaled.f.refused(act.clone()), Reason::WrongState, "after {after_ms} ms");
    }
    scaled.says(0, 0);
    assert_eq!(scaled.f.run(act), Outcome::Done);
    let mut busy = Scaled::new(LATEST_VERSION);
    let removal = busy.let_go();
    busy.says(1, 1);
    busy.f.now_ms += DRAIN_MS;
    busy.step(removal, IntentStep::Act);
    busy.step(removal, IntentStep::Ready);
    assert_eq!(busy.f.ledger.intents().count(), 1, "it has had its time");
}

#[test]
fn a_replica_that_is_gone_is_waited_for_by_nobody() {
    let mut scaled = Scaled::new(LATEST_VERSION);
    let removal = scaled.let_go();
    let (replica, _) = scaled.first();
    scaled.f.run(Command::Release { reservation: replica.id, token: replica.token });
    scaled.step(removal, IntentStep::Act);
}

#[test]
fn before_version_12_it_is_as_it_was() {
    let mut scaled = Scaled::new(11);
    scaled.says(1, 0);
    let removal = scaled.let_go();
    assert_eq!(scaled.first().1, Some(EndpointState::Serving));
    scaled.step(removal, IntentStep::Act);
}
