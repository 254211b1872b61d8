//! Numbers of the ledger's enums in stored forms. Given once, never changed, only appended.

use plimsoll_ledger::{
    AsideHow, Balancing, ClassOrder, Elasticity, EndReason, Fairness, Gauge, IntentState, NodeHealth,
    OnPreempt, Overflow, Preemption, PreemptionRule, Qos, QueueOrder, Reason, State, Strategy,
};
use plimsoll_types::Operator;

use super::CodecError;
use crate::log;

/// Both directions of one enum from one table, so that neither can miss a value.
macro_rules! pair {
    ($encode:ident, $decode:ident, $ledger:ident, $field:literal, [$($value:ident),+ $(,)?]) => {
        pub(super) fn $encode(value: $ledger) -> i32 {
            let number = match value {
                $($ledger::$value => log::$ledger::$value,)+
            };
            number as i32
        }

        pub(super) fn $decode(number: i32) -> Result<$ledger, CodecError> {
            match log::$ledger::try_from(number) {
                $(Ok(log::$ledger::$value) => Ok($ledger::$value),)+
                Ok(log::$ledger::Unspecified) | Err(_) => {
                    Err(CodecError::UnknownValue { field: $field, value: number })
                }
            }
        }
    };
}

pair!(encode_operator, decode_operator, Operator, "operator", [In, NotIn, Exists, DoesNotExist, Gt, Lt]);
pair!(encode_health, decode_health, NodeHealth, "node health", [Available, Suspect, Lost, Fenced, Failed]);
pair!(
    encode_strategy,
    decode_strategy,
    Strategy,
    "strategy",
    [
        Greedy,
        Balanced,
        Priority,
        FirstFit,
        BestFit,
        WorstFit,
        FirstFitDecreasing,
        Random,
        Fragmentation,
        Optimized
    ]
);
pair!(
    encode_balancing,
    decode_balancing,
    Balancing,
    "balancing",
    [RoundRobin, LeastLoaded, Latency, Weighted, Affinity, Predictive]
);
pair!(encode_intent_state, decode_intent_state, IntentState, "intent state", [Wanted, Acting, Ready, Failed]);
pair!(encode_order, decode_order, QueueOrder, "queue order", [BestEffortFifo, StrictFifo]);
pair!(
    encode_state,
    decode_state,
    State,
    "state",
    [
        Pending, Planned, Held, Active, Partial, Preempting, Releasing, Unknown, Released, Expired, Failed,
        Preempted, Rejected
    ]
);
pair!(
    encode_reason,
    decode_reason,
    Reason,
    "reason",
    [
        UnsupportedVersion,
        KeyConflict,
        NotFound,
        PoolNotFound,
        ClassNotFound,
        InvalidArgument,
        RevisionMoved,
        Fenced,
        WrongState,
        Expired,
        InUse,
        Infeasible,
        NodeNotAvailable,
        LabelMismatch,
        DeviceMismatch,
        PoolMismatch,
        CountableExhausted,
        NoCapacity,
        BehindInQueue,
        QueueFull,
        TableFull,
        QueueNotFound,
        QuotaExceeded,
        NotPreemptible,
        AwaitsPreemption,
        Preempted,
        LimitExceeded,
        BudgetExhausted,
        RateExceeded,
        ReservedByCalendar,
        TopologyMismatch,
        AffinityConflict,
        ServiceNotFound,
        PermissionDenied,
        AwaitsBatch,
        AwaitsHours,
        SpotShare,
        Overflowed
    ]
);
pair!(
    encode_some_end,
    decode_some_end,
    EndReason,
    "end reason",
    [
        Released,
        Cancelled,
        NotConfirmed,
        NotRenewed,
        MaxDuration,
        WaitedTooLong,
        NodeLost,
        NodeFenced,
        NodeFailed,
        Drained,
        Preempted,
        WindowOpened,
        NeverStarted,
        NotRepaired
    ]
);

pair!(
    encode_preemption_rule,
    decode_preemption_rule,
    PreemptionRule,
    "preemption rule",
    [LowerClass, Reclaim, BestEffort, Relocation, Threshold, Interruption]
);
pair!(encode_gauge, decode_gauge, Gauge, "gauge", [Cpu, Memory, CpuPressure, MemoryPressure, IoPressure]);
pair!(encode_aside_how, decode_aside_how, AsideHow, "aside.how", [Spilled, Compressed]);
pair!(encode_some_qos, decode_some_qos, Qos, "qos", [Guaranteed, Burstable, BestEffort]);

/// `None` is 0.
pub(super) fn encode_qos(qos: Option<Qos>) -> i32 {
    qos.map_or(0, encode_some_qos)
}

/// 0 is `None`.
pub(super) fn decode_qos(number: i32) -> Result<Option<Qos>, CodecError> {
    if number == 0 { Ok(None) } else { decode_some_qos(number).map(Some) }
}

/// `None` is 0.
pub(super) fn encode_end(reason: Option<EndReason>) -> i32 {
    reason.map_or(0, encode_some_end)
}

/// 0 is `None`.
pub(super) fn decode_end(number: i32) -> Result<Option<EndReason>, CodecError> {
    if number == 0 { Ok(None) } else { decode_some_end(number).map(Some) }
}

/// By priority is 0: pools had no word for it before ledger version 3.
pub(super) fn encode_fairness(fairness: Fairness) -> i32 {
    match fairness {
        Fairness::Priority => 0,
        Fairness::Fair => 1,
        Fairness::Quota => 2,
        Fairness::Weighted => 3,
        Fairness::FairTree => 4,
    }
}

/// The other way.
pub(super) fn decode_fairness(number: i32) -> Result<Fairness, CodecError> {
    [Fairness::Priority, Fairness::Fair, Fairness::Quota, Fairness::Weighted, Fairness::FairTree]
        .into_iter()
        .find(|fairness| encode_fairness(*fairness) == number)
        .ok_or(CodecError::UnknownKind { what: "fairness" })
}

/// Strict is 0: pools had no word for it before ledger version 14.
pub(super) fn encode_class_order(order: ClassOrder) -> i32 {
    match order {
        ClassOrder::Strict => 0,
        ClassOrder::Weighted => 1,
    }
}

/// The other way.
pub(super) fn decode_class_order(number: i32) -> Result<ClassOrder, CodecError> {
    let mut all = [ClassOrder::Strict, ClassOrder::Weighted].into_iter();
    all.find(|order| encode_class_order(*order) == number)
        .ok_or(CodecError::UnknownKind { what: "class order" })
}

/// Any is 0: pools had no word for it before ledger version 4.
pub(super) fn encode_preemption(preemption: Preemption) -> i32 {
    match preemption {
        Preemption::Any => 0,
        Preemption::Never => 1,
        Preemption::LowerClass => 2,
        Preemption::Reclaim => 3,
    }
}

/// The other way.
pub(super) fn decode_preemption(number: i32) -> Result<Preemption, CodecError> {
    [Preemption::Any, Preemption::Never, Preemption::LowerClass, Preemption::Reclaim]
        .into_iter()
        .find(|preemption| encode_preemption(*preemption) == number)
        .ok_or(CodecError::UnknownKind { what: "preemption" })
}

/// Reject is 0: queues had no word for it before ledger version 11.
pub(super) fn encode_overflow(overflow: Overflow) -> i32 {
    match overflow {
        Overflow::Reject => 0,
        Overflow::SpillToDisk => 1,
        Overflow::Compress => 2,
    }
}

/// The other way.
pub(super) fn decode_overflow(number: i32) -> Result<Overflow, CodecError> {
    Overflow::ALL
        .into_iter()
        .find(|overflow| encode_overflow(*overflow) == number)
        .ok_or(CodecError::UnknownKind { what: "overflow" })
}

/// Dynamic is 0: pools had no word for it before ledger version 9.
pub(super) fn encode_elasticity(elasticity: Elasticity) -> i32 {
    match elasticity {
        Elasticity::Dynamic => 0,
        Elasticity::Static => 1,
        Elasticity::Elastic => 2,
    }
}

/// The other way.
pub(super) fn decode_elasticity(number: i32) -> Result<Elasticity, CodecError> {
    [Elasticity::Dynamic, Elasticity::Static, Elasticity::Elastic]
        .into_iter()
        .find(|elasticity| encode_elasticity(*elasticity) == number)
        .ok_or(CodecError::UnknownKind { what: "elasticity" })
}

/// Requeue is 0: requests had no word for it before ledger version 4.
pub(super) fn encode_on_preempt(on_preempt: OnPreempt) -> i32 {
    match on_preempt {
        OnPreempt::Requeue => 0,
        OnPreempt::End => 1,
    }
}

/// The other way.
pub(super) fn decode_on_preempt(number: i32) -> Result<OnPreempt, CodecError> {
    [OnPreempt::Requeue, OnPreempt::End]
        .into_iter()
        .find(|on_preempt| encode_on_preempt(*on_preempt) == number)
        .ok_or(CodecError::UnknownKind { what: "on_preempt" })
}
