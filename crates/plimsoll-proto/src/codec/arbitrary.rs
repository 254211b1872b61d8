//! Strategies that make any ledger value, for round trips; and valid requests and policy objects, for the API.

mod scale;
mod service;

use std::sync::Arc;

use plimsoll_ledger::{
    AdminChange, Affinity, Answer, Blocker, Charge, Class, Command, Device, DeviceGrant, EndReason, Entry,
    Fairness, FencePending, Gang, GpuAsk, GpuShare, Load, Measure, MemberPlacement, Meta, Meter, MigLayout,
    MigProfile, MigSlices, Node, NodeAdmin, NodeHealth, NodeLimits, OnPreempt, Outcome, Placement,
    PolicyName, PolicyObject, Pool, Preempted, Preemption, PreemptionRule, Preferred, ProfileName, Queue,
    QueueOrder, Quota, QuotaPolicy, Rate, Reason, Refusal, Registration, Remembered, RemovedDevice,
    RemovedNode, Request, Requirements, Reservation, Reset, Row, Rule, Schedule, Scope, Service, State, Tab,
    Tokens, Topology, Usage, UsageKey, UsageOf, Users, Validator, Verdict, Wait, Window,
};
use plimsoll_types::{
    Amount, DeviceIndex, Labels, LedgerTime, NodeEpoch, NodeId, Operator, ReservationId, Resources, Revision,
    Selector, Term,
};
use proptest::collection::{btree_map, vec};
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use scale::{intent, scaling, scaling_command, scaling_policy, valid_scaling_policy};
use service::{announcement, endpoint, load_report, service};

/// Numbers with many small ones and both ends.
fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..200u64, any::<u64>(), Just(0), Just(u64::MAX)]
}

fn amount() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..200u64, 0..(u64::MAX >> 1)]
}

fn text() -> impl Strategy<Value = String> {
    "[a-zäß /-]{0,8}"
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([-._a-z0-9]{0,6}[a-z0-9])?"
}

fn hash() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![Just([0; 32]), any::<[u8; 32]>()]
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map("[a-z]{1,5}", "[a-z0-9]{0,5}", 0..4)
}

fn resources() -> impl Strategy<Value = Resources> {
    let other = btree_map("(license|storage)/[a-z]{1,4}", 1..(u64::MAX >> 1), 0..3);
    (amount(), amount(), other).prop_map(|(cpu, memory, other)| {
        let other = other.into_iter().map(|(name, amount)| (name, Amount(amount))).collect();
        Resources { other, ..Resources::new(cpu, memory) }
    })
}

fn term() -> impl Strategy<Value = Term> {
    let operator = select(vec![
        Operator::In,
        Operator::NotIn,
        Operator::Exists,
        Operator::DoesNotExist,
        Operator::Gt,
        Operator::Lt,
    ]);
    ("[a-z]{1,5}", operator, vec("[a-z0-9]{0,5}", 1..4), any::<i64>()).prop_map(
        |(key, operator, values, number)| {
            let values = match operator {
                Operator::In | Operator::NotIn => values,
                Operator::Exists | Operator::DoesNotExist => Vec::new(),
                Operator::Gt | Operator::Lt => vec![number.to_string()],
            };
            Term { key, operator, values }
        },
    )
}

fn selector() -> impl Strategy<Value = Selector> {
    vec(term(), 0..3).prop_map(|terms| Selector { terms })
}

fn gpu() -> impl Strategy<Value = GpuAsk> {
    let share = prop_oneof![
        Just(GpuShare::Whole),
        (1..1000u16).prop_map(GpuShare::Milli),
        (1..(u64::MAX >> 1)).prop_map(GpuShare::Memory),
        profile_name().prop_map(GpuShare::Mig),
    ];
    (1..9u32, share, amount(), vec("[a-z0-9]{1,5}", 0..3)).prop_map(|(count, share, min, models)| GpuAsk {
        count: if share == GpuShare::Whole { count } else { 1 },
        share,
        min_device_memory_bytes: min,
        models,
    })
}

fn profile_name() -> impl Strategy<Value = ProfileName> {
    "[1-7]g\\.[0-9]{1,3}gb(\\+me)?".prop_map(|text| ProfileName::new(&text).expect("it is made as one"))
}

fn slices() -> impl Strategy<Value = MigSlices> {
    [(); 3].map(|()| any::<u8>()).prop_map(|[start, memory, compute]| MigSlices { start, memory, compute })
}

fn layout() -> impl Strategy<Value = MigLayout> {
    let sizes = || [(); 2].map(|()| any::<u8>());
    let profile = (profile_name(), sizes(), number(), vec(any::<u8>(), 0..5)).prop_map(
        |(name, [compute_slices, memory_slices], memory_bytes, starts)| MigProfile {
            name,
            compute_slices,
            memory_slices,
            memory_bytes,
            starts,
        },
    );
    (sizes(), vec(profile, 0..3)).prop_map(|([compute_slices, memory_slices], profiles)| MigLayout {
        compute_slices,
        memory_slices,
        profiles,
    })
}

fn requirements() -> impl Strategy<Value = Requirements> {
    let wish = (1..=100u32, term()).prop_map(|(weight, term)| Preferred { weight, term });
    (resources(), option::of(gpu()), selector(), vec(wish, 0..3))
        .prop_map(|(amounts, gpu, required, preferred)| Requirements { amounts, gpu, required, preferred })
}

fn topology() -> impl Strategy<Value = Topology> {
    let level = || prop_oneof![Just(String::new()), name()];
    let slices = prop_oneof![Just((0u32, String::new())), (1..5u32, name())];
    (level(), level(), slices).prop_map(|(required, preferred, (slice_size, slice_level))| Topology {
        required,
        preferred,
        slice_size,
        slice_level,
    })
}

fn rule() -> impl Strategy<Value = Affinity> {
    (name(), name(), name(), 0..=100u32, any::<bool>())
        .prop_map(|(key, value, level, weight, anti)| Affinity { key, value, level, weight, anti })
}

/// Requests that make sense.
pub(crate) fn valid_request() -> impl Strategy<Value = Request> {
    let gang = (1..100u32, 0..100u32, any::<bool>(), topology(), vec(rule(), 0..3)).prop_map(
        |(min_members, more, spread, topology, affinity)| {
            let group = topology.group();
            let (min_members, max_members) = (min_members * group, (min_members + more) * group);
            (Gang { min_members, max_members, spread }, topology, affinity)
        },
    );
    let wait = prop_oneof![
        Just(Wait::Refuse),
        (0..1_000_000u64).prop_map(|deadline_ms| Wait::Queue { deadline_ms })
    ];
    let length = || prop_oneof![Just(0), 1_000..1_000_000u64];
    let queue = prop_oneof![Just(String::new()), name()];
    let service = prop_oneof![Just(String::new()), name()];
    let words = ("[a-z ]{0,8}", name(), name(), "[a-z]{0,5}", labels(), (queue, service));
    let on_preempt = select(vec![OnPreempt::Requeue, OnPreempt::End]);
    let start = prop_oneof![3 => Just(0), 1 => 1..2_000_000_000_000u64];
    let times = (length(), length(), 0..1_000_000u64, any::<bool>(), number(), start);
    (words, requirements(), gang, times, (wait, on_preempt)).prop_map(
        |(words, requirements, gang, times, end)| {
            let (wait, on_preempt) = end;
            let (gang, topology, affinity) = gang;
            let (name, pool, class, tenant, labels, (queue, service)) = words;
            let (ttl_ms, hold_ms, max_duration_ms, auto_confirm, max_cost_micros, start_at_ms) = times;
            Request {
                name,
                pool,
                class,
                queue,
                service,
                tenant,
                labels,
                requirements,
                gang,
                ttl_ms,
                hold_ms,
                max_duration_ms,
                auto_confirm,
                wait,
                on_preempt,
                max_cost_micros,
                start_at_ms: if max_duration_ms >= 1_000 { start_at_ms } else { 0 },
                topology,
                affinity,
            }
        },
    )
}

fn queue_discipline() -> impl Strategy<Value = plimsoll_ledger::QueueDiscipline> {
    let names = ["", "strict", "skip", "backfill_1", "backfill_17", "backfill_all", "priority", "learned"];
    select(names.to_vec()).prop_map(|name| name.parse().expect("it is one of the names"))
}

fn pool() -> impl Strategy<Value = Pool> {
    let strategy = select(plimsoll_ledger::Strategy::NAMED.map(|(_, strategy)| strategy).to_vec());
    let countables = btree_map("license/[a-z]{1,4}", amount().prop_map(Amount), 0..3);
    let order = select(vec![QueueOrder::BestEffortFifo, QueueOrder::StrictFifo]);
    let fairness = select(vec![Fairness::Priority, Fairness::Fair, Fairness::Quota, Fairness::Weighted]);
    let preemption =
        select(vec![Preemption::Any, Preemption::Never, Preemption::LowerClass, Preemption::Reclaim]);
    let prices =
        btree_map(prop_oneof![Just("cpu".to_owned()), "license/[a-z]{1,4}"], 1..(u64::MAX >> 1), 0..3);
    let words = ("[A-Z]{0,3}", vec(name(), 0..3));
    let queueing = (queue_discipline(), prop_oneof![Just(0), 1_000..31_622_400_000u64]);
    let more = (any::<u32>(), fairness, any::<u32>(), (preemption, any::<u32>()), (prices, words), queueing);
    (name(), labels(), selector(), strategy, countables, order, more).prop_map(
        |(name, labels, select, strategy, countables, queue_order, more)| {
            let (max_pending, fairness, price_milli, preemption, (prices, words), queueing) = more;
            let ((currency, topology), (queueing, starvation_bound_ms)) = (words, queueing);
            let (preemption, max_preemptions_per_hour) = preemption;
            Pool {
                name,
                labels,
                select,
                strategy,
                countables,
                queue_order,
                max_pending,
                fairness,
                price_milli,
                preemption,
                max_preemptions_per_hour,
                prices,
                currency,
                topology,
                queueing,
                starvation_bound_ms,
                changed: Revision(0),
            }
        },
    )
}

fn queue() -> impl Strategy<Value = Queue> {
    let quota = (0..1u64 << 40, 0..1u64 << 40, prop::option::of(0..1u64 << 40)).prop_map(
        |(guaranteed, more, borrow)| {
            let nominal = guaranteed + more;
            let limit = borrow.map(|borrow| Amount(nominal + borrow));
            Quota { guaranteed: Amount(guaranteed), nominal: Amount(nominal), limit }
        },
    );
    let resource = prop_oneof![Just("cpu".to_owned()), Just("gpu".to_owned()), "license/[a-z]{1,4}"];
    let quotas = btree_map(name(), btree_map(resource, quota, 1..3), 0..3);
    let parent = prop_oneof![Just(String::new()), name()];
    (name(), labels(), parent, 0..1_000_000u32, quotas, any::<u32>()).prop_map(
        |(name, labels, parent, weight_milli, quotas, max_pending)| Queue {
            name,
            labels,
            parent,
            weight_milli,
            quotas,
            max_pending,
            changed: Revision(0),
        },
    )
}

fn validator() -> impl Strategy<Value = Validator> {
    let rule = ("[a-z<= 0-9.]{0,10}[a-z]", "[a-z ]{0,8}", "[a-z.]{0,8}")
        .prop_map(|(expression, message, path)| Rule { expression, message, path });
    let names = || prop::collection::btree_set(name(), 0..3);
    (name(), select(vec!["Reservation", "Pool", "Queue"]), names(), names(), vec(rule, 1..4)).prop_map(
        |(name, subject, pools, queues, rules)| Validator {
            name,
            subject: subject.to_owned(),
            pools,
            queues,
            rules,
            changed: Revision(0),
        },
    )
}
fn schedule() -> impl Strategy<Value = Schedule> {
    let rule = select(vec![
        "always",
        "22:00-06:00 UTC",
        "09:30-17:00 Europe/Berlin mon-fri except 2026-12-24,2026-12-31",
        "rrule FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18 for 8h UTC",
        "rrule FREQ=WEEKLY;INTERVAL=2;COUNT=9 for 1d12h from 2026-11-02 Asia/Tokyo",
        "at 2026-12-24T18:00:00Z for 30m",
    ]);
    let resource = prop_oneof![
        Just("cpu".to_owned()),
        Just("memory".to_owned()),
        Just("gpu".to_owned()),
        "license/[a-z]{1,4}"
    ];
    let resources = btree_map(resource, 1..1u64 << 40, 1..4).prop_map(|amounts| {
        amounts.iter().fold(Resources::default(), |all, (name, amount)| all.with(name, *amount))
    });
    let patterns = || vec("[a-z_*?]{1,6}", 0..3);
    let users = (patterns(), patterns(), patterns()).prop_map(|(pipelines, queues, tenants)| Users {
        pipelines,
        queues,
        tenants,
    });
    (name(), labels(), name(), resources, rule, users, any::<bool>()).prop_map(
        |(name, labels, pool, resources, rule, users, shorten)| Schedule {
            name,
            labels,
            pool,
            resources,
            rule: rule.to_owned(),
            users,
            shorten,
            ..Schedule::default()
        },
    )
}

fn windows() -> impl Strategy<Value = Vec<Window>> {
    let window = (number(), number())
        .prop_map(|(start, end)| Window { start: LedgerTime(start), end: LedgerTime(end) });
    vec(window, 0..4)
}

fn class() -> impl Strategy<Value = Class> {
    let ttl = prop_oneof![Just(0), 1_000..1_000_000u64];
    let times = (ttl, 0..1_000_000u64, 0..1_000_000u64, 0..1_000_000u64);
    (name(), any::<i32>(), any::<bool>(), times).prop_map(|(name, priority, preemptible, times)| {
        let (default_ttl_ms, grace_ms, min_run_ms, default_duration_ms) = times;
        Class {
            name,
            priority,
            preemptible,
            default_ttl_ms,
            grace_ms,
            min_run_ms,
            default_duration_ms,
            changed: Revision(0),
        }
    })
}

fn node_limits() -> impl Strategy<Value = NodeLimits> {
    (name(), selector(), resources()).prop_map(|(name, select, max)| NodeLimits {
        name,
        select,
        max,
        changed: Revision(0),
    })
}

/// Policy objects that make sense.
pub(crate) fn valid_policy_object() -> impl Strategy<Value = PolicyObject> {
    prop_oneof![
        pool().prop_map(PolicyObject::Pool),
        class().prop_map(PolicyObject::Class),
        node_limits().prop_map(PolicyObject::NodeLimits),
        queue().prop_map(PolicyObject::Queue),
        quota().prop_map(PolicyObject::Quota),
        validator().prop_map(PolicyObject::Validator),
        schedule().prop_map(PolicyObject::Schedule),
        service().prop_map(PolicyObject::Service),
        valid_scaling_policy().prop_map(PolicyObject::ScalingPolicy),
    ]
}

/// Meters that make sense.
fn meter() -> impl Strategy<Value = Meter> {
    let scope = select(vec![Scope::Together, Scope::User, Scope::Run]);
    let measure = select(Measure::NAMED.map(|(_, measure)| measure).to_vec());
    let reset = prop_oneof![
        Just(Reset::Day),
        Just(Reset::Month),
        Just(Reset::Never),
        (1_000..1_000_000_000u64).prop_map(Reset::Rolling)
    ];
    (scope, measure, reset).prop_map(|(scope, measure, reset)| {
        Meter::new(scope, measure, if measure.is_live() { Reset::Live } else { reset })
    })
}

fn quota() -> impl Strategy<Value = QuotaPolicy> {
    let rate = (1..1_000_000u64, 1..1_000_000u64, 1..1_000_000u64)
        .prop_map(|(tokens, period_ms, burst)| Rate { tokens, period_ms, burst });
    let queue = prop_oneof![Just(String::new()), name()];
    let limits = btree_map(meter(), amount(), 0..5);
    let rates = btree_map("[a-z/]{1,8}", rate, 0..3);
    (name(), labels(), queue, "[a-z*]{0,5}", limits, (any::<bool>(), "[A-Z]{0,3}", rates)).prop_map(
        |(name, labels, queue, tenant, limits, (queue_when_exhausted, currency, rates))| QuotaPolicy {
            name,
            labels,
            queue,
            tenant,
            limits,
            queue_when_exhausted,
            currency,
            rates,
            changed: Revision(0),
        },
    )
}

pub(crate) fn usage_key() -> impl Strategy<Value = UsageKey> {
    let of = prop_oneof![meter().prop_map(UsageOf::Meter), "[a\u{0}\u{1}b]{0,4}".prop_map(UsageOf::Rate)];
    ("[a\u{0}\u{1}b]{0,4}", of, "[a\u{0}b]{0,4}").prop_map(|(quota, of, who)| UsageKey { quota, of, who })
}

fn usage() -> impl Strategy<Value = Usage> {
    (usage_key(), [(); 4].map(|()| number())).prop_map(|(key, [period, spent, committed, stamp])| Usage {
        key,
        period,
        spent,
        committed,
        stamp: LedgerTime(stamp),
    })
}

fn tab() -> impl Strategy<Value = Tab> {
    let charges = btree_map(usage_key(), [(); 4].map(|()| number()), 0..3);
    (number(), charges).prop_map(|(until, charges)| Tab {
        until: LedgerTime(until),
        charges: charges
            .into_iter()
            .map(|(key, [period, from, per_hour, flat])| Charge {
                key,
                period,
                from: LedgerTime(from),
                per_hour,
                flat,
            })
            .collect(),
    })
}

fn policy_name() -> impl Strategy<Value = PolicyName> {
    valid_policy_object().prop_map(|object| object.name())
}

fn blocker() -> impl Strategy<Value = Blocker> {
    (reason(), text(), number(), number(), number(), any::<u32>()).prop_map(
        |(reason, subject, asked, available, limit, nodes)| Blocker {
            reason,
            subject,
            asked,
            available,
            limit,
            nodes,
        },
    )
}

fn reason() -> impl Strategy<Value = Reason> {
    select(vec![
        Reason::UnsupportedVersion,
        Reason::KeyConflict,
        Reason::NotFound,
        Reason::PoolNotFound,
        Reason::QueueNotFound,
        Reason::ServiceNotFound,
        Reason::QuotaExceeded,
        Reason::NotPreemptible,
        Reason::AwaitsPreemption,
        Reason::Preempted,
        Reason::LimitExceeded,
        Reason::BudgetExhausted,
        Reason::RateExceeded,
        Reason::ReservedByCalendar,
        Reason::TopologyMismatch,
        Reason::AffinityConflict,
        Reason::ClassNotFound,
        Reason::InvalidArgument,
        Reason::RevisionMoved,
        Reason::Fenced,
        Reason::WrongState,
        Reason::Expired,
        Reason::InUse,
        Reason::Infeasible,
        Reason::NodeNotAvailable,
        Reason::LabelMismatch,
        Reason::DeviceMismatch,
        Reason::PoolMismatch,
        Reason::CountableExhausted,
        Reason::NoCapacity,
        Reason::BehindInQueue,
        Reason::QueueFull,
        Reason::TableFull,
    ])
}

fn grants() -> impl Strategy<Value = Vec<DeviceGrant>> {
    let grant = (any::<u16>(), any::<u16>(), number(), option::weighted(0.3, slices())).prop_map(
        |(device, milli, memory_bytes, slices)| DeviceGrant {
            device: DeviceIndex(device),
            milli,
            memory_bytes,
            slices,
        },
    );
    vec(grant, 0..3)
}

fn members() -> impl Strategy<Value = Vec<MemberPlacement>> {
    let member =
        (any::<u32>(), grants()).prop_map(|(node, devices)| MemberPlacement { node: NodeId(node), devices });
    vec(member, 0..3)
}

fn placement() -> impl Strategy<Value = Placement> {
    members().prop_map(|members| Placement { members })
}

fn reservation() -> impl Strategy<Value = Reservation> {
    let ends = vec![
        None,
        Some(EndReason::Released),
        Some(EndReason::Cancelled),
        Some(EndReason::NotConfirmed),
        Some(EndReason::NotRenewed),
        Some(EndReason::MaxDuration),
        Some(EndReason::WaitedTooLong),
        Some(EndReason::NodeLost),
        Some(EndReason::NodeFenced),
        Some(EndReason::NodeFailed),
        Some(EndReason::Drained),
        Some(EndReason::Preempted),
        Some(EndReason::WindowOpened),
        Some(EndReason::NeverStarted),
    ];
    let state = || select(State::ALL.to_vec());
    let head = (number(), valid_request(), text(), any::<i32>(), state(), state());
    let rule = select(vec![PreemptionRule::LowerClass, PreemptionRule::Reclaim]);
    let preempted = (rule, [(); 4].map(|()| number())).prop_map(|(rule, [by, at, revision, grace_ms])| {
        Preempted { by: ReservationId(by), rule, at: LedgerTime(at), revision: Revision(revision), grace_ms }
    });
    let ended = (select(ends), option::of(preempted));
    let bill = (option::of(tab()), number(), option::of(endpoint()));
    let tail = (resources(), members(), [(); 8].map(|()| number()), ended, vec(blocker(), 0..3), bill);
    (head, tail).prop_map(|(head, tail)| {
        let (id, request, requester, priority, state, resume_state) = head;
        let (amounts, members, numbers, (end_reason, preempted), blockers, (tab, cost_micros, endpoint)) =
            tail;
        let [token, ttl_ms, submitted, granted, deadline, hard_end, ended, changed] = numbers;
        Reservation {
            id: ReservationId(id),
            request: Arc::new(request),
            requester,
            priority,
            state,
            resume_state,
            amounts,
            members,
            token: Revision(token),
            ttl_ms,
            submitted_at: LedgerTime(submitted),
            granted_at: LedgerTime(granted),
            deadline: LedgerTime(deadline),
            hard_end: LedgerTime(hard_end),
            ended_at: LedgerTime(ended),
            end_reason,
            changed: Revision(changed),
            blockers,
            preempted,
            tab: tab.map(Arc::new),
            cost_micros,
            endpoint: endpoint.map(Arc::new),
        }
    })
}

fn registration() -> impl Strategy<Value = Registration> {
    let device = (text(), text(), number(), any::<bool>(), option::weighted(0.3, layout())).prop_map(
        |(uuid, model, memory_bytes, failed, mig)| Device { uuid, model, memory_bytes, failed, mig },
    );
    let running = vec(number().prop_map(ReservationId), 0..3);
    (text(), number(), text(), labels(), resources(), vec(device, 0..3), any::<bool>(), running).prop_map(
        |(name, incarnation, pool, labels, capacity, devices, self_fencing, running)| Registration {
            name,
            incarnation,
            pool,
            labels,
            capacity,
            devices,
            self_fencing,
            running,
        },
    )
}

fn health() -> impl Strategy<Value = NodeHealth> {
    use NodeHealth::{Available, Failed, Fenced, Lost, Suspect};
    select(vec![Available, Suspect, Lost, Fenced, Failed])
}

fn node() -> impl Strategy<Value = Node> {
    let admin = prop_oneof![
        Just(NodeAdmin::Schedulable),
        text().prop_map(|reason| NodeAdmin::Cordoned { reason }),
        (text(), number()).prop_map(|(reason, at)| NodeAdmin::Draining { reason, deadline: LedgerTime(at) }),
    ];
    let pending =
        (number(), number(), resources(), grants()).prop_map(|(reservation, token, amounts, devices)| {
            FencePending { reservation: ReservationId(reservation), token: Revision(token), amounts, devices }
        });
    let facts = (any::<u32>(), registration(), number(), text(), resources(), admin);
    (facts, health(), number(), vec(pending, 0..3), number()).prop_map(
        |(facts, health, since, fence_pending, changed)| {
            let (id, registration, epoch, pool, allocatable, admin) = facts;
            Node {
                id: NodeId(id),
                registration,
                epoch: NodeEpoch(epoch),
                pool,
                allocatable,
                admin,
                health,
                health_since: LedgerTime(since),
                fence_pending,
                changed: Revision(changed),
            }
        },
    )
}

/// Any outcome.
pub(crate) fn outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        Just(Outcome::Done),
        reservation().prop_map(|after| Outcome::Reservation(Arc::new(after))),
        node().prop_map(|after| Outcome::Node(Arc::new(after))),
        (any::<u32>(), any::<bool>()).prop_map(|(ended, more)| Outcome::Expired { ended, more }),
        [(); 3].map(|()| number()).prop_map(|[taken, left, retry_after_ms]| Outcome::Tokens(Tokens {
            taken,
            left,
            retry_after_ms
        })),
        (reason(), vec(blocker(), 0..3))
            .prop_map(|(reason, blockers)| Outcome::Refused(Refusal { reason, blockers })),
    ]
}

/// Any answer.
pub(crate) fn answer() -> impl Strategy<Value = Answer> {
    (number(), number(), outcome()).prop_map(|(revision, time, outcome)| Answer {
        revision: Revision(revision),
        log_time: LedgerTime(time),
        outcome,
    })
}

/// Any row.
pub(crate) fn row() -> impl Strategy<Value = Row> {
    let changed = || number().prop_map(Revision);
    let meta =
        (any::<u32>(), [(); 5].map(|()| number()), any::<u32>()).prop_map(|(version, numbers, next_node)| {
            let [revision, clock, rearmed, leader, policy] = numbers;
            Meta {
                version,
                revision: Revision(revision),
                clock: LedgerTime(clock),
                rearmed_at: LedgerTime(rearmed),
                leader,
                next_node,
                policy_changed: Revision(policy),
            }
        });
    let remembered = (text(), text(), hash(), answer(), number()).prop_map(
        |(actor, request_id, request_hash, answer, keep)| Remembered {
            actor,
            request_id,
            request_hash,
            answer,
            keep_until: LedgerTime(keep),
        },
    );
    let device = (text(), text()).prop_map(|(uuid, model)| RemovedDevice { uuid, model });
    let removed = (any::<u32>(), text(), vec(device, 0..3), number()).prop_map(|(id, name, devices, at)| {
        RemovedNode { id: NodeId(id), name, devices, removed_at: LedgerTime(at) }
    });
    prop_oneof![
        meta.prop_map(Row::Meta),
        (pool(), changed()).prop_map(|(pool, changed)| Row::Pool(Arc::new(Pool { changed, ..pool }))),
        (class(), changed()).prop_map(|(class, changed)| Row::Class(Arc::new(Class { changed, ..class }))),
        (node_limits(), changed())
            .prop_map(|(limits, changed)| Row::NodeLimits(Arc::new(NodeLimits { changed, ..limits }))),
        (schedule(), windows(), number(), number(), changed()).prop_map(
            |(schedule, windows, opened, swept, changed)| {
                let (opened_until, swept_until) = (LedgerTime(opened), LedgerTime(swept));
                let stored = Schedule { windows, opened_until, swept_until, changed, ..schedule };
                Row::Schedule(Arc::new(stored))
            }
        ),
        (queue(), changed()).prop_map(|(queue, changed)| Row::Queue(Arc::new(Queue { changed, ..queue }))),
        (validator(), changed())
            .prop_map(|(object, changed)| Row::Validator(Arc::new(Validator { changed, ..object }))),
        node().prop_map(|node| Row::Node(Arc::new(node))),
        reservation().prop_map(|reservation| Row::Reservation(Arc::new(reservation))),
        remembered.prop_map(|remembered| Row::Idempotency(Arc::new(remembered))),
        removed.prop_map(|removed| Row::RemovedNode(Arc::new(removed))),
        (quota(), changed())
            .prop_map(|(quota, changed)| Row::Quota(Arc::new(QuotaPolicy { changed, ..quota }))),
        usage().prop_map(|usage| Row::Usage(Arc::new(usage))),
        (service(), changed())
            .prop_map(|(service, changed)| Row::Service(Arc::new(Service { changed, ..service }))),
        (load_report(), number()).prop_map(|(report, at)| Row::Load(Load { report, at: LedgerTime(at) })),
        scaling_policy().prop_map(|policy| Row::ScalingPolicy(Arc::new(policy))),
        scaling().prop_map(|state| Row::Scaling(Arc::new(state))),
        intent().prop_map(|intent| Row::Intent(Arc::new(intent))),
    ]
}

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        placement().prop_map(Verdict::Place),
        vec(blocker(), 0..3).prop_map(Verdict::Blocked),
        vec(blocker(), 0..3).prop_map(Verdict::Infeasible),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let reservation = || number().prop_map(ReservationId);
    let token = || number().prop_map(Revision);
    let node = || any::<u32>().prop_map(NodeId);
    let admin = prop_oneof![
        Just(AdminChange::Uncordon),
        text().prop_map(|reason| AdminChange::Cordon { reason }),
        (text(), number()).prop_map(|(reason, deadline_ms)| AdminChange::Drain { reason, deadline_ms }),
    ];
    prop_oneof![
        (valid_request(), verdict()).prop_map(|(request, verdict)| Command::Submit { request, verdict }),
        (reservation(), placement())
            .prop_map(|(reservation, placement)| Command::Place { reservation, placement }),
        (reservation(), placement(), vec(reservation(), 0..3)).prop_map(
            |(reservation, placement, victims)| { Command::Preempt { reservation, placement, victims } }
        ),
        (reservation(), token()).prop_map(|(reservation, token)| Command::Confirm { reservation, token }),
        (reservation(), token(), number()).prop_map(|(reservation, token, ttl_ms)| Command::Renew {
            reservation,
            token,
            ttl_ms
        }),
        (reservation(), token(), resources()).prop_map(|(reservation, token, amounts)| Command::Resize {
            reservation,
            token,
            amounts
        }),
        (reservation(), token()).prop_map(|(reservation, token)| Command::Release { reservation, token }),
        (reservation(), token()).prop_map(|(reservation, token)| Command::Requeue { reservation, token }),
        reservation().prop_map(|reservation| Command::Cancel { reservation }),
        any::<u32>().prop_map(|limit| Command::Expire { limit }),
        registration().prop_map(Command::RegisterNode),
        (node(), number(), health()).prop_map(|(node, epoch, health)| Command::SetNodeHealth {
            node,
            epoch: NodeEpoch(epoch),
            health
        }),
        (node(), admin).prop_map(|(node, admin)| Command::SetNodeAdmin { node, admin }),
        (node(), any::<u16>(), any::<bool>()).prop_map(|(node, device, failed)| Command::SetDeviceHealth {
            node,
            device: DeviceIndex(device),
            failed
        }),
        node().prop_map(|node| Command::RemoveNode { node }),
        (vec(valid_policy_object(), 0..3), vec(policy_name(), 0..3), token())
            .prop_map(|(put, delete, if_revision)| Command::ApplyPolicy { put, delete, if_revision }),
        number().prop_map(|leader| Command::BecomeLeader { leader }),
        any::<u32>().prop_map(|to| Command::Upgrade { to }),
        (text(), text(), text(), number()).prop_map(|(quota, rate, scope, tokens)| Command::TakeTokens {
            quota,
            rate,
            scope,
            tokens
        }),
        (reservation(), token(), option::of(announcement())).prop_map(|(reservation, token, announced)| {
            Command::SetEndpoint { reservation, token, announced }
        }),
        vec(load_report(), 0..4).prop_map(|mut reports| {
            reports.sort_by_key(|report| report.reservation);
            reports.dedup_by_key(|report| report.reservation);
            Command::ReportLoad { reports }
        }),
        scaling_command(),
        (name(), token(), windows(), number()).prop_map(|(schedule, changed, windows, until)| {
            Command::OpenWindows { schedule, changed, windows, until: LedgerTime(until) }
        }),
    ]
}

/// Any entry.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (text(), text(), hash(), command()).prop_map(|(actor, request_id, request_hash, command)| Entry {
        actor,
        request_id,
        request_hash,
        command,
    })
}
