//! Outcomes, answers and rows.

use std::sync::Arc;

use plimsoll_ledger::{
    Answer, Body, Class, Load, Meta, NodeLimits, Outcome, Pool, Queue, QueueUse, QuotaPolicy, Refusal,
    Remembered, RemovedDevice, RemovedNode, Row, Schedule, Service, Tokens, Validator,
};
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Revision};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;

use super::contention::contention;
use super::node::node;
use super::policy::{class, node_limits, pool, queue, schedule, validator, windows};
use super::reservation::{aside_how, blocker, reason, reservation};
use super::scale::{intent, scaling, scaling_policy};
use super::service::{load_report, service};
use super::usage::{quota, usage};
use super::{hash, number, text};

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
        contention().prop_map(|one| Row::Contention(Arc::new(one))),
        (text(), text(), btree_map(text(), 1..u128::MAX, 0..3), number()).prop_map(
            |(queue, pool, spent, stamp)| {
                Row::QueueUse(Arc::new(QueueUse { queue, pool, spent, stamp: LedgerTime(stamp) }))
            }
        ),
        (number(), aside_how(), vec(any::<u8>(), 0..9)).prop_map(|(id, how, bytes)| {
            let (reservation, bytes) = (ReservationId(id), bytes.into());
            Row::Body(Arc::new(Body { reservation, how, bytes }))
        }),
    ]
}
