//! The replicated state machine: who holds what, from when until when, under which rule.
//!
//! `Ledger::apply` is total, synchronous, infallible and deterministic. It reads nothing but the state and the entry:
//! no clock, no randomness, no environment, no float, no hash-map order. Refusals are values. `docs/semantics.md` is the
//! normative text; the invariants are those of `docs/architecture.md`.

mod admit;
mod answers;
mod apply;
mod calendar;
mod capacity;
mod class_order;
mod command;
mod contention;
mod device;
mod discipline;
mod elastic;
mod endpoints;
mod ends;
mod eviction;
mod excerpt;
mod fork;
mod guard;
mod hours;
mod index;
mod interruption;
mod invariants;
mod ledger;
pub mod limits;
mod loading;
mod mig;
mod node;
mod outcome;
mod overflow;
mod placement;
mod policy;
mod preemption;
mod priority_weights;
mod processing;
mod qos;
mod queue_use;
mod quota;
mod recent;
mod relocation;
mod removed;
mod repair;
mod request;
mod reservation;
mod role;
mod row;
mod rows;
mod scaling;
mod service;
mod spot;
mod topology;
mod touched;
mod usage;
mod validate;
mod validator;

pub use apply::ScaleDecided;
pub use calendar::{Ask, Calendar, Room, Schedule, Users, Window, interval, moment};
pub use capacity::{
    CAPACITY_TYPE, CapacityType, OnInterruption, PRICE_PERMILLE, SPOT_POOL, SpotPolicy, not_spot,
};
pub use class_order::ClassOrder;
pub use command::{AdminChange, Command, Entry, SYSTEM_ACTOR, Stamp, Verdict};
pub use contention::{
    Contended, Contention, ContentionPolicy, PoolDemand, Resolution, Resolve, Rung, Severity,
    pressure_permille,
};
pub use device::{best_grant, device_has_room, device_matches, has_room_at, instances_left};
pub use discipline::QueueDiscipline;
pub use elastic::{Elastic, Elasticity, Moved};
pub use eviction::{EvictWhen, EvictWhenError, Evicted, Gauge, Overload, percent};
pub use fork::{Fork, ForkedRows};
pub use hours::PreferredHours;
pub use interruption::Interruption;
pub use invariants::Violation;
pub use ledger::{LATEST_VERSION, Ledger};
pub use mig::{MAX_PROFILES, MAX_SLICES, MigLayout, MigProfile, MigSlices, ProfileName, SliceCost};
pub use node::{
    Device, DeviceUsage, FencePending, Kept, Node, NodeAdmin, NodeHealth, NodeUsage, Registration,
    effective_labels,
};
pub use outcome::{Answer, Applied, Blocker, Event, EventObject, Outcome, Reason, Refusal};
pub use overflow::{Aside, AsideHow, Body, Overflow, OverflowTally, SetAsideOne};
pub use placement::{DeviceGrant, MemberPlacement, Placement};
pub use policy::{
    Class, DEFAULT_CLASS, DEFAULT_POOL, Fairness, GENESIS_CLASSES, NodeLimits, PolicyName, PolicyObject,
    Pool, Preemption, Queue, QueueOrder, Strategy,
};
pub use preemption::Claimant;
pub use priority_weights::{MAX_POINTS, PriorityWeights};
pub use processing::Batch;
pub use qos::Qos;
pub use queue_use::{QueueUse, USUAL_HALF_LIFE_MS};
pub use quota::{
    Account, Cell, Claim, DecayedUse, Expectations, GPU, Quota, QuotaTree, Share, Shortage, charge, decay,
    entitlements, fair_tree_order, least,
};
pub use removed::{RemovedDevice, RemovedNode};
pub use repair::{Repair, Repaired};
pub use request::{
    Gang, GpuAsk, GpuShare, OnPreempt, Preferred, Request, Requirements, WHOLE_DEVICE_MILLI, Wait,
};
pub use reservation::{EndReason, Preempted, PreemptionRule, Reservation, State};
pub use role::{MAX_ROLES, Role, Shares};
pub use row::{Meta, Remembered, Row, RowKey, RowPlace, StoredRow};
pub use rows::RowError;
pub use scaling::{
    Fleet, Intent, IntentAction, IntentState, IntentStep, NodeTemplate, POWER, Pin, Power, Provider,
    ProviderKind, Resting, ScaleChange, Scaling, ScalingFloor, ScalingPolicy, ScalingTarget,
    TEMPLATE_IN_GROUP, TemplateDevice, WorkTemplate, is_program_name,
};
pub use service::{
    Announcement, Balancing, Endpoint, EndpointState, Load, LoadReport, MEASURED, METRICS_SINCE_VERSION,
    Service, host_and_port,
};
pub use spot::{SpotCount, SpotGroup, SpotRoom};
pub use topology::{
    Affinity, Chain, Conflict, ConflictKind, Domain, NODE_LEVEL, Surroundings, Topology, WorkIndex,
};
pub use touched::TouchedRow;
pub use usage::{
    Charge, MICRO, Measure, Meter, Priced, QuotaPolicy, Rate, Reset, Scope, Seen, Tab, Tier, Tokens, Usage,
    UsageBook, UsageKey, UsageOf, date_of, matches_pattern, month_of, price_per_hour,
};
pub use validate::{validate_amounts, validate_policy, validate_registration, validate_request};
pub use validator::{Rule, Validator};
