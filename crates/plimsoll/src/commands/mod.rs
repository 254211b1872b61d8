//! Commands: one file each, a `clap::Args` struct with `async fn run(self, &Globals) -> Result<Exit, CliError>`.
//!
//! To add one: write `commands/NAME.rs` with such a struct, declare it here, and add a variant with its one-line help to
//! `args::Command` together with its arm in `Command::run`.

pub(crate) mod agent;
pub(crate) mod announce;
pub(crate) mod apply;
mod apply_files;
pub(crate) mod audit;
pub(crate) mod bench;
pub(crate) mod cluster;
mod cluster_snapshot;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod convert;
pub(crate) mod coordinator;
pub(crate) mod defragment;
pub(crate) mod delete;
pub(crate) mod describe;
pub(crate) mod dev;
pub(crate) mod diff;
pub(crate) mod doctor;
pub(crate) mod enter_cgroup;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod explain_scaling;
pub(crate) mod get;
pub(crate) mod lifecycle;
pub(crate) mod man;
pub(crate) mod node_admin;
mod noun;
pub(crate) mod pick;
pub(crate) mod plan;
mod plan_text;
mod process;
mod recorded;
pub(crate) mod replay;
pub(crate) mod report;
pub(crate) mod reserve;
pub(crate) mod run;
pub(crate) mod scale;
pub(crate) mod simulate;
mod simulate_autoscale;
mod simulate_balance;
pub(crate) mod take;
pub(crate) mod validate;
pub(crate) mod version;
pub(crate) mod wait;
mod watch_list;
