//! Random histories of scaling: whatever leaders, providers, operators and holders do, and in whatever order.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};

use fixture::{Fixture, GIB, active, on, registration, request};
use plimsoll_autoscaler::{Behavior, Policy};
use plimsoll_ledger::{
    AdminChange, Command, Event, EventObject, IntentAction, IntentState, IntentStep, LATEST_VERSION,
    NodeHealth, Outcome, PolicyObject, Provider, ProviderKind, Registration, ScaleDecided, ScalingPolicy,
    ScalingTarget, Verdict, WorkTemplate,
};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Resources, Revision};
use proptest::collection::vec;
use proptest::prelude::*;

const UP_MS: u64 = 5_000;
const DOWN_MS: u64 = 20_000;

/// Small numbers that say what is done, and to which of those that there are.
#[derive(Clone, Copy, Debug)]
struct Move {
    what: u8,
    which: u8,
    wait_ms: u16,
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one =
        (0..20u8, any::<u8>(), 0..4_000u16).prop_map(|(what, which, wait_ms)| Move { what, which, wait_ms });
    vec(one, 1..120)
}

fn policy(max: u64, drain_ms: u64) -> ScalingPolicy {
    let behavior = |cooldown_ms| Behavior { cooldown_ms, ..Behavior::unlimited() };
    ScalingPolicy {
        name: "grow".to_owned(),
        target: ScalingTarget::Pool("default".to_owned()),
        rules: Policy { min: 1, max, up: behavior(UP_MS), down: behavior(DOWN_MS), ..Policy::default() },
        provider: Some(Provider { kind: ProviderKind::Process, timeout_ms: 5_000, attempts: 3 }),
        template: WorkTemplate { resources: Resources::new(8_000, 64 * GIB), ..WorkTemplate::default() },
        max_leaving: 2,
        drain_ms,
        start_within_ms: 30_000,
        ..ScalingPolicy::default()
    }
}

fn put(policy: ScalingPolicy) -> Command {
    let put = vec![PolicyObject::ScalingPolicy(policy)];
    Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }
}

/// One of those that there are; `None` where there are none.
fn pick<T>(all: Vec<T>, which: u8) -> Option<T> {
    let count = all.len();
    if count == 0 { None } else { all.into_iter().nth(usize::from(which) % count) }
}

/// The command that a move stands for; `None` where there is nothing to do it to.
fn command(f: &Fixture, one: Move) -> Option<Command> {
    let which = one.which;
    let intents = |is: fn(IntentState) -> bool| {
        f.ledger
            .intents()
            .filter(|intent| is(intent.state))
            .map(|intent| intent.id)
            .collect::<Vec<Revision>>()
    };
    let step = |intent: Revision, step: IntentStep| {
        // Now and then what an earlier leader knew.
        let attempts = f.ledger.intent(intent)?.attempts.saturating_sub(u32::from(which == 7));
        Some(Command::StepIntent { intent, attempts, step })
    };
    let any_state: fn(IntentState) -> bool = |_| true;
    let acting: fn(IntentState) -> bool = |state| state == IntentState::Acting;
    Some(match one.what {
        0..=2 => Command::SetDesired(ScaleDecided {
            policy: "grow".to_owned(),
            desired: u64::from(which % 7),
            computed_from: Revision(f.ledger.revision().0 - u64::from(which == 9)),
            rule: "waiting".to_owned(),
            inputs: Vec::new(),
        }),
        3..=5 => Command::OpenIntent { policy: "grow".to_owned(), machine: None, template: String::new() },
        6..=7 => {
            let machine = pick(intents(any_state), which)?;
            Command::OpenIntent { policy: "grow".to_owned(), machine: Some(machine), template: String::new() }
        }
        8 => step(pick(intents(any_state), which)?, IntentStep::Act)?,
        9 => {
            let handle = format!("vm-{which}");
            step(pick(intents(acting), which)?, IntentStep::Answered { handle, node: String::new() })?
        }
        10..=11 => step(pick(intents(acting), which)?, IntentStep::Ready)?,
        12 => step(pick(intents(any_state), which)?, IntentStep::Failed { detail: "no room".to_owned() })?,
        13 => {
            let later = IntentStep::Later { detail: "busy".to_owned(), after_ms: 1_000 };
            step(pick(intents(acting), which)?, later)?
        }
        14..=15 => {
            let coming =
                f.ledger.intents().filter(|intent| intent.starts()).map(|intent| intent.node.clone());
            let name = pick(coming.collect(), which)?;
            Command::RegisterNode(Registration { name, devices: Vec::new(), ..registration(90, 1) })
        }
        16..=17 => {
            let node = pick(f.ledger.nodes().map(|node| node.id).collect(), which)?;
            Command::Submit { request: active(request(1_000)), verdict: Verdict::Place(on(&[node.0])) }
        }
        18 => {
            let holders: Vec<ReservationId> =
                f.ledger.reservations().filter(|one| !one.state.is_final()).map(|one| one.id).collect();
            Command::Cancel { reservation: pick(holders, which)? }
        }
        _ => {
            let node = pick(f.ledger.nodes().cloned().collect(), which)?;
            let health =
                if node.health == NodeHealth::Available { NodeHealth::Failed } else { NodeHealth::Fenced };
            match which % 5 {
                0 => Command::SetNodeHealth { node: node.id, epoch: node.epoch, health },
                1 => Command::RemoveNode { node: node.id },
                2 => put(policy(u64::from(which % 6) + 1, u64::from(which % 2) * 10_000)),
                3 => Command::Expire { limit: 100 },
                _ => Command::SetNodeAdmin { node: node.id, admin: AdminChange::Uncordon },
            }
        }
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]
    #[test]
    fn nothing_held_is_removed_no_machine_leaves_twice_and_a_direction_rests(
        moves in moves(),
        drains in any::<bool>(),
    ) {
        let mut f = Fixture::new(1);
        f.run(Command::Upgrade { to: LATEST_VERSION });
        f.run(put(policy(5, if drains { 10_000 } else { 0 })));
        let mut decided: Vec<(LedgerTime, i64)> = Vec::new();
        for one in moves {
            f.now_ms += u64::from(one.wait_ms);
            let Some(command) = command(&f, one) else { continue };
            let held: BTreeSet<NodeId> =
                f.ledger.nodes().map(|node| node.id).filter(|node| f.ledger.holders(*node).next().is_some()).collect();
            let before = f.ledger.scaling("grow").map_or(0, |state| state.desired);
            // The fixture holds every invariant against each entry, I20 among them.
            let applied = f.apply(&plimsoll_ledger::Entry::system(command.clone()));
            for event in &applied.events {
                if let EventObject::NodeRemoved(node, name) = &event.object {
                    prop_assert!(!held.contains(node), "{name} was removed with something on it by {command:?}");
                }
            }
            let mut leaving: BTreeMap<Revision, u32> = BTreeMap::new();
            for intent in f.ledger.intents().filter(|intent| intent.is_open()) {
                if let IntentAction::Remove { machine } = intent.action {
                    *leaving.entry(machine).or_default() += 1;
                }
            }
            prop_assert!(leaving.values().all(|count| *count == 1), "{leaving:?}");
            let is_decision = matches!(command, Command::SetDesired(_)) && applied.answer.outcome == Outcome::Done;
            let after = f.ledger.scaling("grow").map_or(0, |state| state.desired);
            let moved = i64::try_from(after).unwrap_or(0) - i64::try_from(before).unwrap_or(0);
            if is_decision {
                prop_assert!(moved != 0);
                if let Some((at, last)) = decided.last()
                    && (*last > 0) != (moved > 0)
                {
                    let cooldown = if moved > 0 { UP_MS } else { DOWN_MS };
                    prop_assert!(f.now_ms >= at.0 + cooldown, "it turned round {} ms after", f.now_ms - at.0);
                }
                decided.push((LedgerTime(f.now_ms), moved));
            }
            prop_assert!(events_name_their_rule(&applied.events));
        }
    }
}

/// What history and watchers go by.
fn events_name_their_rule(events: &[Event]) -> bool {
    events.iter().all(|event| !event.rule.is_empty())
}
