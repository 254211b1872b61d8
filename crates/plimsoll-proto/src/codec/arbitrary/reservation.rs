//! Reservations: where they are, and what stands in their way.

use std::sync::Arc;

use plimsoll_ledger::{
    Aside, AsideHow, Blocker, DeviceGrant, EndReason, Evicted, MemberPlacement, Placement, Preempted,
    PreemptionRule, Reason, Repair, Repaired, Reservation, State,
};
use plimsoll_types::{DeviceIndex, LedgerTime, NodeId, ReservationId, Revision};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::node::slices;
use super::request::valid_request;
use super::service::endpoint;
use super::usage::tab;
use super::{number, resources, text};

pub(super) fn blocker() -> impl Strategy<Value = Blocker> {
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

pub(super) fn reason() -> impl Strategy<Value = Reason> {
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
        Reason::AwaitsBatch,
        Reason::AwaitsHours,
        Reason::SpotShare,
        Reason::Overflowed,
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

pub(super) fn grants() -> impl Strategy<Value = Vec<DeviceGrant>> {
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
    let member = (any::<u32>(), grants(), prop_oneof![3 => Just(0), 1 => any::<u16>()])
        .prop_map(|(node, devices, role)| MemberPlacement { node: NodeId(node), devices, role });
    vec(member, 0..3)
}

pub(super) fn placement() -> impl Strategy<Value = Placement> {
    members().prop_map(|members| Placement { members })
}

pub(super) fn aside_how() -> impl Strategy<Value = AsideHow> {
    select(vec![AsideHow::Spilled, AsideHow::Compressed])
}

fn aside() -> impl Strategy<Value = Aside> {
    (aside_how(), super::hash(), any::<u32>()).prop_map(|(how, body_hash, body_bytes)| Aside {
        how,
        body_hash,
        body_bytes,
    })
}

pub(super) fn reservation() -> impl Strategy<Value = Reservation> {
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
        Some(EndReason::NotRepaired),
    ];
    let state = || select(State::ALL.to_vec());
    // On the heap: strategies are values, and this one is large.
    let head = (number(), valid_request().boxed(), text(), any::<i32>(), state(), state()).boxed();
    let rule = select(vec![
        PreemptionRule::LowerClass,
        PreemptionRule::Reclaim,
        PreemptionRule::BestEffort,
        PreemptionRule::Relocation,
        PreemptionRule::Threshold,
        PreemptionRule::Interruption,
    ]);
    let to = option::of(any::<u32>().prop_map(NodeId));
    let evicted = (super::eviction::overload(), any::<u32>())
        .prop_map(|(overload, above_permille)| Evicted { overload, above_permille });
    let preempted = (rule, [(); 4].map(|()| number()), to, option::of(evicted)).prop_map(
        |(rule, [by, at, revision, grace_ms], to, evicted)| {
            let (by, at, revision) = (ReservationId(by), LedgerTime(at), Revision(revision));
            Preempted { by, rule, at, revision, grace_ms, to, evicted }
        },
    );
    let repair = ([(); 2].map(|()| number()), any::<u32>()).prop_map(|([since, until], members)| Repair {
        since: LedgerTime(since),
        until: LedgerTime(until),
        members,
    });
    let repair = (option::of(repair), vec(number(), 0..3));
    let ended = (select(ends), option::of(preempted), repair).boxed();
    let bill = (option::of(tab()), number(), option::of(endpoint()), option::of(aside())).boxed();
    let tail = (resources(), members(), [(); 8].map(|()| number()), ended, vec(blocker(), 0..3), bill);
    (head, tail).prop_map(|(head, tail)| {
        let (id, request, requester, priority, state, resume_state) = head;
        let (amounts, members, numbers, ended, blockers, (tab, cost_micros, endpoint, aside)) = tail;
        let (end_reason, preempted, (repair, tokens)) = ended;
        let [token, ttl_ms, submitted, granted, deadline, hard_end, ended_at, changed] = numbers;
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
            ended_at: LedgerTime(ended_at),
            end_reason,
            changed: Revision(changed),
            blockers,
            preempted: preempted.map(Box::new),
            tab: tab.map(Arc::new),
            cost_micros,
            endpoint: endpoint.map(Arc::new),
            repaired: Repaired::of(repair, tokens.into_iter().map(Revision).collect()),
            aside: aside.map(Box::new),
        }
    })
}
