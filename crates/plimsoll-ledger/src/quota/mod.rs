//! Who may take how much: quota over a tree of queues, shares between queues, use that fades with time.
//!
//! Pure arithmetic on integers. Formulae are Kueue's (`pkg/cache/scheduler/resource_node.go`, KEPs 79, 1224, 1714), HTCondor's
//! (decayed use) and Slurm's (Fair Tree), as `docs/semantics.md` words them.

mod cell;
mod charge;
mod decay;
mod entitlement;
mod expected;
mod fair_tree;
mod share;
#[cfg(test)]
mod tests;
mod tree;

pub use cell::{Cell, Quota};
pub(crate) use charge::least_of_needs;
pub use charge::{GPU, charge, least};
pub(crate) use decay::LN2_PPB;
pub use decay::{DecayedUse, decay};
pub use entitlement::{Claim, entitlements};
pub use expected::Expectations;
pub use fair_tree::{Account, fair_tree_order};
pub use share::Share;
pub use tree::{QuotaTree, Shortage};
