//! Several templates of one scaling policy, from ledger version 12 on.

mod fixture;

use fixture::{Fixture, GIB, registration};
use plimsoll_autoscaler::{Behavior, Expander, Policy};
use plimsoll_ledger::limits::SCALE_BACKOFF_MS;
use plimsoll_ledger::{
    CapacityType, Command, IntentStep, LATEST_VERSION, NodeTemplate, Outcome, PolicyObject, Pool, Provider,
    ProviderKind, Reason, Registration, Resting, ScaleDecided, ScalingPolicy, ScalingTarget, WorkTemplate,
};
use plimsoll_types::{Amount, LedgerTime, Resources, Revision};

fn template(name: &str) -> NodeTemplate {
    let offers = WorkTemplate { resources: Resources::new(8_000, 64 * GIB), ..WorkTemplate::default() };
    NodeTemplate { name: name.to_owned(), offers, ..NodeTemplate::default() }
}

fn policy(templates: Vec<NodeTemplate>) -> ScalingPolicy {
    let rules = Policy {
        min: 1,
        max: 6,
        up: Behavior::unlimited(),
        down: Behavior::unlimited(),
        ..Policy::default()
    };
    ScalingPolicy {
        name: "grow".to_owned(),
        target: ScalingTarget::Pool("default".to_owned()),
        rules,
        provider: Some(Provider { kind: ProviderKind::Process, timeout_ms: 5_000, attempts: 3 }),
        templates,
        expander: vec![Expander::Price],
        max_leaving: 3,
        start_within_ms: 30_000,
        ..ScalingPolicy::default()
    }
}

fn put(policy: ScalingPolicy) -> Command {
    let put = vec![PolicyObject::ScalingPolicy(policy)];
    Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }
}

fn open(template: &str) -> Command {
    Command::OpenIntent { policy: "grow".to_owned(), machine: None, template: template.to_owned() }
}

fn fixture(templates: Vec<NodeTemplate>, desired: u64) -> Fixture {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.run(put(policy(templates))), Outcome::Done);
    let decided = Command::SetDesired(ScaleDecided {
        policy: "grow".to_owned(),
        desired,
        computed_from: f.ledger.revision(),
        rule: "waiting".to_owned(),
        inputs: Vec::new(),
    });
    assert_eq!(f.run(decided), Outcome::Done);
    f
}

fn step(f: &mut Fixture, intent: Revision, step: IntentStep) -> Outcome {
    let attempts = f.ledger.intent(intent).expect("it is there").attempts;
    f.run(Command::StepIntent { intent, attempts, step })
}

fn fail(f: &mut Fixture, template: &str) {
    assert_eq!(f.run(open(template)), Outcome::Done);
    let id = f.ledger.revision();
    assert_eq!(step(f, id, IntentStep::Act), Outcome::Done);
    assert_eq!(step(f, id, IntentStep::Failed { detail: "no such zone".to_owned() }), Outcome::Done);
}

fn come(f: &mut Fixture, template: &str, price: &str) -> Revision {
    assert_eq!(f.run(open(template)), Outcome::Done);
    let id = f.ledger.revision();
    assert_eq!(step(f, id, IntentStep::Act), Outcome::Done);
    let name = f.ledger.intent(id).expect("it is there").node.clone();
    let mut node = Registration { name, devices: Vec::new(), ..registration(90, 1) };
    node.labels.insert("price_permille".to_owned(), price.to_owned());
    f.run(Command::RegisterNode(node));
    assert_eq!(step(f, id, IntentStep::Ready), Outcome::Done);
    id
}

fn resting(f: &Fixture) -> Vec<Resting> {
    f.ledger.scaling("grow").expect("it has a state").resting.clone()
}

#[test]
fn before_version_12_a_policy_has_one_template() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 11 });
    let ranked = ScalingPolicy { expander: vec![Expander::Price], ..policy(Vec::new()) };
    for command in [put(policy(vec![template("small")])), put(ranked), open("small")] {
        assert_eq!(command.since_version(), 12);
        assert_eq!(f.refused(command), Reason::UnsupportedVersion);
    }
    let plain = ScalingPolicy { expander: Vec::new(), ..policy(Vec::new()) };
    assert_eq!(put(plain.clone()).since_version(), 6);
    assert_eq!(f.run(put(plain)), Outcome::Done);
    assert_eq!(open("").since_version(), 6);
}

#[test]
fn templates_that_make_no_sense_are_told() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let bad = |change: fn(&mut ScalingPolicy)| {
        let mut policy = policy(vec![template("small"), template("large")]);
        change(&mut policy);
        put(policy)
    };
    let cases: [fn(&mut ScalingPolicy); 7] = [
        |policy| policy.templates[1].name = "small".to_owned(),
        |policy| policy.templates[1].name.clear(),
        |policy| policy.template = template("").offers,
        |policy| policy.templates = vec![template("t"); 17],
        |policy| policy.templates[0].offers.command = vec!["serve".to_owned()],
        |policy| policy.templates[0].price_permille = 1_000_001,
        |policy| {
            drop(policy.templates[0].offers.labels.insert("capacity_type".to_owned(), "lent".to_owned()))
        },
    ];
    for change in cases {
        assert_eq!(f.refused(bad(change)), Reason::InvalidArgument);
    }
}

#[test]
fn a_machine_is_what_its_template_says_and_how_it_is_paid_for() {
    let spot = NodeTemplate {
        capacity_type: Some(CapacityType::Spot),
        price_permille: 350,
        spot_pool: "g5/eu".to_owned(),
        watts: 800,
        ..template("spot")
    };
    let machine = spot.machine();
    let label = |key: &str| machine.labels.get(key).map(String::as_str);
    assert_eq!(label("capacity_type"), Some("spot"));
    assert_eq!((label("price_permille"), label("spot_pool")), (Some("350"), Some("g5/eu")));
    assert_eq!((machine.resources.get("power").0, spot.watts()), (800, 800));
    assert_eq!(template("plain").machine(), template("plain").offers);
}

#[test]
fn the_intent_says_which_template_the_next_leader_asks_for() {
    let mut f = fixture(vec![template("small"), template("large")], 3);
    assert_eq!(f.refused(open("")), Reason::NotFound, "one of the several is meant");
    assert_eq!(f.refused(open("huge")), Reason::NotFound);
    assert_eq!(f.run(open("large")), Outcome::Done);
    let id = f.ledger.revision();
    assert_eq!(f.ledger.intent(id).map(|intent| intent.template.as_str()), Some("large"));
    let lacking = put(policy(vec![template("small")]));
    assert_eq!(f.refused(lacking), Reason::InUse, "a machine of the other is on its way");
    let one = ScalingPolicy { template: template("").offers, expander: Vec::new(), ..policy(Vec::new()) };
    assert_eq!(f.refused(put(one)), Reason::InUse);
    let goes =
        Command::OpenIntent { policy: "grow".to_owned(), machine: Some(id), template: "large".to_owned() };
    assert_eq!(f.refused(goes), Reason::InvalidArgument, "a machine that goes has its own");
    let rebuilt = plimsoll_ledger::Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("it fits");
    assert!(rebuilt.rows().eq(f.ledger.rows()));
}

#[test]
fn a_template_has_no_more_machines_than_it_may() {
    let mut f = fixture(vec![template("small"), NodeTemplate { max: 2, ..template("large") }], 6);
    for _ in 0..2 {
        assert_eq!(f.run(open("large")), Outcome::Done);
    }
    let applied = f.apply(&plimsoll_ledger::Entry::system(open("large")));
    let Outcome::Refused(refusal) = applied.answer.outcome else { panic!("it is one too many") };
    assert_eq!(refusal.reason, Reason::LimitExceeded);
    assert_eq!((refusal.blockers[0].asked, refusal.blockers[0].available), (3, 2));
    // One that failed is none.
    let id = f.ledger.intents().last().expect("there are two").id;
    assert_eq!(step(&mut f, id, IntentStep::Failed { detail: "no".to_owned() }), Outcome::Done);
    f.now_ms += SCALE_BACKOFF_MS.0;
    assert_eq!(f.run(open("large")), Outcome::Done);
    assert_eq!(f.run(open("small")), Outcome::Done);
}

#[test]
fn a_template_that_fails_rests_alone_and_longer_each_time() {
    let mut f = fixture(vec![template("small"), template("large")], 5);
    fail(&mut f, "large");
    let until = |f: &Fixture, after_ms: u64| LedgerTime(f.now_ms + after_ms);
    let rest = Resting { template: "large".to_owned(), failures: 1, retry_at: until(&f, SCALE_BACKOFF_MS.0) };
    assert_eq!(resting(&f), [rest]);
    let state = f.ledger.scaling("grow").expect("it has a state");
    assert_eq!((state.failures, state.retry_at.0), (0, 0), "the policy goes on");
    assert_eq!(f.refused(open("large")), Reason::WrongState);
    assert_eq!(f.run(open("small")), Outcome::Done, "the other may be had");
    f.now_ms += SCALE_BACKOFF_MS.0;
    fail(&mut f, "large");
    assert_eq!((resting(&f)[0].failures, resting(&f)[0].retry_at), (2, until(&f, 2 * SCALE_BACKOFF_MS.0)));
    f.now_ms += 2 * SCALE_BACKOFF_MS.0;
    come(&mut f, "large", "1000");
    assert_eq!(resting(&f), [], "it came");
    fail(&mut f, "large");
    let other = put(policy(vec![template("small"), template("other")]));
    assert_eq!(f.run(other), Outcome::Done);
    assert_eq!(resting(&f), [], "there is no such template any more");
}

#[test]
fn of_machines_that_are_alike_the_dearest_leaves_first() {
    let mut f = fixture(vec![template("small"), template("large")], 4);
    let dear = come(&mut f, "large", "1500");
    let cheap = come(&mut f, "small", "400");
    let same = come(&mut f, "small", "400");
    let policy = f.ledger.scaling_policy("grow").expect("it is there").clone();
    assert_eq!(f.ledger.may_leave(&policy), [dear, same, cheap], "of the others the youngest");
    // By the pool's prices an hour of a machine is more than the label alone.
    let prices = [("cpu".to_owned(), 40_000)].into();
    let pool = Pool { name: "default".to_owned(), prices, ..Pool::default() };
    let priced = Command::ApplyPolicy {
        put: vec![PolicyObject::Pool(pool)],
        delete: Vec::new(),
        if_revision: Revision(0),
    };
    assert_eq!(f.run(priced), Outcome::Done);
    let eight_cores = f.ledger.machine_cost("default", &Resources::new(8_000, 0), 0, 350);
    assert_eq!(eight_cores, 8 * 40_000 * 350 / 1_000);
    assert_eq!(f.ledger.machine_cost("gpu", &Resources::new(8_000, 0), 0, 350), 350);
}

fn budget(watts: u64) -> Command {
    let pool = Pool { name: "default".to_owned(), power_budget_watts: watts, ..Pool::default() };
    Command::ApplyPolicy { put: vec![PolicyObject::Pool(pool)], delete: Vec::new(), if_revision: Revision(0) }
}

#[test]
fn before_version_12_no_pool_has_a_power_budget() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 11 });
    assert_eq!(budget(5_000).since_version(), 12);
    assert_eq!(f.refused(budget(5_000)), Reason::UnsupportedVersion);
    assert_eq!(f.run(budget(0)), Outcome::Done);
}

#[test]
fn no_machine_is_started_that_the_pool_has_no_power_for() {
    let drawing = |name: &str, watts| NodeTemplate { watts, ..template(name) };
    let mut f = fixture(vec![drawing("small", 300), drawing("large", 800), template("silent")], 6);
    let power = |f: &Fixture| f.ledger.power("default").map(|power| (power.committed, power.budget));
    assert_eq!(power(&f), None, "it has no budget");
    assert_eq!(f.run(budget(2_000)), Outcome::Done);
    let mut others = registration(40, 1);
    others.capacity.set("power", Amount(500));
    f.run(Command::RegisterNode(others));
    assert_eq!(power(&f), Some((500, 2_000)), "a node that nobody started counts");
    assert_eq!(f.run(open("large")), Outcome::Done);
    let coming = f.ledger.revision();
    assert_eq!(power(&f), Some((1_300, 2_000)));
    let applied = f.apply(&plimsoll_ledger::Entry::system(open("large")));
    let Outcome::Refused(refusal) = applied.answer.outcome else { panic!("it is too much") };
    assert_eq!(refusal.reason, Reason::LimitExceeded);
    assert_eq!((refusal.blockers[0].asked, refusal.blockers[0].available), (2_100, 2_000));
    assert_eq!(f.run(open("small")), Outcome::Done, "a smaller one fits");
    // Once it is there, what its agent says counts.
    assert_eq!(step(&mut f, coming, IntentStep::Act), Outcome::Done);
    let name = f.ledger.intent(coming).expect("it is there").node.clone();
    let mut node = Registration { name, devices: Vec::new(), ..registration(90, 1) };
    node.capacity.set("power", Amount(750));
    f.run(Command::RegisterNode(node));
    assert_eq!(power(&f), Some((500 + 750 + 300, 2_000)));
    assert_eq!(f.run(open("small")), Outcome::Done);
    assert_eq!(f.refused(open("small")), Reason::LimitExceeded, "1,850 W are taken");
    // What says nothing of it draws nothing, as far as anybody knows.
    assert_eq!(f.run(open("silent")), Outcome::Done);
}

#[test]
fn the_one_template_says_its_power_as_a_resource() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let resources = Resources::new(8_000, 64 * GIB).with("power", 600);
    let one = WorkTemplate { resources, ..WorkTemplate::default() };
    let plain = ScalingPolicy { template: one, expander: Vec::new(), ..policy(Vec::new()) };
    assert_eq!(f.run(put(plain)), Outcome::Done);
    assert_eq!(f.run(budget(1_000)), Outcome::Done);
    let decided = Command::SetDesired(ScaleDecided {
        policy: "grow".to_owned(),
        desired: 4,
        computed_from: f.ledger.revision(),
        rule: "waiting".to_owned(),
        inputs: Vec::new(),
    });
    assert_eq!(f.run(decided), Outcome::Done);
    assert_eq!(f.run(open("")), Outcome::Done);
    assert_eq!(f.refused(open("")), Reason::LimitExceeded);
}
