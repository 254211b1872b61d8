//! Scaling that acts: a policy for a pool or service, what its target wants, and the machines that come and go for it.
//!
//! Invariants: what is wanted stays within the policy's bounds; a machine is started or removed under an intent that was in the log before
//! anybody was called; a machine has one intent to remove it at most; a node on which something is held is never removed (I20).
//! `docs/semantics.md` 5.9.

mod checks;
mod fleet;
mod intent;
mod policy;
mod power;
mod state;
mod template;

/// First ledger version that scales.
pub(crate) const SINCE_VERSION: u32 = 6;

/// First ledger version that drains a replica before its provider stops it.
pub(crate) const DRAIN_SINCE_VERSION: u32 = 12;

/// How long it takes a client at most to hear that a replica drains, in milliseconds: what `docs/services.md` promises.
pub(crate) const PROPAGATION_MS: u64 = 1_000;

pub use fleet::Fleet;
pub use intent::{Intent, IntentAction, IntentState, IntentStep};
pub use policy::{
    Provider, ProviderKind, ScalingFloor, ScalingPolicy, ScalingTarget, TemplateDevice, WorkTemplate,
    is_program_name,
};
pub use power::Power;
pub use state::{Pin, ScaleChange, Scaling};
pub use template::{NodeTemplate, POWER, Resting, TEMPLATE_IN_GROUP};

pub(crate) use policy::scaling_bounds;
pub(crate) use power::is_of_power;
pub(crate) use template::{SINCE_VERSION as TEMPLATES_SINCE_VERSION, is_of_templates};
