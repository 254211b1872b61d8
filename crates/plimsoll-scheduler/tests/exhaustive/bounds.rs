//! What time and money let be granted: limits and budgets (`docs/semantics.md`, 5.3), the calendar (5.4) and preferred hours (5.25), as they are written
//! there. Nothing here knows of spot nodes, whose price would be part of a cost, nor of what fades.

use std::collections::BTreeMap;

use plimsoll_ledger::{
    Ledger, Measure, Meter, Outcome, PolicyObject, Pool, PreferredHours, Request, Reservation, Schedule,
    Scope, Window,
};
use plimsoll_types::{Amount, LedgerTime};
use proptest::prelude::*;

use super::cases::{Setup, Step, ledger_of, story};
use super::scene::{Scene, charge_of};
use crate::fixture::bounded::{HOUR_MS, Kept, People, keep, kept, people, put_all, quota_of, schedule_of};

/// What is set beside nodes and queues.
#[derive(Clone, Debug)]
pub(crate) struct Bounds {
    people: Option<People>,
    kept: Option<Kept>,
    /// The hours `night` are now.
    is_night: bool,
}

/// A lease where nobody says how long.
const LEASE_MS: u64 = 60_000;

/// Histories in which time and money matter: requests of two users and classes, with and without an end, some of which would rather wait.
pub(crate) fn bounded_story() -> impl Strategy<Value = (Setup, Bounds, Vec<Step>)> {
    let bounds = (prop::option::weighted(0.7, people()), prop::option::weighted(0.7, kept()), any::<bool>());
    let whose = (any::<bool>(), prop::bool::weighted(0.3), prop::option::weighted(0.7, 1u64..5), 0u32..6);
    (story(), bounds, prop::collection::vec(whose, 48)).prop_map(
        |((setup, steps), (people, kept, is_night), whose)| {
            let mut whose = whose.into_iter().cycle();
            let mut of = |request: Request| {
                let (is_ada, is_critical, hours, waits) = whose.next().unwrap_or_default();
                let hours_of = PreferredHours { schedule: "night".into(), longest_wait_ms: HOUR_MS };
                Request {
                    tenant: if is_ada { "ada".into() } else { "bob".into() },
                    class: if is_critical { "critical".into() } else { "standard".into() },
                    max_duration_ms: hours.unwrap_or(0) * HOUR_MS,
                    hours: (waits == 0).then_some(hours_of),
                    qos: None,
                    ..request
                }
            };
            let steps = steps.into_iter().map(|step| match step {
                Step::Ask(requests) => Step::Ask(requests.into_iter().take(1).map(&mut of).collect()),
                other => other,
            });
            let steps = steps.collect();
            // Best effort beyond what nodes have is another matter.
            let setup = Setup { cpu_permille: 1_000, ..setup };
            let kept = kept.map(|kept| Kept { cpu_millis: kept.cpu_millis / 3, ..kept });
            (setup, Bounds { people, kept, is_night }, steps)
        },
    )
}

pub(crate) fn bounded_ledger_of(setup: &Setup, bounds: &Bounds) -> Ledger {
    let mut ledger = ledger_of(setup);
    let night = Schedule {
        name: "night".into(),
        pool: "default".into(),
        rule: "nights".into(),
        ..Schedule::default()
    };
    let mut put = vec![PolicyObject::Schedule(night)];
    put.extend(bounds.people.as_ref().map(|people| PolicyObject::Quota(quota_of(people))));
    if bounds.people.as_ref().is_some_and(|people| people.cost.is_some()) {
        let pool = Pool::clone(ledger.pool("default").expect("it is there"));
        put.push(PolicyObject::Pool(Pool { prices: [("cpu".to_owned(), 1_000_000)].into(), ..pool }));
    }
    let kept = bounds.kept.as_ref().filter(|kept| !kept.is_plan);
    put.extend(kept.map(|kept| {
        PolicyObject::Schedule(Schedule { shorten: kept.shorten, ..schedule_of(kept.cpu_millis) })
    }));
    assert_eq!(put_all(&mut ledger, put), Outcome::Done);
    if bounds.is_night {
        let changed = ledger.schedule("night").expect("just put").changed;
        let start = ledger.clock();
        let windows = vec![Window { start, end: LedgerTime(u64::MAX) }];
        let (schedule, until) = ("night".to_owned(), LedgerTime(u64::MAX));
        let command = plimsoll_ledger::Command::OpenWindows { schedule, changed, windows, until };
        assert_eq!(crate::fixture::apply(&mut ledger, command), Outcome::Done);
    }
    if let Some(kept) = &bounds.kept {
        keep(&mut ledger, kept);
    }
    ledger
}

/// True where some meter has less left than so many members would commit.
pub(crate) fn is_over_a_limit(scene: &Scene<'_>, request: &Request, members: u64) -> bool {
    let now = scene.ledger.clock();
    let meters = scene.ledger.quota_policies().flat_map(|quota| quota.limits.iter());
    meters.into_iter().any(|(meter, most)| {
        let same =
            |one: &&&Reservation| meter.scope == Scope::Together || one.request.tenant == request.tenant;
        let held: u64 = scene
            .held
            .iter()
            .filter(same)
            .map(|one| committed(scene, meter, &one.request, one.members.len() as u64, one.granted_at))
            .sum();
        held + committed(scene, meter, request, members, now) > *most
    })
}

/// What a grant commits, from its begin to the moment until which it is paid.
fn committed(scene: &Scene<'_>, meter: &Meter, request: &Request, members: u64, at: LedgerTime) -> u64 {
    let cpu = request.requirements.amounts.cpu_millis.0 * members;
    let prices = scene.pool(&request.pool).map(|pool| &pool.prices);
    let per_hour = match meter.measure {
        Measure::Concurrent => return 1,
        Measure::CpuHours => cpu * 1_000,
        Measure::Cost => {
            let price = prices.and_then(|prices| prices.get("cpu")).copied().unwrap_or_default();
            (cpu * price).div_ceil(1_000)
        }
        other => panic!("no test asks for {other:?}"),
    };
    let length_ms = if request.max_duration_ms > 0 { request.max_duration_ms } else { LEASE_MS };
    assert_eq!(at, scene.ledger.clock(), "no time goes by in these histories");
    (u128::from(per_hour) * u128::from(length_ms)).div_ceil(u128::from(HOUR_MS)) as u64
}

/// True where somebody else is kept what the charge would take.
pub(crate) fn is_kept_for_others(scene: &Scene<'_>, request: &Request, charge: &[(String, u64)]) -> bool {
    let now = scene.ledger.clock();
    let end = match request.max_duration_ms {
        0 => LedgerTime(u64::MAX),
        length_ms => now.plus_ms(length_ms),
    };
    let schedules = || scene.ledger.schedules().filter(|one| one.pool == request.pool);
    let plans =
        || scene.ledger.reservations().filter(|one| one.is_advance() && one.request.pool == request.pool);
    let window_of = |one: &Reservation| {
        let start = LedgerTime(one.request.start_at_ms);
        Window { start, end: start.plus_ms(one.request.max_duration_ms) }
    };
    let starts = schedules().flat_map(|one| one.windows.iter().map(|window| window.start));
    let starts = starts.chain(plans().map(|one| window_of(one).start));
    let mut moments: Vec<LedgerTime> = starts.filter(|start| *start > now && *start < end).collect();
    moments.push(now);
    moments.sort_unstable();
    let first = moments.into_iter().find(|at| {
        charge.iter().filter(|(_, asked)| *asked > 0).any(|(name, asked)| {
            let planned: u64 =
                plans().filter(|one| window_of(one).holds(*at)).map(|one| most_of(one, name)).sum();
            let of_others = schedules()
                .filter(|one| !may_use(one, request) && one.windows.iter().any(|window| window.holds(*at)));
            let scheduled: u64 = of_others
                .map(|one| one.resources.get(name).0.saturating_sub(held_of(scene, one, name, *at)))
                .sum();
            let kept = planned + scheduled;
            let (offered, used) =
                (offered(scene, &request.pool, name), used(scene, &request.pool, name, *at));
            kept > 0 && *asked > offered.saturating_sub(used + kept)
        })
    });
    let Some(at) = first else { return false };
    let cuts =
        |one: &std::sync::Arc<Schedule>| !one.windows.iter().any(|window| window.start == at) || one.shorten;
    let by_schedule = schedules().any(|one| one.windows.iter().any(|window| window.start == at));
    let by_plan = plans().any(|one| window_of(one).start == at);
    !(at >= now.plus_ms(1_000) && by_schedule && !by_plan && schedules().all(cuts))
}

fn may_use(schedule: &Schedule, request: &Request) -> bool {
    schedule.users.classes.contains(&request.class)
}

/// What an advance reservation keeps: of members that are alike and ask for no device.
fn most_of(one: &Reservation, name: &str) -> u64 {
    one.request.requirements.amounts.get(name).0 * u64::from(one.request.gang.max_members.max(1))
}

/// What grants that count for a schedule have then.
fn held_of(scene: &Scene<'_>, schedule: &Schedule, name: &str, at: LedgerTime) -> u64 {
    let theirs = scene.held.iter().filter(|one| may_use(schedule, &one.request) && is_there(scene, one, at));
    theirs.map(|one| on_good_nodes(scene, one, &schedule.pool, name)).sum()
}

/// Where the moment lies ahead, whoever ends by then is not reckoned with.
fn is_there(scene: &Scene<'_>, one: &Reservation, at: LedgerTime) -> bool {
    at == scene.ledger.clock() || one.hard_end.0 == 0 || one.hard_end > at
}

fn offered(scene: &Scene<'_>, pool: &str, name: &str) -> u64 {
    let total = scene.pool(pool).and_then(|pool| pool.countables.get(name).copied());
    let good = scene.nodes().filter(|node| node.pool == pool && node.is_eligible());
    match (total, name) {
        (Some(Amount(total)), _) => total,
        (None, "gpu") => {
            let devices = good.flat_map(|node| &node.registration.devices);
            devices.filter(|device| !device.failed).count() as u64 * 1_000
        }
        _ => good.map(|node| node.allocatable.get(name).0).sum(),
    }
}

fn used(scene: &Scene<'_>, pool: &str, name: &str, at: LedgerTime) -> u64 {
    let there = scene.held.iter().filter(|one| is_there(scene, one, at));
    there.map(|one| on_good_nodes(scene, one, pool, name)).sum()
}

/// The charge of a grant, of members on nodes of a pool that take work.
fn on_good_nodes(scene: &Scene<'_>, one: &Reservation, pool: &str, name: &str) -> u64 {
    let good = |member: &&plimsoll_ledger::MemberPlacement| {
        scene.node(member.node).is_some_and(|node| node.pool == pool && node.is_eligible())
    };
    let counts_in_pool = scene.pool(pool).is_some_and(|pool| pool.countables.contains_key(name));
    let members: Vec<_> = match counts_in_pool {
        true if one.request.pool == pool => one.members.clone(),
        true => Vec::new(),
        false => one.members.iter().filter(good).cloned().collect(),
    };
    let charge: BTreeMap<String, u64> = charge_of(&one.amounts, &members).into_iter().collect();
    charge.get(name).copied().unwrap_or_default()
}

/// True where it would rather start in other hours: nobody has waited yet.
pub(crate) fn is_out_of_hours(scene: &Scene<'_>, request: &Request) -> bool {
    let Some(hours) = &request.hours else { return false };
    let now = scene.ledger.clock();
    let schedule = scene.ledger.schedules().find(|one| one.name == hours.schedule);
    schedule.is_some_and(|one| !one.windows.iter().any(|window| window.holds(now)))
}
