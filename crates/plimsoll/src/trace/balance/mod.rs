//! `plimsoll simulate balance`: recorded requests on simulated servers, with the real picker between them.

mod drive;
mod read;
mod report;
mod server;

pub(crate) use drive::{Served, Setup, drive};
pub(crate) use read::read_requests;
pub(crate) use report::BalanceReport;
pub(crate) use server::ServerModel;

/// One recorded request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Arrival {
    /// Since the recording began.
    pub(crate) t_us: u64,
    pub(crate) prompt_tokens: u64,
    pub(crate) output_tokens: u64,
    /// Ids of the blocks of its prompt; equal ids stand for equal beginnings.
    pub(crate) blocks: Vec<u64>,
    /// What affinity goes by.
    pub(crate) key: u64,
}
