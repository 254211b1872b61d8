//! Targets for fuzzing: each takes any bytes and panics where a promise is broken.
//!
//! The same functions run in two ways (`docs/fuzzing.md`): with every test run on the seeds, on what is kept in the corpus and on
//! some thousand mutations; and under a coverage-guided engine for as long as one likes. What was ever found goes to the
//! corpus and is tried again with each commit.

pub mod api;
pub mod choices;
pub mod config;
pub mod expression;
pub mod ledger;
pub mod log;
pub mod mutate;
pub mod policy;
pub mod text;

/// A target.
#[derive(Clone, Copy)]
pub struct Target {
    /// Its name: that of its test, and of its folder of the corpus.
    pub name: &'static str,
    /// Tries any bytes.
    pub run: fn(&[u8]),
    /// Inputs to begin with: valid ones, and ones just outside.
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const TARGETS: [Target; 7] = [
    Target { name: "api_messages", run: api::run, seeds: api::seeds },
    Target { name: "coordinator_config", run: config::run, seeds: config::seeds },
    Target { name: "expressions", run: expression::run, seeds: expression::seeds },
    Target { name: "ledger_commands", run: ledger::run, seeds: ledger::seeds },
    Target { name: "log_bytes", run: log::run, seeds: log::seeds },
    Target { name: "policy_files", run: policy::run, seeds: policy::seeds },
    Target { name: "quantities", run: text::run, seeds: text::seeds },
];
