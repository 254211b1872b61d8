//! Random histories on the real ledger and on the model of `docs/semantics.md`, compared after every command; the
//! invariants are checked after every command too, and the rows make the same ledger again.

mod histories;
mod model;
mod rivals;

use std::collections::BTreeMap;
use std::sync::Arc;

use histories::entry::entry;
use histories::fleet::{layout, registration};
use histories::placing::{gang_apart, instance_at, replica, small_and_short, too_much, waits_in};
use histories::policy::{limits, policy, queues, scaling, service};
use histories::step::{Step, step};
use model::contention::Episode;
use model::scaling::{Stand, Wanted};
use model::{Gone, Model, came};
use plimsoll_ledger::{
    Command, DeviceGrant, Entry, IntentAction, IntentState, LATEST_VERSION, Ledger, RemovedNode, Request,
    RowPlace, Stamp, TouchedRow, Verdict,
};
use plimsoll_types::{LedgerTime, Revision};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

/// Everything that can be seen of both, side by side.
fn compare(ledger: &Ledger, model: &Model) -> Result<(), TestCaseError> {
    prop_assert_eq!((ledger.revision().0, ledger.clock().0), (model.revision, model.clock));
    let ids: Vec<u64> = ledger.reservations().map(|r| r.id.0).collect();
    prop_assert_eq!(ids, model.reservations.keys().copied().collect::<Vec<_>>());
    for r in ledger.reservations() {
        let m = &model.reservations[&r.id.0];
        let members: Vec<(u32, Vec<DeviceGrant>)> =
            r.members.iter().map(|x| (x.node.0, x.devices.clone())).collect();
        prop_assert_eq!(
            (r.state, r.resume_state, r.token.0, r.priority, r.ttl_ms, r.deadline.0, r.hard_end.0),
            (m.state, m.resume, m.token, m.priority, m.ttl_ms, m.deadline, m.hard_end),
            "{:?}",
            r
        );
        prop_assert_eq!(
            (&r.amounts, members, r.ended_at.0, r.end_reason),
            (&m.amounts, m.members.clone(), m.ended_at, m.end)
        );
        let preempted = r.preempted().map(|p| (p.by.0, p.rule, p.at.0, p.grace_ms));
        prop_assert_eq!((r.granted_at.0, preempted), (m.granted_at, m.preempted));
        prop_assert_eq!((r.request.qos, &r.request.burst), (m.request.qos, &m.request.burst));
        prop_assert_eq!(r.aside.is_some(), m.aside, "{:?}", r);
        prop_assert!(
            !r.is_waiting() || *r.request == m.request,
            "{:?} asks otherwise than {:?}",
            r,
            m.request
        );
        let repair = r.repair().map(|repair| (repair.since.0, repair.until.0, repair.members));
        let tokens: Vec<u64> = r.member_tokens().iter().map(|token| token.0).collect();
        prop_assert_eq!((repair, tokens), (m.repair, m.tokens.clone()), "{:?}", r);
        prop_assert_eq!(r.cost_micros, m.cost, "{:?}", r);
        let endpoint = r.endpoint.as_ref().map(|known| (known.announced.clone(), known.since.0));
        prop_assert_eq!(&endpoint, &m.endpoint, "{:?}", r);
        let load = ledger.load(r.id).map(|load| (load.report.clone(), load.at.0));
        prop_assert_eq!(load, model.loads.get(&r.id.0).cloned());
    }
    let episodes: BTreeMap<u64, Episode> =
        ledger.contentions().map(|one| (one.id.0, Episode::of(one))).collect();
    prop_assert_eq!(episodes, model.contentions.clone());
    prop_assert_eq!(ledger.meta().version, model.version);
    let services: Vec<&str> = ledger.services().map(|service| service.name.as_str()).collect();
    prop_assert_eq!(services, model.services.keys().map(String::as_str).collect::<Vec<_>>());
    for policy in ledger.scaling_policies() {
        let (state, wish) =
            (ledger.scaling(&policy.name).expect("each has one"), &model.wishes[&policy.name]);
        let pin = state.pin.as_ref().map(|pin| (pin.to, pin.until.0));
        prop_assert_eq!(
            (state.desired, state.changed_at.0, state.reversed_at.0, pin, state.failures, state.retry_at.0),
            (wish.desired, wish.changed_at, wish.reversed_at, wish.pin, wish.failures, wish.retry_at)
        );
        let rests: BTreeMap<String, (u32, u64)> =
            state.resting.iter().map(|one| (one.template.clone(), (one.failures, one.retry_at.0))).collect();
        prop_assert_eq!(rests, wish.rests.clone());
    }
    let wanted = |intent: &Arc<plimsoll_ledger::Intent>| {
        let removes = match intent.action {
            IntentAction::Start { .. } => None,
            IntentAction::Remove { machine } => Some(machine.0),
        };
        let stand = match intent.state {
            IntentState::Wanted => Stand::Wanted,
            IntentState::Acting => Stand::Acting,
            IntentState::Ready => Stand::Ready,
            IntentState::Failed => Stand::Failed,
        };
        let (policy, node, attempts) = (intent.policy.clone(), intent.node.clone(), intent.attempts);
        let (not_before, deadline) = (intent.not_before.0, intent.deadline.0);
        let template = intent.template.clone();
        (intent.id.0, Wanted { policy, removes, node, template, stand, attempts, not_before, deadline })
    };
    prop_assert_eq!(ledger.intents().map(wanted).collect::<BTreeMap<_, _>>(), model.intents.clone());
    let gone = |node: &Arc<RemovedNode>| {
        let uuids = node.devices.iter().map(|device| device.uuid.clone()).collect();
        (node.id.0, Gone { name: node.name.clone(), uuids, at: node.removed_at.0 })
    };
    prop_assert_eq!(ledger.removed_nodes().map(gone).collect::<BTreeMap<_, _>>(), model.removed.clone());
    let nodes: Vec<u32> = ledger.nodes().map(|n| n.id.0).collect();
    prop_assert_eq!(nodes, model.nodes.keys().copied().collect::<Vec<_>>());
    for n in ledger.nodes() {
        let m = &model.nodes[&n.id.0];
        let fence_pending: Vec<u64> = n.fence_pending.iter().map(|p| p.reservation.0).collect();
        let pending: Vec<u64> = m.pending.iter().map(|(id, ..)| *id).collect();
        prop_assert_eq!((n.epoch.0, &n.pool, n.health, fence_pending), (m.epoch, &m.pool, m.health, pending));
        let lent = n.moved.as_ref().map(|moved| (moved.home.as_str(), moved.at.0));
        prop_assert_eq!(lent, m.lent.as_ref().map(|lent| (lent.home.as_str(), lent.at)), "{:?}", n);
        prop_assert_eq!((&n.allocatable, &n.registration.devices), (&m.allocatable, &m.reg.devices));
        let interruption = n.interruption.map(|known| (known.noticed_at.0, known.deadline.0));
        prop_assert_eq!((&n.registration.labels, interruption), (&m.reg.labels, m.interruption));
        for name in ["cpu", "memory", "license/x"] {
            let used = ledger.usage(n.id).expect("the node is there").used.get(name).0;
            prop_assert_eq!(used, model.used(n.id.0, name), "{} of {}", name, n.name());
        }
    }
    for pool in ["default", "gpu"] {
        prop_assert_eq!(ledger.pending(pool).map(|id| id.0).collect::<Vec<_>>(), model.queue(pool));
    }
    Ok(())
}

fn cases() -> u32 {
    std::env::var("PLIMSOLL_CASES").ok().and_then(|text| text.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_is_what_the_page_says(steps in steps()) {
        history(&steps)?;
    }
}

/// What happens at least so often in 400 histories of a fixed seed: about half of what there is.
const MET: [(&str, u64); 8] = [
    ("bucket forgotten", 48),
    ("budget exhausted", 133),
    ("more tokens than a burst", 43),
    ("request denied", 69),
    ("tokens denied", 69),
    ("tokens taken", 82),
    ("grant that cost", 70),
    ("limit exceeded", 40),
];

/// The property above would hold where nothing is ever reached.
#[test]
fn every_rule_of_usage_is_met_by_somebody() {
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut met: BTreeMap<&str, u64> = BTreeMap::new();
    for _ in 0..400 {
        let steps = steps().new_tree(&mut runner).expect("it makes histories").current();
        let model = history(&steps).expect("the ledger is what the page says");
        for (what, times) in model.met {
            *met.entry(what).or_default() += times;
        }
    }
    for (what, least) in MET {
        let times = met.get(what).copied().unwrap_or_default();
        assert!(times >= least, "{what}: {times} of {least} in {met:?}");
    }
}

fn steps() -> impl Strategy<Value = Vec<(Step, u64)>> {
    prop::collection::vec((step(), 0u64..4_000), 1..120)
}

/// A history on both, and the model as it is in the end.
fn history(steps: &[(Step, u64)]) -> Result<Model, TestCaseError> {
    let (mut ledger, mut model) = (Ledger::new(), Model::new());
    let mut now_ms = 1_000_000_000;
    for index in 0..3 {
        let entry = Entry::system(Command::RegisterNode(registration(index, 1, 8_000, 2)));
        run(&mut ledger, &mut model, now_ms, &entry)?;
    }
    // Half of the histories begin under the newest rules, the others come to them by chance.
    if steps.len().is_multiple_of(2) {
        run(&mut ledger, &mut model, now_ms, &Entry::system(Command::Upgrade { to: LATEST_VERSION }))?;
        let mut put = if steps.len().is_multiple_of(4) { queues() } else { Vec::new() };
        if steps.len().is_multiple_of(8) {
            put.extend(limits(40_000));
        }
        put.push(service("web", "default", "standard"));
        if steps.len().is_multiple_of(3) {
            put.push(scaling("grow", "default", 1, 5, if steps.len().is_multiple_of(6) { 4_000 } else { 0 }));
        }
        let command = Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) };
        run(&mut ledger, &mut model, now_ms, &Entry::system(command))?;
        if steps.len().is_multiple_of(8) {
            // Faster than the rates allow, and again a little later.
            for (tokens, pause_ms) in [(3, 0), (3, 0), (6, 500), (2, 1_834), (1, 1), (4, 9_000)] {
                now_ms += pause_ms;
                let take = Step::Take { which: 5, who: 0, tokens };
                let take = self::entry(&ledger, &take);
                run(&mut ledger, &mut model, now_ms, &take)?;
                let verdict = Verdict::Blocked(Vec::new());
                let request = Request { max_duration_ms: 1_000, ..waits_in("speech") };
                let submit = Command::Submit { request, verdict };
                run(&mut ledger, &mut model, now_ms, &Entry::system(submit))?;
            }
            // More at a time than a user may have, and what the first of them cost.
            for _ in 0..6 {
                now_ms += 700;
                let submit = Entry::system(small_and_short(&ledger));
                run(&mut ledger, &mut model, now_ms, &submit)?;
            }
            now_ms += 9_000;
            run(&mut ledger, &mut model, now_ms, &Entry::system(Command::Expire { limit: 3 }))?;
        }
        let entry = Entry::system(replica(&ledger));
        run(&mut ledger, &mut model, now_ms, &entry)?;
        let here = Step::Endpoint { pick: 1, right: true, port: 0, draining: false };
        let gone = Step::Release(0, true);
        for step in if steps.len().is_multiple_of(3) { vec![here, gone] } else { vec![here] } {
            let entry = self::entry(&ledger, &step);
            run(&mut ledger, &mut model, now_ms, &entry)?;
        }
    }
    if steps.len() % 6 == 4 {
        // Somebody waits for more than there is, so that contention is there for most of the history.
        let put = policy(45 + (steps.len() / 6 % 3) as u8).0;
        let policy = Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) };
        let observe =
            || Command::ObserveContention { pool: "default".to_owned(), resource: "cpu".to_owned() };
        let submit = Command::Submit { request: too_much(), verdict: Verdict::Blocked(Vec::new()) };
        for (command, pause_ms) in [(policy, 0), (submit, 0), (observe(), 11_000), (observe(), 20_000)] {
            now_ms += pause_ms;
            run(&mut ledger, &mut model, now_ms, &Entry::system(command))?;
        }
        let waiting = ledger.pending("default").next().filter(|_| steps.len() % 12 == 4);
        if let Some(reservation) = waiting {
            let cancel = Command::Cancel { reservation };
            // Not before it has lasted.
            for (command, pause_ms) in [(cancel, 0), (observe(), 1_000), (observe(), 60_000)] {
                now_ms += pause_ms;
                run(&mut ledger, &mut model, now_ms, &Entry::system(command))?;
            }
        }
    }
    if steps.len() % 10 >= 6 && steps.len().is_multiple_of(2) {
        // More wait than a queue has room for, some of a higher class.
        let put = policy(63 + (steps.len() / 10 % 2) as u8).0;
        let policy = Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) };
        run(&mut ledger, &mut model, now_ms, &Entry::system(policy))?;
        for number in 0..6 {
            let class = if number % 4 == 3 { "critical" } else { "standard" };
            let request = Request { class: class.to_owned(), ..waits_in("speech") };
            let command = Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) };
            let request_id = if number < 3 { format!("key-{number}") } else { String::new() };
            let entry = Entry { request_id, ..Entry::system(command) };
            run(&mut ledger, &mut model, now_ms, &entry)?;
        }
        let entry = self::entry(&ledger, &Step::SetAside(2, true));
        run(&mut ledger, &mut model, now_ms, &entry)?;
    }
    if steps.len() % 4 == 2 {
        let mut cut = registration(0, 1, 8_000, 2);
        cut.devices[0].mig = layout(0);
        run(&mut ledger, &mut model, now_ms, &Entry::system(Command::RegisterNode(cut)))?;
        // On the same slice in half of them, side by side in the others.
        for start in [0, (steps.len() / 4 % 2) as u8] {
            let entry = Entry::system(instance_at(&ledger, start));
            run(&mut ledger, &mut model, now_ms, &entry)?;
        }
    }
    if steps.len() % 3 == 1 {
        let entry = Entry::system(gang_apart(&ledger));
        run(&mut ledger, &mut model, now_ms, &entry)?;
        if steps.len() % 9 == 1 {
            // A new leader gives it a full length: nothing ends when the first one is over, and the slack on it.
            now_ms += 2_400_000;
            run(&mut ledger, &mut model, now_ms, &Entry::system(Command::BecomeLeader { leader: 1 }))?;
            now_ms += 2_000_000;
            run(&mut ledger, &mut model, now_ms, &Entry::system(Command::Expire { limit: 10 }))?;
        }
    }
    for (step, pause_ms) in steps {
        now_ms += pause_ms;
        // Now and then a jump over retention times, so that forgetting happens too.
        if *pause_ms == 3_999 {
            now_ms += 25 * 3_600_000;
        }
        // And a leader whose clock is behind that of the one before it.
        let proposed_ms = if pause_ms % 16 == 7 { now_ms - 10_000 } else { now_ms };
        let entry = entry(&ledger, step);
        run(&mut ledger, &mut model, proposed_ms, &entry)?;
    }
    let rebuilt = Ledger::from_rows(ledger.rows().map(|(_, row)| row)).expect("its own rows");
    prop_assert!(rebuilt.rows().eq(ledger.rows()));
    Ok(model)
}

fn run(ledger: &mut Ledger, model: &mut Model, now_ms: u64, entry: &Entry) -> Result<(), TestCaseError> {
    let placed =
        |ledger: &Ledger| ledger.rows().map(|(_, row)| (row.place(), row)).collect::<BTreeMap<_, _>>();
    let before = placed(ledger);
    let blockers = ledger.reservations().map(|r| (r.id.0, r.blockers.clone())).collect();
    let revision = Revision(ledger.revision().0 + 1);
    ledger.clear_touched();
    let stamp = Stamp { revision, proposed_at: LedgerTime(now_ms) };
    let tried = ledger.excerpt(entry).apply(stamp, entry);
    let applied = ledger.apply(stamp, entry);
    prop_assert_eq!(&tried.answer, &applied.answer, "an excerpt answers otherwise to {:?}", entry);
    model.blockers = blockers;
    let (expected, cited) = model.step(now_ms, entry);
    prop_assert_eq!(
        (came(&applied.answer.outcome), applied.answer.revision.0),
        (expected, cited),
        "{:?}",
        entry
    );
    compare(ledger, model)?;
    prop_assert_eq!(ledger.check_invariants(), Vec::new(), "after {:?}", entry);
    prop_assert_eq!(ledger.take_violations(), Vec::new(), "while applying {:?}", entry);
    // Rows that are not named as touched are as they were.
    let touched = ledger.take_rows();
    let mut patched = before;
    for TouchedRow { place, row, .. } in touched {
        // Bodies are of the store alone.
        if matches!(place, RowPlace::Body(_)) {
            continue;
        }
        match row {
            Some(row) => drop(patched.insert(place, row)),
            None => drop(patched.remove(&place)),
        }
    }
    prop_assert!(patched == placed(ledger), "a changed row was not touched by {:?}", entry);
    Ok(())
}
