//! Scaling that acts, from ledger version 6 on.

mod fixture;

use fixture::{Fixture, GIB, active, on, registration, request};
use plimsoll_autoscaler::{Activation, Behavior, Policy};
use plimsoll_ledger::limits::{MAX_FAILED_INTENTS, SCALE_BACKOFF_MS};
use plimsoll_ledger::{
    AdminChange, Command, Entry, Intent, IntentAction, IntentState, IntentStep, LATEST_VERSION, NodeAdmin,
    NodeHealth, Outcome, PolicyName, PolicyObject, Provider, ProviderKind, Reason, Registration, Reservation,
    ScaleDecided, Scaling, ScalingPolicy, ScalingTarget, WorkTemplate,
};
use plimsoll_types::{NodeId, Resources, Revision};
use std::sync::Arc;

const COOLDOWN_MS: u64 = 60_000;

fn policy(min: u64, max: u64) -> ScalingPolicy {
    let behavior = || Behavior { cooldown_ms: COOLDOWN_MS, ..Behavior::unlimited() };
    ScalingPolicy {
        name: "grow".to_owned(),
        target: ScalingTarget::Pool("default".to_owned()),
        rules: Policy { min, max, up: behavior(), down: behavior(), ..Policy::default() },
        provider: Some(Provider { kind: ProviderKind::Process, timeout_ms: 5_000, attempts: 3 }),
        template: WorkTemplate { resources: Resources::new(8_000, 64 * GIB), ..WorkTemplate::default() },
        max_leaving: 1,
        start_within_ms: 30_000,
        ..ScalingPolicy::default()
    }
}

fn put(policy: ScalingPolicy) -> Command {
    let put = vec![PolicyObject::ScalingPolicy(policy)];
    Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }
}

fn fixture(nodes: u32, policy: ScalingPolicy) -> Fixture {
    let mut f = Fixture::new(nodes);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.run(put(policy)), Outcome::Done);
    f
}

fn state(f: &Fixture) -> Arc<Scaling> {
    Arc::clone(f.ledger.scaling("grow").expect("it has a state"))
}

fn decide(f: &Fixture, desired: u64) -> Command {
    Command::SetDesired(ScaleDecided {
        policy: "grow".to_owned(),
        desired,
        computed_from: f.ledger.revision(),
        rule: "waiting".to_owned(),
        inputs: vec!["3 requests wait".to_owned()],
    })
}

fn scale(f: &mut Fixture, desired: u64) -> Outcome {
    let decided = decide(f, desired);
    f.run(decided)
}

fn pin(to: Option<u64>, for_ms: u64) -> Command {
    Command::PinScale { target: ScalingTarget::Pool("default".to_owned()), to, for_ms }
}

fn open(machine: Option<Revision>) -> Command {
    Command::OpenIntent { policy: "grow".to_owned(), machine, template: String::new() }
}

fn only(f: &Fixture) -> Arc<Intent> {
    let all: Vec<_> = f.ledger.intents().cloned().collect();
    assert_eq!(all.len(), 1, "{all:?}");
    Arc::clone(&all[0])
}

fn step(f: &Fixture, intent: Revision, step: IntentStep) -> Command {
    let attempts = f.ledger.intent(intent).expect("it is there").attempts;
    Command::StepIntent { intent, attempts, step }
}

/// A machine that was asked for, started and registered.
fn machine(f: &mut Fixture) -> Arc<Intent> {
    assert_eq!(f.run(open(None)), Outcome::Done);
    let id = f.ledger.revision();
    for what in [IntentStep::Act, IntentStep::Answered { handle: format!("h{}", id.0), node: String::new() }]
    {
        let command = step(f, id, what);
        assert_eq!(f.run(command), Outcome::Done);
    }
    let name = f.ledger.intent(id).expect("it is there").node.clone();
    f.run(Command::RegisterNode(Registration { name, devices: Vec::new(), ..registration(90, 1) }));
    let command = step(f, id, IntentStep::Ready);
    assert_eq!(f.run(command), Outcome::Done);
    Arc::clone(f.ledger.intent(id).expect("it is there"))
}

fn node_of(f: &Fixture, machine: &Intent) -> NodeId {
    f.ledger.node_by_name(&machine.node).expect("it registered").id
}

/// Something that runs on a machine.
fn hold(f: &mut Fixture, machine: &Intent) -> Arc<Reservation> {
    let node = node_of(f, machine);
    f.submit(active(request(1_000)), on(&[node.0]))
}

#[test]
fn before_version_6_nothing_scales() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 5 });
    for command in [put(policy(1, 4)), pin(Some(2), 5_000), open(None), decide(&f, 2)] {
        assert_eq!(command.since_version(), 6);
        assert_eq!(f.refused(command), Reason::UnsupportedVersion);
    }
}

#[test]
fn a_policy_begins_with_what_is_there_within_its_bounds_and_its_bounds_hold_at_once() {
    let mut f = fixture(2, policy(1, 4));
    assert_eq!(state(&f).desired, 2);
    f.run(put(policy(3, 4)));
    assert_eq!((state(&f).desired, state(&f).rule.as_str()), (3, "policy"));
    f.run(put(policy(1, 1)));
    assert_eq!(state(&f).desired, 1);
    let gone = Command::ApplyPolicy {
        put: Vec::new(),
        delete: vec![PolicyName::ScalingPolicy("grow".to_owned())],
        if_revision: Revision(0),
    };
    assert_eq!(f.run(gone), Outcome::Done);
    assert!(f.ledger.scaling("grow").is_none());
}

#[test]
fn a_decision_is_looked_at_again_where_it_counts() {
    let mut f = fixture(1, policy(1, 4));
    let stale = decide(&f, 2);
    f.run(put(policy(1, 3)));
    assert_eq!(f.refused(stale), Reason::RevisionMoved, "the policy is another one by now");
    let too_many = decide(&f, 4);
    assert_eq!(f.refused(too_many), Reason::InvalidArgument);
    assert_eq!(scale(&mut f, 3), Outcome::Done);
    let state_now = state(&f);
    assert_eq!((state_now.desired, state_now.rule.as_str()), (3, "waiting"));
    assert_eq!(state_now.inputs, ["3 requests wait"]);
    let again = decide(&f, 3);
    assert_eq!(f.refused(again), Reason::WrongState, "it wants that already");
    f.now_ms += COOLDOWN_MS - 1;
    let soon = decide(&f, 1);
    assert_eq!(f.refused(soon), Reason::WrongState, "the cooldown counts by ledger time");
    f.now_ms += 1;
    assert_eq!(scale(&mut f, 1), Outcome::Done);
    assert_eq!(state(&f).reversed_at.0, f.now_ms);
}

#[test]
fn a_person_s_word_holds_until_it_ends() {
    let mut f = fixture(1, policy(1, 4));
    assert_eq!(f.refused(pin(Some(5), 10_000)), Reason::InvalidArgument);
    assert_eq!(f.refused(pin(Some(3), 1)), Reason::InvalidArgument);
    let ada = Entry { actor: "ada".to_owned(), ..Entry::system(pin(Some(3), 3_600_000)) };
    assert_eq!(f.apply(&ada).answer.outcome, Outcome::Done);
    assert_eq!(state(&f).desired, 3);
    assert_eq!(state(&f).pin.as_ref().map(|pin| pin.by.as_str()), Some("ada"));
    f.now_ms += 3_599_999;
    let early = decide(&f, 1);
    assert_eq!(f.refused(early), Reason::WrongState);
    f.now_ms += 1;
    assert_eq!(scale(&mut f, 1), Outcome::Done);
    assert_eq!((state(&f).desired, state(&f).pin.clone()), (1, None));
    assert_eq!(f.refused(pin(None, 0)), Reason::WrongState, "there is no such word");
}

#[test]
fn machines_come_as_far_as_they_are_wanted_each_under_its_number() {
    let mut f = fixture(1, policy(1, 4));
    assert_eq!(f.refused(open(None)), Reason::WrongState, "nobody wants one");
    scale(&mut f, 2);
    assert_eq!(f.run(open(None)), Outcome::Done);
    assert_eq!(f.refused(open(None)), Reason::WrongState, "one is on its way");
    let intent = only(&f);
    assert_eq!(intent.id, Revision(f.ledger.revision().0 - 1), "its number is its revision");
    assert_eq!(intent.node, format!("grow-i{}", intent.id.0));
    let early = step(&f, intent.id, IntentStep::Ready);
    assert_eq!(f.refused(early), Reason::WrongState);
    let act = step(&f, intent.id, IntentStep::Act);
    f.run(act.clone());
    // Another leader began the same: what the earlier one says has no effect.
    let act_again = step(&f, intent.id, IntentStep::Act);
    f.run(act_again);
    let late = IntentStep::Failed { detail: "the first call failed".to_owned() };
    assert_eq!(f.refused(Command::StepIntent { intent: intent.id, attempts: 1, step: late }), Reason::Fenced);
    assert_eq!(f.refused(act), Reason::Fenced);
    let unregistered = step(&f, intent.id, IntentStep::Ready);
    assert_eq!(f.refused(unregistered), Reason::WrongState, "no node has that name");
    f.run(Command::RegisterNode(Registration { name: intent.node.clone(), ..registration(90, 1) }));
    let ready = step(&f, intent.id, IntentStep::Ready);
    assert_eq!(f.run(ready), Outcome::Done);
    assert_eq!(only(&f).state, IntentState::Ready);
    let fleet = f.ledger.fleet(&policy(1, 4));
    assert_eq!((fleet.present, fleet.ready, fleet.starting), (2, 2, 0));
}

#[test]
fn a_node_that_holds_something_is_never_removed() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 2);
    let machine = machine(&mut f);
    let held = hold(&mut f, &machine);
    f.now_ms += COOLDOWN_MS;
    scale(&mut f, 1);
    assert_eq!(f.refused(open(Some(machine.id))), Reason::InUse);
    f.run(Command::Release { reservation: held.id, token: held.token });
    assert_eq!(f.run(open(Some(machine.id))), Outcome::Done);
    let removal = f.ledger.revision();
    let node = node_of(&f, &machine);
    // In the same entry nothing new can be put there any more.
    assert!(matches!(f.ledger.node(node).map(|node| &node.admin), Some(NodeAdmin::Cordoned { .. })));
    assert_eq!(f.refused(open(Some(machine.id))), Reason::WrongState, "it leaves already");
    let act = step(&f, removal, IntentStep::Act);
    f.run(act);
    let uncordon = Command::SetNodeAdmin { node, admin: AdminChange::Uncordon };
    assert_eq!(f.refused(uncordon), Reason::InUse, "its provider is at it");
    let ready = step(&f, removal, IntentStep::Ready);
    assert_eq!(f.run(ready), Outcome::Done);
    assert!(f.ledger.node(node).is_none());
    assert_eq!(f.ledger.intents().count(), 0);
}

#[test]
fn an_operator_s_uncordon_keeps_a_machine_that_nobody_has_touched_yet() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 2);
    let machine = machine(&mut f);
    f.now_ms += COOLDOWN_MS;
    scale(&mut f, 1);
    f.run(open(Some(machine.id)));
    let node = node_of(&f, &machine);
    let uncordon = Command::SetNodeAdmin { node, admin: AdminChange::Uncordon };
    assert!(matches!(f.run(uncordon), Outcome::Node(_)));
    assert_eq!(only(&f).action, IntentAction::Start { leaving: None });
}

#[test]
fn with_a_drain_what_runs_has_so_long_and_the_provider_waits_for_it() {
    let draining = ScalingPolicy { drain_ms: 20_000, ..policy(1, 4) };
    let mut f = fixture(1, draining);
    scale(&mut f, 2);
    let machine = machine(&mut f);
    let held = hold(&mut f, &machine);
    f.now_ms += COOLDOWN_MS;
    f.run(Command::Renew { reservation: held.id, token: held.token, ttl_ms: 3_600_000 });
    scale(&mut f, 1);
    assert_eq!(f.run(open(Some(machine.id))), Outcome::Done);
    let removal = f.ledger.revision();
    let act = step(&f, removal, IntentStep::Act);
    assert_eq!(f.refused(act), Reason::InUse);
    f.now_ms += 20_000;
    f.run(Command::Expire { limit: 10 });
    assert!(f.get(held.id).state.is_final(), "the drain's deadline ends what still runs");
    for what in [IntentStep::Act, IntentStep::Ready] {
        let command = step(&f, removal, what);
        assert_eq!(f.run(command), Outcome::Done);
    }
    assert_eq!(f.ledger.nodes().count(), 1);
}

#[test]
fn only_so_many_leave_at_once_but_for_those_that_are_lost() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 4);
    let machines: Vec<_> = (0..3).map(|_| machine(&mut f)).collect();
    f.now_ms += COOLDOWN_MS;
    scale(&mut f, 1);
    assert_eq!(f.run(open(Some(machines[0].id))), Outcome::Done);
    assert_eq!(f.refused(open(Some(machines[1].id))), Reason::LimitExceeded);
    let node = node_of(&f, &machines[1]);
    f.health(node.0, NodeHealth::Fenced);
    assert_eq!(f.run(open(Some(machines[1].id))), Outcome::Done);
    let leaving = f.ledger.fleet(&policy(1, 4));
    assert_eq!((leaving.present, leaving.leaving), (2, 2));
}

#[test]
fn after_a_machine_that_failed_the_next_one_waits_longer_each_time() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 2);
    let mut wait_ms = SCALE_BACKOFF_MS.0;
    for round in 0..12 {
        assert_eq!(f.run(open(None)), Outcome::Done, "round {round}");
        let id = f.ledger.revision();
        let act = step(&f, id, IntentStep::Act);
        f.run(act);
        let failed = step(&f, id, IntentStep::Failed { detail: "no such zone".to_owned() });
        assert_eq!(f.run(failed), Outcome::Done);
        f.now_ms += wait_ms - 1;
        assert_eq!(f.refused(open(None)), Reason::WrongState, "round {round}");
        f.now_ms += 1;
        wait_ms = (wait_ms * 2).min(SCALE_BACKOFF_MS.1);
    }
    assert_eq!(f.ledger.intents().count(), MAX_FAILED_INTENTS, "a few are kept to be looked at");
    machine(&mut f);
    assert_eq!((state(&f).failures, state(&f).retry_at.0), (0, 0));
}

#[test]
fn a_machine_that_comes_after_it_was_given_up_leaves_where_it_is_too_many() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 2);
    f.run(open(None));
    let late = only(&f);
    for what in [IntentStep::Act, IntentStep::Failed { detail: "too late".to_owned() }] {
        let command = step(&f, late.id, what);
        assert_eq!(f.run(command), Outcome::Done);
    }
    f.now_ms += COOLDOWN_MS;
    assert_eq!(f.refused(open(Some(late.id))), Reason::WrongState, "there is nothing to remove");
    f.run(Command::RegisterNode(Registration { name: late.node.clone(), ..registration(90, 1) }));
    assert_eq!(f.refused(open(Some(late.id))), Reason::WrongState, "it is wanted after all");
    scale(&mut f, 1);
    assert_eq!(f.run(open(Some(late.id))), Outcome::Done);
}

#[test]
fn a_node_that_comes_back_while_it_is_removed_takes_no_work() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 2);
    let machine = machine(&mut f);
    let node = node_of(&f, &machine);
    f.run(Command::RemoveNode { node });
    assert_eq!(f.run(open(Some(machine.id))), Outcome::Done, "nothing will come of it any more");
    f.run(Command::RegisterNode(Registration { name: machine.node.clone(), ..registration(90, 2) }));
    let back = f.ledger.node_by_name(&machine.node).expect("it registered");
    assert!(!back.is_eligible());
}

#[test]
fn a_removal_that_fails_gives_the_node_back() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 2);
    let machine = machine(&mut f);
    f.now_ms += COOLDOWN_MS;
    scale(&mut f, 1);
    f.run(open(Some(machine.id)));
    let removal = f.ledger.revision();
    let act = step(&f, removal, IntentStep::Act);
    f.run(act);
    let failed = step(&f, removal, IntentStep::Failed { detail: "the provider is away".to_owned() });
    f.run(failed);
    assert!(f.ledger.node_by_name(&machine.node).is_some_and(|node| node.is_eligible()));
    let kept = f.ledger.intent(machine.id).expect("it is there");
    assert_eq!(kept.action, IntentAction::Start { leaving: None });
}

#[test]
fn one_policy_scales_a_target_and_the_target_stays_while_it_does() {
    let mut f = fixture(1, policy(1, 4));
    let other = ScalingPolicy { name: "other".to_owned(), ..policy(1, 2) };
    assert_eq!(f.refused(put(other)), Reason::InvalidArgument);
    let nowhere = ScalingPolicy {
        name: "other".to_owned(),
        target: ScalingTarget::Service("web".to_owned()),
        ..policy(1, 2)
    };
    assert_eq!(f.refused(put(nowhere)), Reason::ServiceNotFound);
    scale(&mut f, 2);
    f.run(open(None));
    let gone = Command::ApplyPolicy {
        put: Vec::new(),
        delete: vec![PolicyName::ScalingPolicy("grow".to_owned())],
        if_revision: Revision(0),
    };
    assert_eq!(f.refused(gone), Reason::InUse, "a machine is on its way");
}

#[test]
fn one_that_may_sleep_goes_to_zero_without_a_cooldown_of_its_direction() {
    let mut sleepy = policy(1, 4);
    sleepy.rules.activation = Some(Activation { above_milli: Vec::new(), cooldown_ms: 1 });
    let mut f = fixture(1, sleepy);
    scale(&mut f, 2);
    assert_eq!(scale(&mut f, 0), Outcome::Done);
    assert_eq!(state(&f).desired, 0);
}

#[test]
fn a_ledger_s_rows_make_the_same_ledger() {
    let mut f = fixture(1, policy(1, 4));
    scale(&mut f, 3);
    machine(&mut f);
    f.run(open(None));
    let rebuilt = plimsoll_ledger::Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("it fits");
    assert!(rebuilt.rows().eq(f.ledger.rows()));
    let forked = f.ledger.fork().expect("it fits");
    assert_eq!(forked.intents().count(), 2);
}
