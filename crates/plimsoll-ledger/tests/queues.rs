//! Queues and their quotas, from ledger version 3 on.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, GIB, active, gang, gpu_request, on, on_device, queued, request, reservation};
use plimsoll_ledger::{
    Command, GPU, GpuShare, LATEST_VERSION, Ledger, NodeHealth, Outcome, PolicyName, PolicyObject, Pool,
    Queue, Quota, Reason, Refusal, Request, State, Verdict,
};
use plimsoll_types::{Amount, Resources, Revision};

fn queue(name: &str, parent: &str, quotas: &[(&str, u64, u64, Option<u64>)]) -> PolicyObject {
    let quota = |(resource, guaranteed, nominal, limit): &(&str, u64, u64, Option<u64>)| {
        let quota =
            Quota { guaranteed: Amount(*guaranteed), nominal: Amount(*nominal), limit: limit.map(Amount) };
        ((*resource).to_owned(), quota)
    };
    let quotas = BTreeMap::from([("default".to_owned(), quotas.iter().map(quota).collect())]);
    PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), quotas, ..Queue::default() })
}

fn apply_policy(put: Vec<PolicyObject>, delete: Vec<PolicyName>) -> Command {
    Command::ApplyPolicy { put, delete, if_revision: Revision(0) }
}

/// Four nodes; org with vision (4 cores, 1 GPU, at most 6 cores) and speech (4 cores, of which 2 are never lent).
fn org() -> Fixture {
    let mut f = Fixture::new(4);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let put = vec![
        queue("speech", "org", &[("cpu", 2_000, 4_000, None)]),
        queue("vision", "org", &[("cpu", 0, 4_000, Some(6_000)), (GPU, 0, 1_000, None)]),
        PolicyObject::Queue(Queue { name: "org".into(), ..Queue::default() }),
    ];
    assert_eq!(f.run(apply_policy(put, vec![])), Outcome::Done);
    f
}

fn for_queue(queue: &str, request: Request) -> Request {
    Request { queue: queue.to_owned(), ..request }
}

fn refusal(f: &mut Fixture, command: Command) -> Refusal {
    match f.run(command) {
        Outcome::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn place(queue: &str, cpu_millis: u64, node: u32) -> Command {
    Command::Submit { request: for_queue(queue, request(cpu_millis)), verdict: Verdict::Place(on(&[node])) }
}

#[test]
fn before_version_3_there_are_no_queues() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 2 });
    assert_eq!(f.refused(apply_policy(vec![queue("a", "", &[])], vec![])), Reason::UnsupportedVersion);
    let dear = Pool { name: "default".into(), price_milli: 2_000, ..Pool::default() };
    assert_eq!(f.refused(apply_policy(vec![PolicyObject::Pool(dear)], vec![])), Reason::UnsupportedVersion);
    assert_eq!(f.refused(place("a", 1_000, 0)), Reason::UnsupportedVersion);
    assert_eq!((place("a", 1, 0).since_version(), place("", 1, 0).since_version()), (3, 1));
}

#[test]
fn a_quota_is_lent_while_idle_and_what_is_short_is_said_with_numbers() {
    let mut f = org();
    let first = reservation(f.run(place("vision", 6_000, 0)));
    let refused = refusal(&mut f, place("vision", 1, 1));
    let blocker = &refused.blockers[0];
    assert_eq!((refused.reason, blocker.subject.as_str()), (Reason::QuotaExceeded, "cpu in queue vision"));
    assert_eq!((blocker.asked, blocker.available, blocker.limit), (1, 0, 6_000));
    // What vision borrowed is gone for speech; its guarantee and the rest are not.
    let refused = refusal(&mut f, place("speech", 2_001, 1));
    let blocker = &refused.blockers[0];
    assert_eq!(
        (blocker.subject.as_str(), blocker.available, blocker.limit),
        ("cpu in queue org", 2_000, 8_000)
    );
    reservation(f.run(place("speech", 2_000, 1)));
    assert_eq!(f.refused(place("speech", 1, 1)), Reason::QuotaExceeded);
    f.run(Command::Release { reservation: first.id, token: first.token });
    reservation(f.run(place("speech", 6_000, 0)));
}

#[test]
fn what_is_guaranteed_is_granted_and_no_alarm_even_where_the_queues_above_were_cut_below_what_is_taken() {
    let mut f = org();
    reservation(f.run(place("vision", 6_000, 0)));
    // All but what is kept for speech goes: org as a whole has 6 cores too many, none of them of speech's two.
    let cut = vec![
        queue("speech", "org", &[("cpu", 2_000, 2_000, None)]),
        queue("vision", "org", &[("cpu", 0, 0, None)]),
    ];
    assert_eq!(f.run(apply_policy(cut, vec![])), Outcome::Done);
    // The fixture asks for violations after each command.
    reservation(f.run(place("speech", 2_000, 1)));
    assert_eq!(f.refused(place("speech", 1, 1)), Reason::QuotaExceeded);
}

#[test]
fn devices_count_in_thousandths_and_gangs_as_a_whole() {
    let mut f = org();
    let ask = |share| for_queue("vision", gpu_request(share));
    let submit = |share, device| Command::Submit {
        request: ask(share),
        verdict: Verdict::Place(on_device(0, device, share)),
    };
    reservation(f.run(submit(GpuShare::Milli(600), 0)));
    let refused = refusal(&mut f, submit(GpuShare::Memory(40 * GIB), 1));
    assert_eq!((refused.blockers[0].asked, refused.blockers[0].available), (500, 400));
    reservation(f.run(submit(GpuShare::Memory(32 * GIB), 1)));
    // Two cores are taken; of the four that are left two members of two fit, three do not.
    let members = |count: u32| {
        let request = for_queue("vision", gang(count, count, false));
        let requirements = plimsoll_ledger::Requirements {
            amounts: Resources::new(2_000, GIB),
            ..request.requirements.clone()
        };
        Command::Submit {
            request: Request { requirements, ..request },
            verdict: Verdict::Place(on(&[1, 2, 3][..count as usize])),
        }
    };
    assert_eq!(f.refused(members(3)), Reason::QuotaExceeded);
    reservation(f.run(members(2)));
}

#[test]
fn a_request_that_meets_a_full_quota_waits_where_it_may_and_is_placed_later() {
    let mut f = org();
    let first = reservation(f.run(place("vision", 6_000, 0)));
    let waiting = Command::Submit {
        request: for_queue("vision", queued(request(1_000))),
        verdict: Verdict::Place(on(&[1])),
    };
    let waiting = reservation(f.run(waiting));
    assert_eq!((waiting.state, waiting.blockers[0].reason), (State::Pending, Reason::QuotaExceeded));
    assert_eq!(f.ledger.pending_in("vision", "default").collect::<Vec<_>>(), [waiting.id]);
    assert_eq!(f.ledger.queues_waiting("default").collect::<Vec<_>>(), ["vision"]);
    let place = Command::Place { reservation: waiting.id, placement: on(&[1]) };
    assert_eq!(f.refused(place.clone()), Reason::QuotaExceeded);
    f.run(Command::Release { reservation: first.id, token: first.token });
    assert_eq!(reservation(f.run(place)).state, State::Held);
    assert_eq!(f.ledger.pending_of_queue("vision"), 0);
}

#[test]
fn growth_by_resize_needs_quota_and_shrinking_gives_it_back() {
    let mut f = org();
    let lease = reservation(f.run(Command::Submit {
        request: active(for_queue("vision", request(5_000))),
        verdict: Verdict::Place(on(&[0])),
    }));
    let resize = |cpu| Command::Resize {
        reservation: lease.id,
        token: lease.token,
        amounts: Resources::new(cpu, GIB),
    };
    assert_eq!(f.refused(resize(6_001)), Reason::QuotaExceeded);
    reservation(f.run(resize(6_000)));
    assert_eq!(f.refused(place("speech", 2_001, 1)), Reason::QuotaExceeded);
    reservation(f.run(resize(1_000)));
    reservation(f.run(place("speech", 7_000, 1)));
}

#[test]
fn a_silent_node_keeps_its_devices_and_not_its_quota() {
    let mut f = org();
    let lease = reservation(f.run(Command::Submit {
        request: active(for_queue("vision", request(6_000))),
        verdict: Verdict::Place(on(&[0])),
    }));
    f.health(0, NodeHealth::Suspect);
    assert_eq!(f.refused(place("vision", 1, 1)), Reason::QuotaExceeded, "it may still run");
    f.run(Command::Cancel { reservation: lease.id });
    assert_eq!(f.ledger.free(plimsoll_types::NodeId(0)).cpu_millis, Amount(2_000));
    reservation(f.run(place("vision", 6_000, 1)));
}

#[test]
fn a_cut_takes_nothing_away_and_grants_nothing_more() {
    let mut f = org();
    reservation(f.run(place("vision", 4_000, 0)));
    assert_eq!(
        f.run(apply_policy(vec![queue("vision", "org", &[("cpu", 0, 1_000, Some(1_000))])], vec![])),
        Outcome::Done
    );
    assert_eq!(f.refused(place("vision", 1, 1)), Reason::QuotaExceeded);
    let cell = *f.ledger.quota().cell("vision", "default", "cpu").expect("given");
    assert_eq!((cell.usage, cell.subtree, cell.borrowed()), (Amount(4_000), Amount(1_000), Amount(3_000)));
}

#[test]
fn a_queue_bounds_those_that_wait_in_it() {
    let mut f = org();
    let short = Queue { name: "short".into(), max_pending: 1, ..Queue::default() };
    f.run(apply_policy(vec![PolicyObject::Queue(short)], vec![]));
    let wait = || Command::Submit {
        request: for_queue("short", queued(request(1_000))),
        verdict: Verdict::Blocked(Vec::new()),
    };
    reservation(f.run(wait()));
    let refused = refusal(&mut f, wait());
    assert_eq!((refused.reason, refused.blockers[0].subject.as_str()), (Reason::QueueFull, "short"));
}

#[test]
fn queues_stay_a_tree_over_pools_that_exist() {
    let mut f = org();
    let put = |queue| apply_policy(vec![queue], vec![]);
    assert_eq!(f.refused(put(queue("a", "nosuch", &[]))), Reason::QueueNotFound);
    assert_eq!(f.refused(put(queue("a", "a", &[]))), Reason::InvalidArgument);
    assert_eq!(f.refused(put(queue("org", "vision", &[]))), Reason::InvalidArgument, "a circle");
    assert_eq!(f.refused(put(queue("vision", "org", &[("cpu", 2, 1, None)]))), Reason::InvalidArgument);
    assert_eq!(f.refused(put(queue("vision", "org", &[("cpu", 0, 2, Some(1))]))), Reason::InvalidArgument);
    let quotas =
        BTreeMap::from([("nosuch".to_owned(), BTreeMap::from([("cpu".to_owned(), Quota::default())]))]);
    let stranger = Queue { name: "a".into(), quotas, ..Queue::default() };
    assert_eq!(f.refused(put(PolicyObject::Queue(stranger))), Reason::PoolNotFound);
    let delete = |name: &str| apply_policy(vec![], vec![PolicyName::Queue(name.to_owned())]);
    assert_eq!(f.refused(delete("org")), Reason::InUse, "others are below it");
    assert_eq!(f.refused(delete("nosuch")), Reason::NotFound);
    let lease = reservation(f.run(place("vision", 1_000, 0)));
    assert_eq!(f.refused(delete("vision")), Reason::InUse, "it has a reservation");
    f.run(Command::Release { reservation: lease.id, token: lease.token });
    let all = ["org", "vision", "speech"].map(|name| PolicyName::Queue(name.to_owned()));
    assert_eq!(f.run(apply_policy(vec![], all.to_vec())), Outcome::Done);
    assert_eq!(f.refused(place("vision", 1_000, 0)), Reason::QueueNotFound);
}

#[test]
fn rows_make_the_same_quotas_again() {
    let mut f = org();
    reservation(f.run(place("vision", 5_000, 0)));
    reservation(f.run(place("speech", 1_000, 1)));
    let rebuilt = Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("its own rows");
    assert_eq!(rebuilt.quota(), f.ledger.quota());
    assert!(rebuilt.rows().eq(f.ledger.rows()));
}
