//! Administrators of queues: who may change what, and that nobody can give themselves more than they were given.

mod fixture;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use fixture::{Fixture, active, on, request, reservation};
use plimsoll_ledger::{
    Class, Command, Entry, LATEST_VERSION, Ledger, Measure, Meter, Outcome, PolicyName, PolicyObject, Pool,
    Queue, Quota, QuotaPolicy, Reason, Refusal, Request, Reset, Scope, Service, State, Verdict,
};
use plimsoll_types::{Amount, Revision};
use proptest::prelude::*;

fn queue(name: &str, parent: &str, cpu: (u64, u64, Option<u64>), admins: &[&str]) -> Queue {
    let (guaranteed, nominal, limit) = cpu;
    let quota = Quota { guaranteed: Amount(guaranteed), nominal: Amount(nominal), limit: limit.map(Amount) };
    let of_pool = BTreeMap::from([("cpu".to_owned(), quota)]);
    Queue {
        name: name.into(),
        parent: parent.into(),
        quotas: BTreeMap::from([("default".to_owned(), of_pool)]),
        admins: admins.iter().map(|admin| (*admin).to_owned()).collect(),
        ..Queue::default()
    }
}

/// org, administered by ops, with vision (ada's, and that of those whose names begin with cv-) and speech (bob's) below it; under vision the queue cv, which grace
/// administers.
fn world() -> Fixture {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let queues = [
        queue("org", "", (0, 4_000, None), &["ops"]),
        queue("vision", "org", (1_000, 6_000, Some(8_000)), &["ada", "cv-*"]),
        queue("cv", "vision", (0, 1_000, None), &["grace"]),
        queue("speech", "org", (0, 2_000, None), &["bob"]),
    ];
    let put = queues.map(PolicyObject::Queue).to_vec();
    assert_eq!(f.run(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) }), Outcome::Done);
    f
}

fn by(f: &mut Fixture, actor: &str, command: Command) -> Outcome {
    f.apply(&Entry { actor: actor.to_owned(), ..Entry::system(command) }).answer.outcome
}

fn change(put: Vec<PolicyObject>, delete: Vec<PolicyName>) -> Command {
    Command::ApplyPolicy { put, delete, if_revision: Revision(0) }
}

/// Subjects of what is denied; none where it was done.
fn denied(f: &mut Fixture, actor: &str, put: Vec<Queue>, delete: &[&str]) -> Vec<String> {
    let delete = delete.iter().map(|name| PolicyName::Queue((*name).to_owned())).collect();
    denied_change(f, actor, change(put.into_iter().map(PolicyObject::Queue).collect(), delete))
}

fn denied_change(f: &mut Fixture, actor: &str, command: Command) -> Vec<String> {
    match by(f, actor, command) {
        Outcome::Done => Vec::new(),
        Outcome::Refused(Refusal { reason: Reason::PermissionDenied, blockers }) => {
            blockers.into_iter().map(|blocker| blocker.subject).collect()
        }
        other => panic!("{other:?}"),
    }
}

fn now(f: &Fixture, name: &str) -> Queue {
    Queue::clone(f.ledger.queue(name).expect("there"))
}

#[test]
fn a_team_divides_what_it_has_among_those_below_it() {
    let mut f = world();
    // Two of its six cores go to a new queue, in one change.
    let less = Queue {
        quotas: queue("vision", "org", (1_000, 4_000, Some(8_000)), &[]).quotas,
        ..now(&f, "vision")
    };
    let lab = queue("lab", "vision", (0, 2_000, None), &["lin"]);
    assert_eq!(denied(&mut f, "ada", vec![less, lab], &[]), Vec::<String>::new());
    assert_eq!(now(&f, "lab").admins, ["lin"]);
    // What is there once is not there twice.
    let more = queue("more", "vision", (0, 1, None), &[]);
    let words = ["nominal cpu of pool default in queue vision and below, by ada"];
    assert_eq!(denied(&mut f, "ada", vec![more.clone()], &[]), words);
    // By whoever administers what is above, also by a pattern.
    assert_eq!(denied(&mut f, "ops", vec![more], &[]), Vec::<String>::new());
    assert_eq!(
        denied(&mut f, "cv-7", vec![queue("idle", "vision", (0, 0, None), &[])], &[]),
        Vec::<String>::new()
    );
    assert_eq!(denied(&mut f, "ada", vec![], &["more"]), Vec::<String>::new());
}

#[test]
fn nobody_changes_what_was_given_to_them_or_what_is_not_theirs() {
    let mut f = world();
    let vision = now(&f, "vision");
    let quotas = |cpu| queue("vision", "org", cpu, &[]).quotas;
    for (what, own) in [
        ("more of its own", Queue { quotas: quotas((1_000, 7_000, Some(8_000))), ..vision.clone() }),
        ("a wider limit", Queue { quotas: quotas((1_000, 6_000, Some(9_000))), ..vision.clone() }),
        ("no limit", Queue { quotas: BTreeMap::new(), ..vision.clone() }),
        ("more weight", Queue { weight_milli: 2_000, ..vision.clone() }),
        ("another parent", Queue { parent: String::new(), ..vision.clone() }),
        ("a longer queue", Queue { max_pending: 7, ..vision.clone() }),
        ("other administrators", Queue { admins: vec!["ada".into()], ..vision }),
    ] {
        assert_eq!(denied(&mut f, "ada", vec![own], &[])[0], "queue vision, by ada", "{what}");
    }
    // Of others, of those above, and beside all of them.
    let free = queue("free", "", (0, 100_000, None), &["ada"]);
    for (put, delete, words) in [
        (vec![Queue { weight_milli: 1, ..now(&f, "speech") }], vec![], "queue speech, by ada"),
        (vec![queue("x", "org", (0, 0, None), &[])], vec![], "queue x, by ada"),
        (vec![free.clone()], vec![], "queue free, by ada"),
        (vec![free, queue("below", "free", (0, 0, None), &[])], vec![], "queue free, by ada"),
        (vec![Queue { admins: vec!["ada".into()], ..now(&f, "org") }], vec![], "queue org, by ada"),
        (vec![Queue { parent: "vision".into(), ..now(&f, "speech") }], vec![], "queue speech, by ada"),
        (vec![Queue { parent: String::new(), ..now(&f, "cv") }], vec![], "queue cv, by ada"),
        (vec![], vec!["speech"], "queue speech, by ada"),
        (vec![], vec!["cv", "vision"], "queue vision, by ada"),
    ] {
        assert_eq!(denied(&mut f, "ada", put, &delete)[0], words);
    }
    // Whoever administers a part of a part has a say over less.
    assert_eq!(denied(&mut f, "grace", vec![queue("a", "cv", (0, 0, None), &[])], &[]), Vec::<String>::new());
    assert_eq!(
        denied(&mut f, "grace", vec![queue("b", "vision", (0, 0, None), &[])], &[]),
        ["queue b, by grace"]
    );
    assert_eq!(denied(&mut f, "eve", vec![queue("c", "cv", (0, 0, None), &[])], &[]), ["queue c, by eve"]);
}

#[test]
fn limits_and_all_else_are_changed_by_those_above() {
    let mut f = world();
    let limits = |name: &str, queue: &str| {
        let meter = Meter::new(Scope::Together, Measure::Concurrent, Reset::Live);
        let limits = BTreeMap::from([(meter, 5)]);
        PolicyObject::Quota(QuotaPolicy {
            name: name.into(),
            queue: queue.into(),
            limits,
            ..QuotaPolicy::default()
        })
    };
    // What is said of a team is said by those above it; of what is below it by the team.
    for (who, queue, allowed) in [
        ("ada", "vision", false),
        ("ada", "cv", true),
        ("ada", "", false),
        ("ops", "vision", true),
        ("bob", "cv", false),
    ] {
        let words = denied_change(
            &mut f,
            who,
            change(vec![limits(format!("q-{who}-{queue}").trim_end_matches('-'), queue)], vec![]),
        );
        assert_eq!(words.is_empty(), allowed, "{who} for {queue:?}: {words:?}");
    }
    assert_eq!(
        denied_change(&mut f, "ada", change(vec![], vec![PolicyName::Quota("q-ops-vision".into())])).len(),
        1
    );
    let pool = PolicyObject::Pool(Pool { name: "gpu".into(), ..Pool::default() });
    let class = PolicyObject::Class(Class { name: "mine".into(), priority: 1_000, ..Class::default() });
    let words = denied_change(&mut f, "ada", change(vec![pool.clone(), class.clone()], vec![]));
    assert_eq!(words, ["pool gpu, by ada", "class mine, by ada"]);
    assert_eq!(denied_change(&mut f, "ops", change(vec![pool, class], vec![])), Vec::<String>::new());
    let service = Service {
        name: "web".into(),
        pool: "default".into(),
        class: "standard".into(),
        ..Service::default()
    };
    assert_eq!(
        denied_change(&mut f, "ada", change(vec![PolicyObject::Service(service)], vec![])),
        Vec::<String>::new()
    );
}

#[test]
fn a_reservation_is_cancelled_by_who_asked_for_it_or_administers_its_queue() {
    let mut f = world();
    let submit = |queue: &str| {
        let request = active(Request { queue: queue.into(), ..request(500) });
        Command::Submit { request, verdict: Verdict::Place(on(&[0])) }
    };
    for (who, allowed) in
        [("lin", true), ("grace", true), ("ada", true), ("ops", true), ("bob", false), ("eve", false)]
    {
        let lease = reservation(by(&mut f, "lin", submit("cv")));
        let came = by(&mut f, who, Command::Cancel { reservation: lease.id });
        assert_eq!(matches!(came, Outcome::Reservation(_)), allowed, "{who}: {came:?}");
        assert_eq!(f.get(lease.id).state == State::Released, allowed);
        f.run(Command::Cancel { reservation: lease.id });
    }
    // Without a queue, or where nobody is named, as before.
    let lease = reservation(by(&mut f, "lin", submit("")));
    assert!(matches!(by(&mut f, "eve", Command::Cancel { reservation: lease.id }), Outcome::Reservation(_)));
}

#[test]
fn where_nobody_is_named_everybody_may_and_older_ledgers_know_no_administrators() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let put = vec![queue("a", "", (0, 1, None), &[])];
    assert_eq!(denied(&mut f, "eve", put, &[]), Vec::<String>::new());
    // Two trees: what is of the whole cluster takes a say over both.
    let put = vec![queue("b", "", (0, 1, None), &["bob"]), queue("c", "", (0, 1, None), &["cy", "bob"])];
    assert_eq!(denied(&mut f, "eve", put, &[]), Vec::<String>::new());
    let pool = || change(vec![PolicyObject::Pool(Pool { name: "p".into(), ..Pool::default() })], vec![]);
    assert_eq!(denied_change(&mut f, "cy", pool()).len(), 1);
    assert_eq!(denied_change(&mut f, "bob", pool()), Vec::<String>::new());
    assert_eq!(denied(&mut f, "cy", vec![queue("a", "", (0, 2, None), &[])], &[]), ["queue a, by cy"]);
    assert_eq!(denied(&mut f, "cy", vec![queue("c", "", (0, 9, None), &["cy"])], &[]), Vec::<String>::new());

    let mut old = Fixture::new(1);
    old.run(Command::Upgrade { to: 7 });
    let named = change(vec![PolicyObject::Queue(queue("a", "", (0, 1, None), &["ada"]))], vec![]);
    assert_eq!(named.since_version(), 8);
    assert_eq!(old.refused(named), Reason::UnsupportedVersion);
    let mut twice = queue("a", "", (0, 1, None), &["ada", "ada"]);
    assert_eq!(f.refused(change(vec![PolicyObject::Queue(twice.clone())], vec![])), Reason::InvalidArgument);
    twice.admins = vec![String::new()];
    assert_eq!(f.refused(change(vec![PolicyObject::Queue(twice)], vec![])), Reason::InvalidArgument);
}

/// Queues that somebody might put, good and bad, and deletions among them.
fn any_change() -> impl Strategy<Value = (Vec<Queue>, Vec<String>)> {
    let name = || prop::sample::select(vec!["org", "vision", "cv", "speech", "x", "y", "z"]);
    let parent = prop::sample::select(vec!["", "org", "vision", "cv", "speech", "x", "y", "z"]);
    let cpu = (0u64..3, 0u64..8, prop::option::of(8u64..10));
    let admins = prop::sample::subsequence(vec!["ada", "ops", "bob", "*"], 0..2);
    let one = (name(), parent, cpu, admins, prop::bool::weighted(0.8), prop::bool::weighted(0.1)).prop_map(
        |(name, parent, (guaranteed, more, limit), admins, quotas, heavy)| {
            let limit = limit.map(|limit| limit * 1_000 + guaranteed * 1_000);
            let mut made =
                queue(name, parent, (guaranteed * 1_000, (guaranteed + more) * 1_000, limit), &admins);
            if !quotas {
                made.quotas.clear();
            }
            made.weight_milli = if heavy { 2_000 } else { 1_000 };
            made
        },
    );
    (prop::collection::vec(one, 0..4), prop::collection::vec(name().prop_map(str::to_owned), 0..2))
}

/// A queue and all below it.
fn subtree(ledger: &Ledger, top: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::from([top.to_owned()]);
    loop {
        let more: Vec<String> = ledger
            .queues()
            .filter(|queue| found.contains(&queue.parent) && !found.contains(&queue.name))
            .map(|queue| queue.name.clone())
            .collect();
        if more.is_empty() {
            return found;
        }
        found.extend(more);
    }
}

/// Nominal and guaranteed cpu of a queue and all below it.
fn sums(ledger: &Ledger, top: &str) -> (u64, u64) {
    let inside = subtree(ledger, top);
    let quotas =
        ledger.queues().filter(|queue| inside.contains(&queue.name)).flat_map(|queue| queue.quotas.values());
    quotas.flat_map(BTreeMap::values).fold((0, 0), |(nominal, guaranteed), quota| {
        (nominal + quota.nominal.0, guaranteed + quota.guaranteed.0)
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a team's administrator puts, one change after the other: outside of the team nothing moves, and the team has no more than before.
    #[test]
    fn no_series_of_changes_gives_a_team_more(changes in prop::collection::vec(any_change(), 1..12)) {
        let mut f = world();
        let before = f.ledger.clone();
        let had = sums(&before, "vision");
        for (put, delete) in changes {
            // Half of them keep to what is theirs, so that some are done.
            let put = put.into_iter().map(PolicyObject::Queue).collect();
            let delete = delete.into_iter().map(PolicyName::Queue).collect();
            by(&mut f, "ada", change(put, delete));
            let has = sums(&f.ledger, "vision");
            prop_assert!(has.0 <= had.0 && has.1 <= had.1, "{had:?} came to {has:?}");
            let inside = subtree(&f.ledger, "vision");
            let others = |ledger: &Ledger| -> Vec<Arc<Queue>> {
                ledger.queues().filter(|queue| !inside.contains(&queue.name)).cloned().collect()
            };
            let kept: Vec<Arc<Queue>> =
                others(&before).into_iter().filter(|queue| queue.name != "cv").collect();
            prop_assert_eq!(others(&f.ledger), kept);
            let own = |ledger: &Ledger| {
                let vision = Queue::clone(ledger.queue("vision").expect("there"));
                let limit = vision.quotas["default"]["cpu"].limit;
                (limit, Queue { quotas: BTreeMap::new(), changed: Revision(0), ..vision })
            };
            prop_assert_eq!(own(&f.ledger), own(&before));
        }
    }
}
