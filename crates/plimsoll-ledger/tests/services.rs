//! Services and their endpoints, from ledger version 5 on.

mod fixture;

use std::sync::Arc;

use fixture::{Fixture, active, on, request, reservation};
use plimsoll_ledger::{
    AdminChange, Announcement, Balancing, Class, Command, EndpointState, LATEST_VERSION, LoadReport,
    NodeHealth, Outcome, PolicyName, PolicyObject, Reason, Request, Reservation, Service, Verdict, Wait,
};
use plimsoll_types::{NodeId, ReservationId, Revision};

fn service(name: &str, pool: &str, class: &str) -> PolicyObject {
    let (name, pool, class) = (name.to_owned(), pool.to_owned(), class.to_owned());
    PolicyObject::Service(Service { name, pool, class, balancing: Balancing::Affinity, ..Service::default() })
}

fn put(objects: Vec<PolicyObject>) -> Command {
    Command::ApplyPolicy { put: objects, delete: Vec::new(), if_revision: Revision(0) }
}

fn delete(name: PolicyName) -> Command {
    Command::ApplyPolicy { put: Vec::new(), delete: vec![name], if_revision: Revision(0) }
}

/// Two nodes, and the service `web` of the class `batch`.
fn fixture() -> Fixture {
    let mut f = Fixture::new(2);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    assert_eq!(f.run(put(vec![service("web", "default", "batch")])), Outcome::Done);
    f
}

fn replica_request() -> Request {
    Request { service: "web".into(), class: "batch".into(), ..active(request(1_000)) }
}

fn replica(f: &mut Fixture, node: u32) -> Arc<Reservation> {
    f.submit(replica_request(), on(&[node]))
}

fn at(port: u16) -> Announcement {
    Announcement { address: format!("10.0.0.1:{port}"), weight_milli: 1_000, ..Announcement::default() }
}

fn announce(of: &Reservation, announced: Option<Announcement>) -> Command {
    Command::SetEndpoint { reservation: of.id, token: of.token, announced }
}

fn endpoint(f: &mut Fixture, node: u32, port: u16) -> Arc<Reservation> {
    let replica = replica(f, node);
    reservation(f.run(announce(&replica, Some(at(port)))))
}

fn states(f: &Fixture) -> Vec<(String, EndpointState)> {
    let state = |r: &Arc<Reservation>| {
        let address = r.endpoint.as_ref().expect("it is an endpoint").announced.address.clone();
        (address, f.ledger.endpoint_state(r).expect("it is an endpoint"))
    };
    f.ledger.endpoints("web").map(state).collect()
}

fn load(of: ReservationId) -> LoadReport {
    LoadReport {
        reservation: of,
        utilization_permille: 500,
        rate_milli: 1,
        errors_milli: 0,
        in_flight: 1,
        queue_depth: 0,
        latency_us: 1,
        ..LoadReport::default()
    }
}

#[test]
fn an_endpoint_and_its_load_leave_in_the_entry_in_which_the_lease_ends() {
    let ends: [fn(&mut Fixture, &Reservation) -> Outcome; 4] = [
        |f, r| f.run(Command::Release { reservation: r.id, token: r.token }),
        |f, r| f.run(Command::Cancel { reservation: r.id }),
        |f, _| {
            f.now_ms += 100_000_000;
            f.run(Command::Expire { limit: 10 })
        },
        |f, _| f.health(0, NodeHealth::Failed),
    ];
    for end in ends {
        let mut f = fixture();
        let r = endpoint(&mut f, 0, 80);
        f.run(Command::ReportLoad { reports: vec![load(r.id)] });
        assert_eq!(states(&f), [("10.0.0.1:80".to_owned(), EndpointState::Serving)]);
        assert!(f.ledger.load(r.id).is_some());
        let before = f.ledger.endpoints_changed();
        end(&mut f, &r);
        assert_eq!((states(&f), f.ledger.load(r.id)), (vec![], None));
        assert!(f.get(r.id).endpoint.is_none());
        assert!(f.ledger.endpoints_changed() > before);
    }
}

#[test]
fn a_drain_its_own_word_or_a_notice_stops_new_requests_at_once() {
    let mut f = fixture();
    let [a, b, c] = [(0, 1), (1, 2), (1, 3)].map(|(node, port)| endpoint(&mut f, node, port));
    let drain = AdminChange::Drain { reason: "upgrade".into(), deadline_ms: 0 };
    f.run(Command::SetNodeAdmin { node: NodeId(0), admin: drain });
    f.run(announce(&b, Some(Announcement { draining: true, ..at(2) })));
    let urgent =
        Request { class: "critical".into(), wait: Wait::Queue { deadline_ms: 0 }, ..active(request(7_000)) };
    let waiting = reservation(f.run(Command::Submit { request: urgent, verdict: Verdict::Blocked(vec![]) }));
    let victims = vec![c.id];
    let placement = on(&[1]);
    reservation(f.run(Command::Preempt { reservation: waiting.id, placement, victims }));
    let all: Vec<EndpointState> = states(&f).into_iter().map(|(_, state)| state).collect();
    assert_eq!(all, [EndpointState::Draining; 3]);
    f.run(Command::SetNodeAdmin { node: NodeId(0), admin: AdminChange::Uncordon });
    assert_eq!(f.ledger.endpoint_state(&f.get(a.id)), Some(EndpointState::Serving));
}

#[test]
fn on_a_silent_node_it_is_unavailable_until_the_node_is_back() {
    let mut f = fixture();
    endpoint(&mut f, 0, 80);
    f.health(0, NodeHealth::Suspect);
    assert_eq!(states(&f)[0].1, EndpointState::Unavailable);
    f.health(0, NodeHealth::Available);
    assert_eq!(states(&f)[0].1, EndpointState::Serving);
}

#[test]
fn an_address_belongs_to_who_announced_it_last() {
    let mut f = fixture();
    let old = endpoint(&mut f, 0, 80);
    f.run(Command::ReportLoad { reports: vec![load(old.id)] });
    f.now_ms += 500;
    let new = endpoint(&mut f, 1, 80);
    assert_eq!(f.ledger.endpoint_at("web", "10.0.0.1:80").map(|r| r.id), Some(new.id));
    assert!(f.get(old.id).endpoint.is_none() && f.ledger.load(old.id).is_none());
    // What is said again at the same address keeps its time; another address begins anew.
    let since = f.get(new.id).endpoint.as_ref().map(|endpoint| endpoint.since);
    f.now_ms += 500;
    let heavier = Announcement { weight_milli: 2_000, ..at(80) };
    let again = reservation(f.run(announce(&new, Some(heavier))));
    assert_eq!(again.endpoint.as_ref().map(|endpoint| endpoint.since), since);
    let moved = reservation(f.run(announce(&new, Some(at(81)))));
    assert!(moved.endpoint.as_ref().map(|endpoint| endpoint.since) > since);
    reservation(f.run(announce(&new, None)));
    assert_eq!(states(&f), []);
}

#[test]
fn a_renewal_is_no_news_of_endpoints() {
    let mut f = fixture();
    let r = endpoint(&mut f, 0, 80);
    let before = f.ledger.endpoints_changed();
    f.run(Command::Renew { reservation: r.id, token: r.token, ttl_ms: 0 });
    replica(&mut f, 1);
    assert_eq!(f.ledger.endpoints_changed(), before);
}

#[test]
fn who_may_not_announce_is_refused() {
    let mut f = fixture();
    let r = replica(&mut f, 0);
    let wrong = Command::SetEndpoint { reservation: r.id, token: Revision(1), announced: Some(at(80)) };
    assert_eq!(f.refused(wrong), Reason::Fenced);
    let bad = Announcement { address: "nowhere".into(), ..at(80) };
    assert_eq!(f.refused(announce(&r, Some(bad))), Reason::InvalidArgument);
    let heavy = Announcement { weight_milli: 1_000_001, ..at(80) };
    assert_eq!(f.refused(announce(&r, Some(heavy))), Reason::InvalidArgument);
    let plain = f.submit(active(request(1_000)), on(&[1]));
    assert_eq!(f.refused(announce(&plain, Some(at(80)))), Reason::WrongState);
    f.run(Command::ReportLoad { reports: vec![load(plain.id), load(r.id)] });
    assert!(f.ledger.load(plain.id).is_none() && f.ledger.load(r.id).is_none(), "they are no endpoints");
}

#[test]
fn a_replica_is_in_the_pool_and_of_the_class_of_its_service() {
    let mut f = fixture();
    let submit = |request: Request| Command::Submit { request, verdict: Verdict::Place(on(&[0])) };
    let of = |service: &str, class: &str| Request {
        service: service.into(),
        class: class.into(),
        ..active(request(1_000))
    };
    assert_eq!(f.refused(submit(of("nosuch", "batch"))), Reason::ServiceNotFound);
    assert_eq!(f.refused(submit(of("web", "standard"))), Reason::InvalidArgument);
    reservation(f.run(submit(of("web", "batch"))));
}

#[test]
fn what_a_service_is_of_stays_while_it_does_and_it_stays_while_it_has_replicas() {
    let mut f = fixture();
    assert_eq!(f.refused(put(vec![service("a", "nosuch", "batch")])), Reason::PoolNotFound);
    assert_eq!(f.refused(put(vec![service("a", "default", "nosuch")])), Reason::ClassNotFound);
    assert_eq!(f.refused(delete(PolicyName::Class("batch".into()))), Reason::InUse);
    let class = PolicyObject::Class(Class { name: "new".into(), ..Class::default() });
    assert_eq!(f.run(put(vec![class, service("a", "default", "new")])), Outcome::Done);
    let r = replica(&mut f, 0);
    assert_eq!(f.refused(delete(PolicyName::Service("web".into()))), Reason::InUse);
    f.run(Command::Cancel { reservation: r.id });
    assert_eq!(f.run(delete(PolicyName::Service("web".into()))), Outcome::Done);
    assert_eq!(f.refused(delete(PolicyName::Service("web".into()))), Reason::NotFound);
}

#[test]
fn before_version_5_there_are_none() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 4 });
    assert_eq!(f.refused(put(vec![service("web", "default", "batch")])), Reason::UnsupportedVersion);
    let submit = Command::Submit { request: replica_request(), verdict: Verdict::Place(on(&[0])) };
    assert_eq!(submit.since_version(), 5);
    assert_eq!(f.refused(submit), Reason::UnsupportedVersion);
    let plain = f.submit(active(request(1_000)), on(&[0]));
    assert_eq!(f.refused(announce(&plain, Some(at(80)))), Reason::UnsupportedVersion);
    assert_eq!(f.refused(Command::ReportLoad { reports: vec![] }), Reason::UnsupportedVersion);
}
