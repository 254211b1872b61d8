//! Every change that `explain` offers is true: made on the whole ledger by its own `apply`, it lets the leader's planner grant the request.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Size, apply, fleet, plain, put_pool, request, sizes, strategy};
use plimsoll_ledger::{
    AdminChange, Command, GPU, GpuAsk, Ledger, Outcome, PolicyObject, Pool, Queue, QueueOrder, Quota,
    Request, State, Strategy as PoolStrategy, Verdict,
};
use plimsoll_scheduler::{Planner, SingleChange, Suggestion, explain, explain_request};
use plimsoll_types::{Amount, NodeId, ReservationId, Revision};
use proptest::prelude::*;

const CLASSES: [&str; 3] = ["batch", "standard", "critical"];

fn submit(ledger: &mut Ledger, request: &Request) -> Outcome {
    let mut planner = Planner::new(ledger, 0);
    let (verdict, _) = planner.plan_batch(ledger, &[request]).remove(0);
    let verdict = match verdict {
        Verdict::Infeasible(blockers) => Verdict::Blocked(blockers),
        verdict => verdict,
    };
    apply(ledger, Command::Submit { request: request.clone(), verdict })
}

fn put(ledger: &mut Ledger, object: PolicyObject) -> Outcome {
    apply(ledger, Command::ApplyPolicy { put: vec![object], delete: vec![], if_revision: Revision(0) })
}

/// A busy cluster: a second pool, queues with quotas, cordoned nodes, grants of three classes, some who wait.
fn busy(
    sizes: &[Size],
    strategy: PoolStrategy,
    strict: bool,
    work: &[(Request, usize, bool)],
    cordoned: &[usize],
) -> Ledger {
    let mut ledger = fleet(sizes, strategy);
    let order = if strict { QueueOrder::StrictFifo } else { QueueOrder::BestEffortFifo };
    let countables = [("license/sim".to_owned(), Amount(10))].into();
    put_pool(
        &mut ledger,
        Pool { name: "default".into(), strategy, queue_order: order, countables, ..Pool::default() },
    );
    let spare = plimsoll_ledger::Registration {
        name: "spare".into(),
        incarnation: 1,
        pool: "spare".into(),
        capacity: plimsoll_types::Resources::new(4_000, 16 * fixture::GIB),
        ..plimsoll_ledger::Registration::default()
    };
    put_pool(&mut ledger, Pool { name: "spare".into(), ..Pool::default() });
    apply(&mut ledger, Command::RegisterNode(spare));
    let quota = |nominal: u64, limit| Quota { nominal: Amount(nominal), limit, ..Quota::default() };
    let of_pool: BTreeMap<String, Quota> =
        [("cpu".to_owned(), quota(6_000, None)), (GPU.to_owned(), quota(1_000, Some(Amount(2_000))))].into();
    let queue =
        Queue { name: "vision".into(), quotas: [("default".to_owned(), of_pool)].into(), ..Queue::default() };
    assert_eq!(put(&mut ledger, PolicyObject::Queue(queue)), Outcome::Done);
    for (request, class, queued) in work {
        submit(&mut ledger, &of_class(request, *class, *queued));
    }
    for index in cordoned {
        let node = NodeId((index % sizes.len()) as u32);
        apply(
            &mut ledger,
            Command::SetNodeAdmin { node, admin: AdminChange::Cordon { reason: String::new() } },
        );
    }
    ledger
}

fn of_class(request: &Request, class: usize, queued: bool) -> Request {
    let queue = if queued { "vision".to_owned() } else { String::new() };
    Request { class: CLASSES[class % CLASSES.len()].into(), queue, ..request.clone() }
}

/// Makes the change on the whole ledger, and has the planner decide. True where the request holds a place afterwards.
fn is_true(ledger: &Ledger, id: Option<ReservationId>, asked: &Request, suggestion: &Suggestion) -> bool {
    let mut ledger = ledger.clone();
    let command = match &suggestion.change {
        SingleChange::Request(request) => {
            if let Some(id) = id {
                apply(&mut ledger, Command::Cancel { reservation: id });
            }
            return holds(&submit(&mut ledger, request));
        }
        SingleChange::Policy(object) => {
            Command::ApplyPolicy { put: vec![(**object).clone()], delete: vec![], if_revision: Revision(0) }
        }
        SingleChange::Uncordon(node) => Command::SetNodeAdmin { node: *node, admin: AdminChange::Uncordon },
        SingleChange::End(reservation) => Command::Cancel { reservation: *reservation },
    };
    if matches!(apply(&mut ledger, command), Outcome::Refused(_)) {
        return false;
    }
    let Some(id) = id else { return holds(&submit(&mut ledger, asked)) };
    for (reservation, placement, _) in Planner::new(&ledger, 0).plan_queue(&ledger, usize::MAX) {
        apply(&mut ledger, Command::Place { reservation, placement });
    }
    ledger.reservation(id).is_some_and(|reservation| reservation.state.is_occupying())
}

fn holds(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Reservation(reservation) if reservation.state.is_occupying())
}

fn kind(suggestion: &Suggestion) -> &'static str {
    match &suggestion.change {
        SingleChange::Request(_) => "request",
        SingleChange::Policy(_) => "policy",
        SingleChange::Uncordon(_) => "uncordon",
        SingleChange::End(_) => "end",
    }
}

fn check(ledger: &Ledger, asked: &Request, told: &mut BTreeMap<&'static str, usize>) -> Result<(), String> {
    let mut judge = |id, request: &Request, suggestions: &[Suggestion]| {
        for suggestion in suggestions {
            *told.entry(kind(suggestion)).or_default() += 1;
            if !is_true(ledger, id, request, suggestion) {
                return Err(format!("{id:?}: {suggestion:?} is not true of {request:?}"));
            }
        }
        Ok(())
    };
    judge(None, asked, &explain_request(ledger, asked).suggestions)?;
    for waiting in ledger.reservations().filter(|reservation| reservation.state == State::Pending) {
        let explanation = explain(ledger, waiting.id).ok_or("it is there")?;
        judge(Some(waiting.id), &waiting.request, &explanation.suggestions)?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn every_change_that_is_offered_lets_the_request_start(
        sizes in sizes(6),
        strategy in strategy(),
        strict in prop::bool::weighted(0.3),
        work in prop::collection::vec((request(), 0usize..3, prop::bool::weighted(0.4)), 0..12),
        cordoned in prop::collection::vec(0usize..8, 0..3),
        (asked, class, queued) in (request(), 0usize..3, prop::bool::weighted(0.4)),
    ) {
        let ledger = busy(&sizes, strategy, strict, &work, &cordoned);
        let asked = of_class(&asked, class, queued);
        let judged = check(&ledger, &asked, &mut BTreeMap::new());
        prop_assert!(judged.is_ok(), "{}", judged.unwrap_err());
    }
}

/// The property above would hold of an empty list: each kind of change is really offered.
#[test]
fn each_kind_of_change_is_offered_where_it_helps() {
    let mut ledger = fleet(&[(8, 2, 0), (8, 2, 0)], PoolStrategy::BestFit);
    let quota = Quota { nominal: Amount(6_000), ..Quota::default() };
    let of_pool: BTreeMap<String, Quota> = [("cpu".to_owned(), quota)].into();
    let queue =
        Queue { name: "vision".into(), quotas: [("default".to_owned(), of_pool)].into(), ..Queue::default() };
    assert_eq!(put(&mut ledger, PolicyObject::Queue(queue)), Outcome::Done);
    let words = |ledger: &Ledger, asked: &Request| -> Vec<String> {
        explain_request(ledger, asked).suggestions.into_iter().map(|found| found.description).collect()
    };
    let queued = Request { queue: "vision".into(), ..plain(7_000) };
    let told = words(&ledger, &queued);
    assert!(told.contains(&"raise the quota of queue vision by 1 of cpu".to_owned()), "{told:?}");
    assert!(told.contains(&"ask for 6 of cpu in place of 7".to_owned()), "the most that fits: {told:?}");

    let batch = Request { class: "batch".into(), ..plain(8_000) };
    let first = submit(&mut ledger, &batch);
    assert!(holds(&first));
    let cordon = AdminChange::Cordon { reason: "x".into() };
    let free = ledger.nodes().find(|node| ledger.free(node.id).cpu_millis.0 == 8_000).expect("one").id;
    apply(&mut ledger, Command::SetNodeAdmin { node: free, admin: cordon });
    let told = words(&ledger, &plain(8_000));
    let name = ledger.node(free).expect("it is there").name().to_owned();
    assert!(told.contains(&format!("uncordon node {name}")), "{told:?}");
    let Outcome::Reservation(held) = first else { unreachable!() };
    assert!(told.contains(&format!("end {}, of class batch", held.id)), "{told:?}");

    let mut licences = plain(1_000);
    licences.requirements.amounts.set("license/sim", Amount(41));
    let uncordon = Command::SetNodeAdmin { node: free, admin: AdminChange::Uncordon };
    apply(&mut ledger, uncordon);
    let told = words(&ledger, &licences);
    assert!(told.contains(&"give pool default 1 more of license/sim".to_owned()), "{told:?}");

    let mut gpus = plain(1_000);
    gpus.requirements.gpu = Some(GpuAsk::whole(3));
    let told = words(&ledger, &gpus);
    assert!(told.contains(&"ask for 2 GPUs in place of 3".to_owned()), "{told:?}");
}
