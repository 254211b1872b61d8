//! Random histories of the ledger: steps, and what they come to on the ledger of the moment.

pub(crate) mod entry;
pub(crate) mod fleet;
pub(crate) mod placing;
pub(crate) mod policy;
pub(crate) mod request;
pub(crate) mod step;

pub(crate) const GIB: u64 = 1 << 30;
