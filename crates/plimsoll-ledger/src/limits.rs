//! Bounds and durations that the rules use. They are part of the ledger's versions: changing one needs a new version.

/// Lease length where neither request nor class names one, in milliseconds.
pub const DEFAULT_TTL_MS: u64 = 60_000;
/// Time to confirm where the request names none, in milliseconds.
pub const DEFAULT_HOLD_MS: u64 = 30_000;
/// Time that a preempted grant has to stop where its class names none, in milliseconds.
pub const DEFAULT_GRACE_MS: u64 = 30_000;
/// Over which preemptions are counted, in milliseconds. No longer than an ended reservation is kept.
pub const PREEMPTION_WINDOW_MS: u64 = 3_600_000;
/// Most reservations that give way to one.
pub const MAX_VICTIMS: usize = 4_096;
/// Shortest lease or hold, in milliseconds.
pub const MIN_TTL_MS: u64 = 1_000;
/// Longest lease, hold, wait or duration, in milliseconds (366 days).
pub const MAX_TTL_MS: u64 = 366 * 24 * 3_600_000;
/// Shortest half-life of use over time, in milliseconds: a shorter memory would be none.
pub const MIN_HALF_LIFE_MS: u64 = 60_000;
/// Most members of a gang.
pub const MAX_GANG_MEMBERS: u32 = 1_024;
/// Most labels, selector terms or named resources in one request or registration.
pub const MAX_ITEMS: usize = 256;
/// Most devices of one node, those that are gone included.
pub const MAX_DEVICES: usize = 256;
/// Most pending requests of a pool that sets no bound of its own.
pub const MAX_PENDING: usize = 1_000_000;
/// Most reservations that have not ended.
pub const MAX_LIVE: usize = 20_000_000;
/// Most ended reservations kept for look-up.
pub const MAX_ENDED: usize = 100_000;
/// Most grants of one batch of a queue.
pub const MAX_BATCH: u32 = 100_000;
/// Longest time between batches of a queue, in milliseconds. No longer than an ended reservation is kept.
pub const MAX_BATCH_INTERVAL_MS: u64 = 3_600_000;
/// Most that a grant of a class counts for, in thousandths of what it has.
pub const MAX_MULTIPLIER_MILLI: u32 = 1_000_000;
/// Most queues.
pub const MAX_QUEUES: usize = 10_000;
/// Most queues on the way from one to its root, both counted.
pub const MAX_QUEUE_DEPTH: usize = 16;
/// Most quotas of users (`kind: Quota`).
pub const MAX_QUOTAS: usize = 10_000;
/// Most rows of what has been spent and committed.
pub const MAX_USAGE: usize = 2_000_000;
/// Most levels of a pool, beside `node`.
pub const MAX_LEVELS: usize = 8;
/// Most rules about other work in one request.
pub const MAX_AFFINITY: usize = 32;
/// Largest weight of a queue, in thousandths.
pub const MAX_WEIGHT_MILLI: u32 = 1_000_000_000;
/// Most services.
pub const MAX_SERVICES: usize = 10_000;
/// Longest address of an endpoint, in bytes.
pub const MAX_ADDRESS_BYTES: usize = 255;
/// Largest weight of an endpoint, in thousandths.
pub const MAX_ENDPOINT_WEIGHT_MILLI: u32 = 1_000_000;
/// Last level of priority of endpoints.
pub const MAX_PRIORITY_LEVEL: u32 = 127;
/// Most endpoints in a client's subset.
pub const MAX_SUBSET: u32 = 100_000;
/// Most requests that one entry sets aside or takes back from the overflow of a queue.
pub const MAX_ASIDE: usize = 256;
/// Most bytes of their bodies.
pub const MAX_ASIDE_BYTES: usize = 8 << 20;
/// Most reports of load in one entry.
pub const MAX_LOADS: usize = 10_000;
/// Most metrics in one report of load.
pub const MAX_METRICS: usize = 16;
/// Most bytes of the name of a metric.
pub const MAX_METRIC_BYTES: usize = 64;
/// Most scaling policies.
pub const MAX_SCALING: usize = 1_000;
/// Most machines or replicas of one target.
pub const MAX_REPLICAS: u64 = 1_000_000;
/// Most targets, thresholds or rate policies of a scaling policy.
pub const MAX_SCALING_RULES: usize = 32;
/// Longest name of a scaling policy, in bytes: those of its machines begin with it.
pub const MAX_SCALING_NAME_BYTES: usize = 40;
/// Largest utilization or tolerance of a scaling policy, in thousandths.
pub const MAX_SCALING_PERMILLE: u64 = 10_000;
/// Longest call of a provider, in milliseconds.
pub const MAX_PROVIDER_TIMEOUT_MS: u64 = 3_600_000;
/// Most calls of a provider for one intent.
pub const MAX_PROVIDER_ATTEMPTS: u64 = 100;
/// Most floors of a scaling policy.
pub const MAX_FLOORS: usize = 16;
/// Most lines of what a decision was computed from.
pub const MAX_SCALING_INPUTS: usize = 32;
/// Longest text about scaling, in bytes: a line, a handle, what a provider said.
pub const MAX_SCALING_TEXT: usize = 512;
/// Most templates of one scaling policy.
pub const MAX_TEMPLATES: usize = 16;
/// Changes of what a target wants that are kept.
pub const MAX_SCALE_CHANGES: usize = 64;
/// Most machines of one policy that are on their way or leaving.
pub const MAX_OPEN_INTENTS: usize = 1_000;
/// Failed intents of one policy that are kept to be looked at.
pub const MAX_FAILED_INTENTS: usize = 8;
/// How long after a failed intent no other is opened, in milliseconds: after the first one, and at most. It doubles with each.
pub const SCALE_BACKOFF_MS: (u64, u64) = (5_000, 600_000);
/// Most of those who wait for a pool that are looked at for contention: the first of its queue.
pub const MAX_CONTENTION_WAITING: usize = 4_096;
/// Nobody waiting so long, in milliseconds, is not contended.
pub const CONTENTION_OPEN_AFTER_MS: u64 = 10_000;
/// A severity lasts so long before it falls or the contention ends, in milliseconds.
pub const CONTENTION_HOLD_MS: u64 = 60_000;
/// An open contention is measured anew after so long, in milliseconds.
pub const CONTENTION_OBSERVE_MS: u64 = 60_000;
/// Most open contentions.
pub const MAX_OPEN_CONTENTIONS: usize = 1_000;
/// Most contentions that ended and are kept; past this the one that ended first goes first.
pub const MAX_ENDED_CONTENTIONS: usize = 1_000;
/// How long a contention that ended is kept, in milliseconds.
pub const CONTENTION_RETENTION_MS: u64 = 7 * 24 * 3_600_000;
/// Most notes of what was done about a contention; past this the oldest goes.
pub const MAX_RESOLUTIONS: usize = 64;
/// Most classes that are named of those who wait.
pub const MAX_CONTENTION_CLASSES: usize = 8;
/// Most that a pool offers of a resource beside what its nodes have, in thousandths of that.
pub const MAX_OVERSUBSCRIPTION_PERMILLE: u32 = 100_000;
/// Least and most time for which an eviction threshold has to be crossed, in milliseconds.
pub const MIN_EVICT_FOR_MS: u64 = 1_000;
/// See [`MIN_EVICT_FOR_MS`].
pub const MAX_EVICT_FOR_MS: u64 = 3_600_000;
/// Most that a node costs, in thousandths of its pool's prices.
pub const MAX_PRICE_PERMILLE: u32 = 1_000_000;
/// Longest word for what may be on spot nodes, in bytes.
pub const MAX_TAG_BYTES: usize = 128;
/// Longest notice of a provider that takes a node back, in milliseconds.
pub const MAX_INTERRUPTION_MS: u64 = 24 * 3_600_000;
/// Most validators.
pub const MAX_VALIDATORS: usize = 256;
/// Most rules of a validator.
pub const MAX_RULES: usize = 32;
/// Longest expression, message or path of a rule, in bytes.
pub const MAX_EXPRESSION_BYTES: usize = 1_024;
/// Most windows of a schedule.
pub const MAX_WINDOWS: usize = 64;
/// Longest rule of a schedule, in bytes.
pub const MAX_RULE_BYTES: usize = 2_048;
/// Longest pattern of a schedule, in bytes.
pub const MAX_PATTERN_BYTES: usize = 128;
/// Most schedules of one pool.
pub const MAX_SCHEDULES: usize = 16;
/// Most nodes that a bound of an elastic pool may say.
pub const MAX_POOL_NODES: u64 = 1_000_000;
/// Most advance reservations of one pool that have not started.
pub const MAX_PLANNED: usize = 64;
/// How long before a window grants are cut that would run into it, in milliseconds.
pub const CUT_NOTICE_MS: u64 = 600_000;
/// How long an ended reservation is kept for look-up, in milliseconds.
pub const ENDED_RETENTION_MS: u64 = 3_600_000;
/// How long an answer is remembered under its request id, in milliseconds.
pub const REMEMBER_MS: u64 = 24 * 3_600_000;
/// Most remembered answers; past this the one to be forgotten soonest goes first.
pub const MAX_REMEMBERED: usize = 4_000_000;
/// Most removed nodes of which the names are kept; past this the one removed first goes first.
pub const MAX_REMOVED: usize = 100_000;
/// Grace between the end of a lease and its expiry, beside the drift bound, in milliseconds.
pub const EXPIRY_GRACE_MS: u64 = 1_000;

/// How long after its deadline a lease of `ttl_ms` may end: a drift of 5 % on either side (a tenth of the lease), and the grace.
pub fn expiry_slack_ms(ttl_ms: u64) -> u64 {
    ttl_ms / 10 + EXPIRY_GRACE_MS
}
