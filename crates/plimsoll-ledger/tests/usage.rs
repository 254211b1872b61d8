//! Limits, budgets and rates of users, from ledger version 4 on.

mod fixture;

use std::collections::BTreeMap;

use fixture::{Fixture, active, gpu_request, on, on_device, queued, request, reservation};
use plimsoll_ledger::{
    Applied, Class, Command, EndReason, Entry, GPU, GpuShare, LATEST_VERSION, Ledger, MICRO, Measure, Meter,
    Outcome, PolicyName, PolicyObject, Pool, Queue, QuotaPolicy, Rate, Reason, Refusal, Request, Reset,
    Scope, State, Tier, Tokens, UsageKey, UsageOf, Verdict,
};
use plimsoll_types::{LedgerTime, Resources, Revision};
use proptest::prelude::*;

const HOUR_MS: u64 = 3_600_000;
const DAY_MS: u64 = 24 * HOUR_MS;
/// 2026-11-21 at noon.
const NOON_MS: u64 = 1_795_262_400_000;

fn quota(name: &str, limits: &[(Scope, Measure, Reset, u64)]) -> QuotaPolicy {
    let limits =
        limits.iter().map(|(scope, measure, reset, limit)| (Meter::new(*scope, *measure, *reset), *limit));
    QuotaPolicy { name: name.into(), limits: limits.collect(), ..QuotaPolicy::default() }
}

fn put(objects: Vec<PolicyObject>) -> Command {
    Command::ApplyPolicy { put: objects, delete: Vec::new(), if_revision: Revision(0) }
}

/// Four nodes at noon, one core-hour costs 0.10 and one GPU-hour 2.00, and these quotas.
fn world(quotas: Vec<QuotaPolicy>) -> Fixture {
    let mut f = Fixture::new(4);
    f.now_ms = NOON_MS;
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let prices = BTreeMap::from([("cpu".to_owned(), MICRO / 10), (GPU.to_owned(), 2 * MICRO)]);
    let pool = Pool { name: "default".into(), prices, currency: "USD".into(), ..Pool::default() };
    let objects = quotas.into_iter().map(PolicyObject::Quota).chain([PolicyObject::Pool(pool)]);
    assert_eq!(f.run(put(objects.collect())), Outcome::Done);
    f
}

fn of(user: &str, request: Request) -> Request {
    Request { tenant: user.into(), ..active(request) }
}

fn for_ms(duration_ms: u64, request: Request) -> Request {
    Request { max_duration_ms: duration_ms, ..request }
}

fn submit(request: Request) -> Command {
    Command::Submit { request, verdict: Verdict::Place(on(&[0])) }
}

fn refusal(f: &mut Fixture, command: Command) -> Refusal {
    match f.run(command) {
        Outcome::Refused(refusal) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

/// Spent and committed of a meter.
fn taken(ledger: &Ledger, quota: &str, meter: Meter, who: &str) -> (u64, u64) {
    let key = UsageKey { quota: quota.into(), of: UsageOf::Meter(meter), who: who.into() };
    let row = ledger.usage_book().get(&key).map(|row| row.at(ledger.clock()));
    row.map_or((0, 0), |row| (row.spent, row.committed))
}

#[test]
fn before_version_4_there_are_no_quotas_of_users() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 3 });
    let quota = PolicyObject::Quota(quota("q", &[]));
    assert_eq!(f.refused(put(vec![quota.clone()])), Reason::UnsupportedVersion);
    let class = Class { name: "c".into(), default_duration_ms: 1, ..Class::default() };
    assert_eq!(f.refused(put(vec![PolicyObject::Class(class)])), Reason::UnsupportedVersion);
    let dear = Request { max_cost_micros: 1, ..request(1_000) };
    assert_eq!(f.refused(submit(dear.clone())), Reason::UnsupportedVersion);
    let take = Command::TakeTokens { quota: "q".into(), rate: "r".into(), scope: String::new(), tokens: 1 };
    assert_eq!(f.refused(take.clone()), Reason::UnsupportedVersion);
    assert_eq!(
        (take.since_version(), put(vec![quota]).since_version(), submit(dear).since_version()),
        (4, 4, 4)
    );
}

#[test]
fn a_quota_binds_whatever_of_whom_it_is_about_is_changed() {
    let limits = [(Scope::User, Measure::Concurrent, Reset::Live, 0)];
    let about = |queue: &str, tenant: &str| QuotaPolicy {
        queue: queue.into(),
        tenant: tenant.into(),
        ..quota("q", &limits)
    };
    let mut f = world(vec![about("", "b*")]);
    f.run(put(vec![PolicyObject::Queue(Queue { name: "org".into(), ..Queue::default() })]));
    // From pattern to pattern, to a queue, of that queue another user, another user, everybody.
    for (queue, tenant) in [("", "a*"), ("org", "a*"), ("org", "ada"), ("", "ada"), ("", "")] {
        assert_eq!(f.run(put(vec![PolicyObject::Quota(about(queue, tenant))])), Outcome::Done);
        let ask = Request { queue: queue.into(), ..of("ada", request(1_000)) };
        assert_eq!(f.refused(submit(ask)), Reason::LimitExceeded, "queue {queue:?}, tenant {tenant:?}");
    }
}

#[test]
fn so_many_at_a_time_and_so_many_a_day_each_with_numbers() {
    let limits =
        [(Scope::User, Measure::Concurrent, Reset::Live, 2), (Scope::User, Measure::Starts, Reset::Day, 3)];
    let mut f = world(vec![quota("q", &limits)]);
    let first = reservation(f.run(submit(of("ada", request(1_000)))));
    f.run(submit(of("ada", request(1_000))));
    let refused = refusal(&mut f, submit(of("ada", request(1_000))));
    assert_eq!(refused.reason, Reason::LimitExceeded);
    let blocker = &refused.blockers[0];
    assert_eq!((blocker.asked, blocker.available, blocker.limit), (1, 0, 2));
    assert_eq!(blocker.subject, "concurrent of user ada in quota q");
    reservation(f.run(submit(of("bob", request(1_000)))));
    f.run(Command::Release { reservation: first.id, token: first.token });
    f.run(submit(of("ada", request(1_000))));
    let last = f.ledger.reservations().last().unwrap().clone();
    f.run(Command::Release { reservation: last.id, token: last.token });
    let refused = refusal(&mut f, submit(of("ada", request(1_000))));
    assert_eq!(refused.blockers[0].subject, "starts of user ada in quota q, resets 2026-11-22 00:00 UTC");
    f.now_ms = NOON_MS + 12 * HOUR_MS;
    f.run(submit(of("ada", request(1_000))));
    assert_eq!(taken(&f.ledger, "q", Meter::new(Scope::User, Measure::Starts, Reset::Day), "ada"), (0, 1));
}

#[test]
fn a_grant_commits_for_its_duration_and_gives_back_what_it_did_not_use() {
    let meter = Meter::new(Scope::Together, Measure::Cost, Reset::Day);
    let mut f = world(vec![QuotaPolicy {
        currency: "USD".into(),
        ..quota("b", &[(meter.scope, meter.measure, meter.reset, 10 * MICRO)])
    }]);
    // Two hours of a GPU and a core: 4.20.
    let gpu = for_ms(2 * HOUR_MS, of("ada", gpu_request(GpuShare::Whole)));
    let place = |device| Verdict::Place(on_device(0, device, GpuShare::Whole));
    let first = reservation(f.run(Command::Submit { request: gpu.clone(), verdict: place(0) }));
    reservation(f.run(Command::Submit { request: gpu.clone(), verdict: place(1) }));
    assert_eq!(taken(&f.ledger, "b", meter, ""), (0, 8_400_000));
    let third = Command::Submit { request: gpu, verdict: Verdict::Place(on_device(1, 0, GpuShare::Whole)) };
    let refused = refusal(&mut f, third.clone());
    assert_eq!(refused.reason, Reason::BudgetExhausted);
    let blocker = &refused.blockers[0];
    assert_eq!((blocker.asked, blocker.available, blocker.limit), (4_200_000, 1_600_000, 10_000_000));
    assert_eq!(blocker.subject, "cost (USD) in quota b, resets 2026-11-22 00:00 UTC");
    f.now_ms += HOUR_MS / 2;
    let ended = reservation(f.run(Command::Release { reservation: first.id, token: first.token }));
    assert_eq!(ended.cost_micros, 1_050_000);
    assert_eq!(taken(&f.ledger, "b", meter, ""), (1_050_000, 4_200_000));
    reservation(f.run(third));
}

#[test]
fn a_lease_without_an_end_pays_renewal_by_renewal_and_ends_by_itself_when_the_budget_is_gone() {
    let meter = Meter::new(Scope::User, Measure::CpuHours, Reset::Month);
    let mut f = world(vec![quota("q", &[(meter.scope, meter.measure, meter.reset, 50_000)])]);
    // 8 cores for 10 s leases: 22,223 millionths of a core-hour each, rounded up.
    let lease = reservation(f.run(submit(of("ada", request(8_000)))));
    assert_eq!(taken(&f.ledger, "q", meter, "ada"), (0, 22_223));
    let renew = Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 };
    f.now_ms += 10_000;
    reservation(f.run(renew.clone()));
    assert_eq!(taken(&f.ledger, "q", meter, "ada"), (0, 44_445), "20 s, rounded up once");
    f.now_ms += 10_000;
    let refused = refusal(&mut f, renew);
    assert_eq!(
        (refused.reason, refused.blockers[0].asked, refused.blockers[0].available),
        (Reason::BudgetExhausted, 22_222, 5_555)
    );
    f.now_ms += 3_000;
    f.run(Command::Expire { limit: 10 });
    let ended = f.get(lease.id);
    assert_eq!((ended.state, ended.end_reason), (State::Expired, Some(EndReason::NotRenewed)));
    assert_eq!(taken(&f.ledger, "q", meter, "ada"), (44_445, 0));
}

#[test]
fn a_resize_settles_what_was_used_and_commits_the_rest_anew() {
    let meter = Meter::new(Scope::Together, Measure::CpuHours, Reset::Never);
    let mut f = world(vec![quota("q", &[(meter.scope, meter.measure, meter.reset, 6 * MICRO)])]);
    let lease = reservation(
        f.run(submit(for_ms(4 * HOUR_MS, Request { ttl_ms: DAY_MS, ..of("ada", request(1_000)) }))),
    );
    assert_eq!(taken(&f.ledger, "q", meter, ""), (0, 4 * MICRO));
    f.now_ms += HOUR_MS;
    let resize = |cpu| Command::Resize {
        reservation: lease.id,
        token: lease.token,
        amounts: Resources::new(cpu, 1 << 30),
    };
    let refused = refusal(&mut f, resize(2_000));
    assert_eq!(
        (refused.reason, refused.blockers[0].asked, refused.blockers[0].available),
        (Reason::BudgetExhausted, 3 * MICRO, 2 * MICRO)
    );
    reservation(f.run(resize(1_500)));
    assert_eq!(taken(&f.ledger, "q", meter, ""), (0, 5_500_000));
    f.now_ms += HOUR_MS;
    reservation(f.run(resize(500)));
    assert_eq!(taken(&f.ledger, "q", meter, ""), (0, 3_500_000));
    reservation(f.run(Command::Release { reservation: lease.id, token: lease.token }));
    assert_eq!(taken(&f.ledger, "q", meter, ""), (2_500_000, 0));
}

#[test]
fn what_is_committed_across_a_reset_is_charged_to_the_period_of_the_grant() {
    let meter = Meter::new(Scope::Together, Measure::CpuHours, Reset::Day);
    let mut f = world(vec![quota("q", &[(meter.scope, meter.measure, meter.reset, 40 * MICRO)])]);
    let long = for_ms(24 * HOUR_MS, Request { ttl_ms: DAY_MS, ..of("ada", request(1_000)) });
    let lease = reservation(f.run(submit(long)));
    f.now_ms += 13 * HOUR_MS;
    assert_eq!(
        f.ledger.next_due(),
        Some(LedgerTime(NOON_MS + 12 * HOUR_MS)),
        "somebody looks when the day is over"
    );
    f.run(Command::Expire { limit: 10 });
    assert!(f.ledger.usage_book().is_empty(), "yesterday is forgotten");
    reservation(f.run(Command::Release { reservation: lease.id, token: lease.token }));
    assert_eq!(taken(&f.ledger, "q", meter, ""), (0, 0), "and nothing comes back of it");
    // A lease that is renewed over midnight pays the new stretch in the new day.
    let lease = reservation(f.run(submit(Request { ttl_ms: 12 * HOUR_MS, ..of("ada", request(1_000)) })));
    f.now_ms += 11 * HOUR_MS + HOUR_MS / 2;
    let renew = Command::Renew { reservation: lease.id, token: lease.token, ttl_ms: 0 };
    reservation(f.run(renew.clone()));
    assert_eq!(taken(&f.ledger, "q", meter, ""), (0, 23_500_000));
    f.now_ms += 11 * HOUR_MS + HOUR_MS / 2 + 1;
    reservation(f.run(renew));
    assert_eq!(taken(&f.ledger, "q", meter, "").1, 11_500_001, "only what goes beyond what was paid for");
}

#[test]
fn a_budget_may_make_requests_wait_or_refuse_them_and_never_keeps_what_could_never_pass() {
    let limits = [(Scope::Together, Measure::CpuHours, Reset::Month, 2 * MICRO)];
    let waits = QuotaPolicy { queue_when_exhausted: true, ..quota("q", &limits) };
    let hour = |hours: u64| queued(for_ms(hours * HOUR_MS, of("ada", request(1_000))));
    let mut f = world(vec![waits.clone()]);
    reservation(f.run(submit(hour(2))));
    let waiting = reservation(f.run(submit(hour(1))));
    assert_eq!((waiting.state, waiting.blockers[0].reason), (State::Pending, Reason::BudgetExhausted));
    let place = Command::Place { reservation: waiting.id, placement: on(&[1]) };
    assert_eq!(f.refused(place.clone()), Reason::BudgetExhausted);
    assert_eq!(f.refused(submit(hour(3))), Reason::BudgetExhausted, "3 of 2 can never be");
    f.run(put(vec![PolicyObject::Quota(QuotaPolicy { queue_when_exhausted: false, ..waits })]));
    assert_eq!(f.refused(submit(hour(1))), Reason::BudgetExhausted);
    // The first of December.
    f.now_ms += 10 * DAY_MS;
    assert_eq!(reservation(f.run(place)).state, State::Active);
}

#[test]
fn quotas_are_about_queues_users_by_pattern_and_runs() {
    let one = [(Scope::Together, Measure::Concurrent, Reset::Live, 1)];
    let of_queue = QuotaPolicy { queue: "org".into(), ..quota("by-queue", &one) };
    let of_team = QuotaPolicy { tenant: "team-*".into(), ..quota("by-team", &one) };
    let of_run = quota("by-run", &[(Scope::Run, Measure::Concurrent, Reset::Live, 1)]);
    let mut f = world(vec![of_team, of_run]);
    let queues = [("org", ""), ("vision", "org")].map(|(name, parent)| {
        PolicyObject::Queue(Queue { name: name.into(), parent: parent.into(), ..Queue::default() })
    });
    assert_eq!(f.refused(put(vec![PolicyObject::Quota(of_queue.clone())])), Reason::QueueNotFound);
    f.run(put(queues.into_iter().chain([PolicyObject::Quota(of_queue)]).collect()));
    let in_queue = |queue: &str| Request { queue: queue.into(), ..of("eve", request(100)) };
    reservation(f.run(submit(in_queue("vision"))));
    assert_eq!(f.refused(submit(in_queue("org"))), Reason::LimitExceeded);
    reservation(f.run(submit(of("team-a", request(100)))));
    assert_eq!(f.refused(submit(of("team-b", request(100)))), Reason::LimitExceeded);
    let run = |label: &str| {
        let mut request = of("eve", request(100));
        request.labels.insert(label.into(), "r1".into());
        request
    };
    reservation(f.run(submit(run("pipeline"))));
    assert_eq!(f.refused(submit(run("run"))), Reason::LimitExceeded);
    reservation(f.run(submit(of("eve", request(100)))));
    let delete = |name| Command::ApplyPolicy { put: vec![], delete: vec![name], if_revision: Revision(0) };
    assert_eq!(f.refused(delete(PolicyName::Quota("by-run".into()))), Reason::InUse);
    assert_eq!(f.refused(delete(PolicyName::Queue("org".into()))), Reason::InUse);
}

#[test]
fn who_asks_is_the_user_where_the_request_names_none() {
    let mut f = world(vec![quota("q", &[(Scope::User, Measure::Concurrent, Reset::Live, 1)])]);
    let mut ask = |actor: &str| {
        let command = submit(active(request(100)));
        let entry = Entry { actor: actor.into(), ..Entry::system(command) };
        let Applied { answer, .. } = f.apply(&entry);
        matches!(answer.outcome, Outcome::Reservation(_))
    };
    assert_eq!([ask("ada"), ask("bob"), ask("ada")], [true, true, false]);
}

#[test]
fn a_request_may_bound_its_own_cost_and_a_class_its_duration() {
    let mut f = world(vec![]);
    let class = Class { name: "short".into(), default_duration_ms: HOUR_MS, ..Class::default() };
    f.run(put(vec![PolicyObject::Class(class)]));
    let cheap = |most| Request { max_cost_micros: most, class: "short".into(), ..of("ada", request(1_000)) };
    let refused = refusal(&mut f, submit(cheap(99_999)));
    assert_eq!((refused.reason, refused.blockers[0].asked), (Reason::LimitExceeded, 100_000));
    let granted = reservation(f.run(submit(cheap(100_000))));
    assert_eq!(granted.hard_end, LedgerTime(NOON_MS + HOUR_MS));
    assert_eq!(granted.tab.as_ref().unwrap().committed_cost_micros(), 100_000);
}

#[test]
fn storage_is_counted_while_it_is_held() {
    let mut f = world(vec![quota("q", &[(Scope::User, Measure::Storage, Reset::Live, 100)])]);
    f.run(put(vec![PolicyObject::Pool(Pool {
        name: "default".into(),
        countables: BTreeMap::from([("storage/ssd".to_owned(), plimsoll_types::Amount(1_000))]),
        ..Pool::default()
    })]));
    let stored = |bytes| {
        let mut request = of("ada", request(100));
        request.requirements.amounts.set("storage/ssd", plimsoll_types::Amount(bytes));
        submit(request)
    };
    let first = reservation(f.run(stored(80)));
    let refused = refusal(&mut f, stored(30));
    assert_eq!((refused.reason, refused.blockers[0].available), (Reason::LimitExceeded, 20));
    f.run(Command::Release { reservation: first.id, token: first.token });
    reservation(f.run(stored(30)));
}

#[test]
fn tokens_are_taken_all_or_none_and_submissions_have_a_rate() {
    let rates = BTreeMap::from([
        ("api/openai".to_owned(), Rate { tokens: 60, period_ms: 60_000, burst: 10 }),
        ("requests".to_owned(), Rate { tokens: 1, period_ms: 1_000, burst: 2 }),
    ]);
    let mut f = world(vec![QuotaPolicy { rates, ..quota("q", &[]) }]);
    let take = |scope: &str, tokens| Command::TakeTokens {
        quota: "q".into(),
        rate: "api/openai".into(),
        scope: scope.into(),
        tokens,
    };
    assert_eq!(f.run(take("", 10)), Outcome::Tokens(Tokens { taken: 10, left: 0, retry_after_ms: 0 }));
    assert_eq!(f.run(take("", 2)), Outcome::Tokens(Tokens { taken: 0, left: 0, retry_after_ms: 2_000 }));
    assert_eq!(f.run(take("other", 1)), Outcome::Tokens(Tokens { taken: 1, left: 9, retry_after_ms: 0 }));
    f.now_ms += 2_000;
    assert_eq!(f.run(take("", 2)), Outcome::Tokens(Tokens { taken: 2, left: 0, retry_after_ms: 0 }));
    let nothing =
        Command::TakeTokens { quota: "q".into(), rate: "x".into(), scope: String::new(), tokens: 1 };
    assert_eq!(f.refused(nothing), Reason::NotFound);
    for _ in 0..2 {
        reservation(f.run(submit(of("ada", request(100)))));
    }
    let refused = refusal(&mut f, submit(of("ada", request(100))));
    assert_eq!(refused.reason, Reason::RateExceeded);
    assert!(refused.blockers[0].subject.ends_with("again in 1000 ms"), "{refused:?}");
    reservation(f.run(submit(of("bob", request(100)))));
    f.now_ms += 120_000;
    f.run(Command::Expire { limit: 100 });
    let rates = f.ledger.usage_book().rows().filter(|row| matches!(row.key.of, UsageOf::Rate(_))).count();
    assert_eq!(rates, 0, "a full bucket is forgotten");
}

#[test]
fn a_deleted_quota_leaves_nothing_behind_and_currencies_do_not_mix() {
    let mut f = world(vec![quota("q", &[(Scope::User, Measure::Starts, Reset::Never, 9)])]);
    let lease = reservation(f.run(submit(of("ada", request(100)))));
    f.run(Command::Release { reservation: lease.id, token: lease.token });
    assert_eq!(f.ledger.usage_of("q").len(), 1);
    let delete = vec![PolicyName::Quota("q".into())];
    assert_eq!(f.run(Command::ApplyPolicy { put: vec![], delete, if_revision: Revision(0) }), Outcome::Done);
    assert!(f.ledger.usage_book().is_empty());
    let euros = QuotaPolicy { currency: "EUR".into(), ..quota("e", &[]) };
    assert_eq!(f.refused(put(vec![PolicyObject::Quota(euros)])), Reason::InvalidArgument);
    let wrong = quota("w", &[(Scope::User, Measure::Concurrent, Reset::Day, 1)]);
    assert_eq!(f.refused(put(vec![PolicyObject::Quota(wrong)])), Reason::InvalidArgument);
}

#[derive(Clone, Debug)]
enum Step {
    Submit { user: u8, cpu: u64, hours: u64, run: bool },
    Renew(usize),
    Resize(usize, u64),
    Release(usize),
    Expire,
    Limit(u64),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (0..3u8, 1..4_000u64, 0..40u64, any::<bool>())
            .prop_map(|(user, cpu, hours, run)| Step::Submit { user, cpu, hours, run }),
        3 => (0..20usize).prop_map(Step::Renew),
        2 => ((0..20usize), 1..4_000u64).prop_map(|(which, cpu)| Step::Resize(which, cpu)),
        2 => (0..20usize).prop_map(Step::Release),
        1 => Just(Step::Expire),
        1 => (0..60u64).prop_map(Step::Limit),
    ]
}

/// Meters of every reset and scope, each with a limit that now and then binds.
fn limits(scale: u64) -> QuotaPolicy {
    let mut limits = vec![
        (Scope::User, Measure::Concurrent, Reset::Live, 3),
        (Scope::Run, Measure::Starts, Reset::Day, 4),
    ];
    for (scope, reset) in [
        (Scope::Together, Reset::Day),
        (Scope::User, Reset::Month),
        (Scope::Run, Reset::Never),
        (Scope::User, Reset::Rolling(6 * HOUR_MS)),
    ] {
        limits.push((scope, Measure::CpuHours, reset, scale * MICRO));
        limits.push((scope, Measure::Cost, reset, scale * MICRO / 8));
    }
    quota("q", &limits)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    /// The fixture checks after each entry that the rows are what the tabs say, and that nothing was noted against a limit.
    #[test]
    fn a_budget_is_never_overrun_by_any_course_of_events(steps in prop::collection::vec((step(), 0..8u64 * HOUR_MS), 1..60)) {
        let mut f = world(vec![limits(60)]);
        let mut limit = 60;
        for (step, pause_ms) in steps {
            f.now_ms += pause_ms;
            let live: Vec<_> = f.ledger.reservations().filter(|r| !r.state.is_final()).cloned().collect();
            let pick = |which: usize| live.get(which % live.len().max(1));
            let command = match step {
                Step::Submit { user, cpu, hours, run } => {
                    let mut request = for_ms(hours * HOUR_MS, of(&format!("u{user}"), request(cpu)));
                    request.ttl_ms = 3 * HOUR_MS;
                    if run { request.labels.insert("run".into(), "r".into()); }
                    submit(request)
                }
                Step::Renew(which) => match pick(which) {
                    Some(r) => Command::Renew { reservation: r.id, token: r.token, ttl_ms: 0 },
                    None => continue,
                },
                Step::Resize(which, cpu) => match pick(which) {
                    Some(r) => Command::Resize { reservation: r.id, token: r.token, amounts: Resources::new(cpu, 1 << 30) },
                    None => continue,
                },
                Step::Release(which) => match pick(which) {
                    Some(r) => Command::Release { reservation: r.id, token: r.token },
                    None => continue,
                },
                Step::Expire => Command::Expire { limit: 3 },
                Step::Limit(scale) => {
                    limit = limit.max(scale);
                    put(vec![PolicyObject::Quota(limits(scale))])
                }
            };
            f.run(command);
            for row in f.ledger.usage_book().rows() {
                let UsageOf::Meter(meter) = row.key.of else { continue };
                if meter.measure == Measure::CpuHours {
                    prop_assert!(row.at(f.ledger.clock()).taken() <= limit * MICRO, "{row:?}");
                }
            }
            let rebuilt = Ledger::from_rows(f.ledger.rows().map(|(_, row)| row)).expect("its own rows");
            prop_assert!(rebuilt.rows().eq(f.ledger.rows()));
        }
        // Once all has ended, nothing is committed.
        for r in f.ledger.reservations().cloned().collect::<Vec<_>>() {
            f.run(Command::Cancel { reservation: r.id });
        }
        prop_assert!(f.ledger.usage_book().rows().all(|row| row.at(f.ledger.clock()).committed == 0));
    }
}

#[test]
fn a_user_is_bound_by_the_highest_tier_that_names_him_and_by_no_other() {
    let concurrent = Meter::new(Scope::User, Measure::Concurrent, Reset::Live);
    let tier = |name: &str, rank, users: &[&str], most| {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        let tier = Some(Tier { group: String::new(), rank, users });
        PolicyObject::Quota(QuotaPolicy {
            tier,
            ..quota(name, &[(Scope::User, Measure::Concurrent, Reset::Live, most)])
        })
    };
    let mut f = world(Vec::new());
    let tiers = vec![tier("default", 0, &["*"], 1), tier("premium", 1, &["ada", "research-*"], 2)];
    assert_eq!(put(tiers.clone()).since_version(), 14);
    assert_eq!(f.run(put(tiers)), Outcome::Done);
    let ada = reservation(f.run(submit(of("ada", request(1_000)))));
    reservation(f.run(submit(of("ada", request(1_000)))));
    let short = refusal(&mut f, submit(of("ada", request(1_000))));
    assert_eq!((short.reason, short.blockers[0].limit), (Reason::LimitExceeded, 2), "{short:?}");
    reservation(f.run(submit(of("grace", request(1_000)))));
    assert_eq!(
        f.refused(submit(of("grace", request(1_000)))),
        Reason::LimitExceeded,
        "the tier of all others"
    );
    assert_eq!(taken(&f.ledger, "default", concurrent, "ada"), (0, 0));
    // Who is in a tier no more is bound by the other from now on; what runs is settled where it was charged.
    assert_eq!(f.run(put(vec![tier("premium", 1, &["research-*"], 2)])), Outcome::Done);
    reservation(f.run(submit(of("ada", request(1_000)))));
    assert_eq!(f.refused(submit(of("ada", request(1_000)))), Reason::LimitExceeded);
    f.run(Command::Release { reservation: ada.id, token: ada.token });
    assert_eq!(taken(&f.ledger, "premium", concurrent, "ada"), (0, 1));
    assert_eq!(taken(&f.ledger, "default", concurrent, "ada"), (0, 1));

    let both = QuotaPolicy {
        tier: Some(Tier { users: vec!["*".into()], ..Tier::default() }),
        tenant: "ada".into(),
        ..quota("both", &[])
    };
    assert_eq!(f.refused(put(vec![PolicyObject::Quota(both)])), Reason::InvalidArgument);
    assert_eq!(f.refused(put(vec![tier("of-nobody", 3, &[], 1)])), Reason::InvalidArgument);
    let mut old = Fixture::new(1);
    old.run(Command::Upgrade { to: 13 });
    assert_eq!(old.refused(put(vec![tier("default", 0, &["*"], 1)])), Reason::UnsupportedVersion);
}
