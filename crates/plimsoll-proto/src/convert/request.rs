//! What is asked.

use plimsoll_ledger::limits::{MAX_TTL_MS, MIN_TTL_MS};
use plimsoll_ledger::{
    DEFAULT_CLASS, DEFAULT_POOL, Gang, Ledger, MAX_POINTS, MAX_ROLES, OnPreempt, PreferredHours, Request,
    Requirements, Role, Wait,
};

use super::check::Check;
use super::{Violation, qos, qos_to_v1, requirements_to_v1, resources, resources_to_v1, spot, topology};
use crate::limits::MAX_GANG_MEMBERS;
use crate::v1;

/// A request from its message, with the names of pool and class (but for a replica of a service: see [`fill_from_service`]) and the size of the
/// gang filled in. Durations of 0 stay:
/// the ledger knows their defaults.
///
/// # Errors
/// Everything that is wrong with it.
pub fn request_from_v1(from: &v1::ReservationSpec) -> Result<Request, Vec<Violation>> {
    let mut check = Check::new();
    // A replica is in the pool and of the class of its service, which is looked up later.
    let of_service = !from.service.is_empty();
    let or_default =
        |name: &str, default: &str| if name.is_empty() && !of_service { default } else { name }.to_owned();
    let pool = or_default(&from.pool, DEFAULT_POOL);
    let class = or_default(&from.class, DEFAULT_CLASS);
    check.short_text("name", &from.name);
    for (field, name) in [("pool", &pool), ("class", &class)] {
        if !(of_service && name.is_empty()) {
            check.name(field, name);
        }
    }
    check.short_text("tenant", &from.tenant);
    if !from.queue.is_empty() {
        check.name("queue", &from.queue);
    }
    if !from.service.is_empty() {
        check.name("service", &from.service);
    }
    let labels = check.labels("labels", &from.labels);
    let needs = from.requirements.clone().unwrap_or_default();
    let requirements = check.within("requirements", |check| resources::requirements(check, &needs));
    let roles = check.each("roles", &from.roles, MAX_ROLES, role);
    let gang = check.within("gang", |check| gang(check, &from.gang.unwrap_or_default(), &roles));
    if !roles.is_empty() {
        beside_roles(&mut check, from, &requirements, &roles);
    }
    check.range_or_default("ttl_ms", from.ttl_ms, MIN_TTL_MS, MAX_TTL_MS);
    check.range_or_default("hold_ms", from.hold_ms, MIN_TTL_MS, MAX_TTL_MS);
    check.range("max_duration_ms", from.max_duration_ms, 0, MAX_TTL_MS);
    if from.start_at_ms > 0 && from.max_duration_ms < MIN_TTL_MS {
        let length = from.max_duration_ms;
        check.fail(
            "max_duration_ms",
            format!("is {length}, but start_at_ms is set: say for how long, at least {MIN_TTL_MS}"),
        );
    }
    check.range("nice", from.nice.into(), 0, MAX_POINTS.into());
    check.range_or_default("repair_within_ms", from.repair_within_ms, MIN_TTL_MS, MAX_TTL_MS);
    if from.repair_within_ms > 0 {
        repairable(&mut check, from, gang);
    }
    let wait = from.wait.unwrap_or_default();
    check.range("wait.deadline_ms", wait.deadline_ms, 0, MAX_TTL_MS);
    if wait.deadline_ms > 0 && !wait.queue {
        check.fail(
            "wait.deadline_ms",
            format!("is {}, but queue is not set: nothing waits", wait.deadline_ms),
        );
    }
    let on_preempt = match v1::OnPreempt::try_from(from.on_preempt) {
        Ok(v1::OnPreempt::Unspecified | v1::OnPreempt::Requeue) => OnPreempt::Requeue,
        Ok(v1::OnPreempt::End) => OnPreempt::End,
        Err(_) => {
            check.fail("on_preempt", format!("{} is not known", from.on_preempt));
            OnPreempt::default()
        }
    };
    let request = Request {
        name: from.name.clone(),
        pool,
        class,
        tenant: from.tenant.clone(),
        queue: from.queue.clone(),
        service: from.service.clone(),
        labels,
        requirements,
        gang,
        ttl_ms: from.ttl_ms,
        hold_ms: from.hold_ms,
        max_duration_ms: from.max_duration_ms,
        auto_confirm: from.auto_confirm,
        max_cost_micros: from.limits.unwrap_or_default().cost_micros,
        topology: check.within("topology", |check| topology::topology(check, from.topology.as_ref(), gang)),
        affinity: topology::affinity(&mut check, &from.affinity),
        wait: if wait.queue { Wait::Queue { deadline_ms: wait.deadline_ms } } else { Wait::Refuse },
        on_preempt,
        start_at_ms: from.start_at_ms,
        qos: qos::qos(&mut check, from.qos),
        burst: from
            .burst
            .as_ref()
            .map(|burst| check.within("burst", |check| resources::resources(check, burst)))
            .unwrap_or_default(),
        repair_within_ms: from.repair_within_ms,
        on_interruption: spot::on_interruption(&mut check, from.on_interruption),
        hours: from.hours.as_ref().map(|hours| preferred_hours(&mut check, from, hours)),
        nice: from.nice,
        roles,
    };
    check.finish(request)
}

/// Fills in pool and class of a replica, as its service has them: the defaults where there is no such service, for the ledger to say so.
pub fn fill_from_service(request: &mut Request, ledger: &Ledger) {
    if request.service.is_empty() {
        return;
    }
    let service = ledger.service(&request.service);
    if request.pool.is_empty() {
        request.pool = service.map_or(DEFAULT_POOL, |service| &service.pool).to_owned();
    }
    if request.class.is_empty() {
        request.class = service.map_or(DEFAULT_CLASS, |service| &service.class).to_owned();
    }
}

/// A request as a message.
pub fn request_to_v1(from: &Request) -> v1::ReservationSpec {
    v1::ReservationSpec {
        name: from.name.clone(),
        pool: from.pool.clone(),
        class: from.class.clone(),
        tenant: from.tenant.clone(),
        queue: from.queue.clone(),
        service: from.service.clone(),
        labels: from.labels.clone(),
        requirements: Some(requirements_to_v1(&from.requirements)),
        gang: Some(v1::Gang {
            min_members: from.gang.min_members,
            max_members: from.gang.max_members,
            spread: from.gang.spread,
        }),
        ttl_ms: from.ttl_ms,
        hold_ms: from.hold_ms,
        max_duration_ms: from.max_duration_ms,
        auto_confirm: from.auto_confirm,
        wait: Some(match from.wait {
            Wait::Refuse => v1::WaitPolicy { queue: false, deadline_ms: 0 },
            Wait::Queue { deadline_ms } => v1::WaitPolicy { queue: true, deadline_ms },
        }),
        on_preempt: match from.on_preempt {
            OnPreempt::Requeue => v1::OnPreempt::Requeue,
            OnPreempt::End => v1::OnPreempt::End,
        }
        .into(),
        topology: topology::topology_to_v1(&from.topology),
        affinity: from.affinity.iter().map(topology::rule_to_v1).collect(),
        limits: (from.max_cost_micros > 0).then_some(v1::RequestLimits { cost_micros: from.max_cost_micros }),
        start_at_ms: from.start_at_ms,
        qos: qos_to_v1(from.qos).into(),
        burst: (!from.burst.is_zero()).then(|| resources_to_v1(&from.burst)),
        repair_within_ms: from.repair_within_ms,
        on_interruption: spot::on_interruption_to_v1(from.on_interruption).into(),
        hours: from.hours.as_ref().map(|hours| v1::PreferredHours {
            schedule: hours.schedule.clone(),
            longest_wait_ms: hours.longest_wait_ms,
        }),
        nice: from.nice,
        roles: from.roles.iter().map(role_to_v1).collect(),
    }
}

fn preferred_hours(
    check: &mut Check,
    spec: &v1::ReservationSpec,
    from: &v1::PreferredHours,
) -> PreferredHours {
    check.name("hours.schedule", &from.schedule);
    check.range("hours.longest_wait_ms", from.longest_wait_ms, MIN_TTL_MS, MAX_TTL_MS);
    if spec.start_at_ms > 0 {
        check.fail("start_at_ms", "is set, and hours are preferred: give one of them".to_owned());
    }
    PreferredHours { schedule: from.schedule.clone(), longest_wait_ms: from.longest_wait_ms }
}

fn role_to_v1(from: &Role) -> v1::Role {
    v1::Role {
        name: from.name.clone(),
        requirements: Some(requirements_to_v1(&from.requirements)),
        min_members: from.min_members,
        max_members: from.max_members,
    }
}

fn role(check: &mut Check, from: &v1::Role) -> Role {
    check.name("name", &from.name);
    let needs = from.requirements.clone().unwrap_or_default();
    let requirements = check.within("requirements", |check| resources::requirements(check, &needs));
    let max_members = if from.max_members > 0 { from.max_members } else { from.min_members.max(1) };
    check.range("max_members", max_members.into(), 1, MAX_GANG_MEMBERS.into());
    if from.min_members > max_members {
        let (min, max) = (from.min_members, max_members);
        check.fail("min_members", format!("is {min}, above max_members, which is {max}"));
    }
    Role { name: from.name.clone(), requirements, min_members: from.min_members, max_members }
}

/// What a gang of roles must not say beside them.
fn beside_roles(check: &mut Check, from: &v1::ReservationSpec, needs: &Requirements, roles: &[Role]) {
    for (index, role) in roles.iter().enumerate() {
        if roles[..index].iter().any(|other| other.name == role.name) {
            check.fail(
                &format!("roles[{index}].name"),
                format!("is {:?}, as that of another role", role.name),
            );
        }
    }
    let mut not_beside = |field: &str, why: &str| {
        check.fail(field, format!("is set beside roles: {why}"));
    };
    if !needs.amounts.is_zero() || needs.gpu.is_some() {
        not_beside("requirements", "say what members need in the roles; only labels are asked of all");
    }
    if from.burst.is_some() {
        not_beside("burst", "members of different roles ask for different amounts");
    }
    if from.topology.as_ref().is_some_and(|topology| topology.slice_size > 0) {
        not_beside("topology.slice_size", "groups are of members that are alike");
    }
}

/// What a gang that is to be repaired must not say: it has members to lose, and each of its places can be judged by itself.
fn repairable(check: &mut Check, from: &v1::ReservationSpec, gang: Gang) {
    let set = from.repair_within_ms;
    let mut not_with = |why: &str| {
        check.fail("repair_within_ms", format!("is {set}, but {why}"));
    };
    if gang.max_members < 2 {
        not_with("there is one member: what is lost with its node is all of it");
    }
    if from.topology.as_ref().is_some_and(|topology| topology.slice_size > 0) {
        not_with("topology.slice_size is set: groups are placed whole or not at all");
    }
    if !from.affinity.is_empty() {
        not_with("affinity is set: its rules are about whole gangs");
    }
}

fn gang(check: &mut Check, from: &v1::Gang, roles: &[Role]) -> Gang {
    if !roles.is_empty() {
        let sum = |of: fn(&Role) -> u32| roles.iter().map(of).fold(0, u32::saturating_add);
        let sums = (sum(|role| role.min_members), sum(|role| role.max_members));
        for (field, given, sum) in
            [("min_members", from.min_members, sums.0), ("max_members", from.max_members, sums.1)]
        {
            if given > 0 && given != sum {
                check.fail(field, format!("is {given}, and {sum} is the sum of the roles'"));
            }
        }
        check.range("min_members", sums.0.into(), 1, MAX_GANG_MEMBERS.into());
        check.range("max_members", sums.1.into(), 1, MAX_GANG_MEMBERS.into());
        return Gang { min_members: sums.0, max_members: sums.1, spread: from.spread };
    }
    let (min_members, max_members) = match (from.min_members, from.max_members) {
        (0, 0) => (1, 1),
        (0, max) => (max, max),
        (min, 0) => (min, min),
        given => given,
    };
    check.range("max_members", max_members.into(), 1, MAX_GANG_MEMBERS.into());
    if min_members > max_members {
        check.fail("min_members", format!("is {min_members}, above max_members, which is {max_members}"));
    }
    Gang { min_members, max_members, spread: from.spread }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use plimsoll_ledger::{GpuShare, validate_request};
    use proptest::prelude::*;

    use super::*;
    use crate::codec::arbitrary;

    fn gpu(count: u32, milli: u32, memory_bytes: u64) -> v1::ReservationSpec {
        let gpu = v1::GpuAsk { count, milli, memory_bytes, ..Default::default() };
        let requirements = v1::Requirements { gpu: Some(gpu), ..Default::default() };
        v1::ReservationSpec { requirements: Some(requirements), ..Default::default() }
    }

    fn share(spec: &v1::ReservationSpec) -> (u32, GpuShare) {
        let ask = request_from_v1(spec).unwrap().requirements.gpu.unwrap();
        (ask.count, ask.share)
    }

    #[test]
    fn an_empty_spec_is_one_member_of_the_default_pool_and_class() {
        let request = request_from_v1(&v1::ReservationSpec::default()).unwrap();
        assert_eq!((request.pool.as_str(), request.class.as_str()), (DEFAULT_POOL, DEFAULT_CLASS));
        assert_eq!((request.gang, request.wait), (Gang::default(), Wait::Refuse));
        assert_eq!(validate_request(&request), []);
    }

    #[test]
    fn gpu_asks_are_whole_devices_or_a_share_of_one() {
        assert_eq!(share(&gpu(0, 0, 0)), (1, GpuShare::Whole));
        assert_eq!(share(&gpu(4, 1000, 0)), (4, GpuShare::Whole));
        assert_eq!(share(&gpu(1, 500, 0)), (1, GpuShare::Milli(500)));
        assert_eq!(share(&gpu(0, 0, 1 << 30)), (1, GpuShare::Memory(1 << 30)));
        for (bad, field) in
            [(gpu(2, 500, 0), "count"), (gpu(1, 1001, 0), "milli"), (gpu(1, 5, 5), "memory_bytes")]
        {
            let violations = request_from_v1(&bad).unwrap_err();
            assert_eq!(violations[0].field, format!("requirements.gpu.{field}"));
        }
    }

    #[test]
    fn every_violation_is_listed_with_its_path_and_numbers() {
        let term = v1::NodeSelectorTerm { key: "zone".into(), operator: 1, values: Vec::new() };
        let spec = v1::ReservationSpec {
            pool: "No Pool".into(),
            labels: BTreeMap::from([("k".into(), "v".repeat(129))]),
            requirements: Some(v1::Requirements {
                amounts: Some(v1::Quantities {
                    other: BTreeMap::from([("cpu".into(), 1), ("license/Foo".into(), 1)]),
                    cpu_millis: u64::MAX,
                    ..Default::default()
                }),
                required: vec![term.clone(), v1::NodeSelectorTerm { operator: 99, ..term }],
                ..Default::default()
            }),
            gang: Some(v1::Gang { min_members: 3, max_members: 2, spread: false }),
            ttl_ms: 1,
            wait: Some(v1::WaitPolicy { queue: false, deadline_ms: 5 }),
            ..Default::default()
        };
        let fields: Vec<String> =
            request_from_v1(&spec).unwrap_err().into_iter().map(|one| one.field).collect();
        let expected = [
            "pool",
            "labels[\"k\"]",
            "requirements.amounts.cpu_millis",
            "requirements.amounts.other[\"cpu\"]",
            "requirements.amounts.other[\"license/Foo\"]",
            "requirements.required[0].values",
            "requirements.required[1].operator",
            "gang.min_members",
            "ttl_ms",
            "wait.deadline_ms",
        ];
        assert_eq!(fields, expected);
    }

    proptest! {
        #[test]
        fn requests_survive_the_api(request in arbitrary::valid_request()) {
            prop_assert_eq!(request_from_v1(&request_to_v1(&request)), Ok(request));
        }
    }
}
