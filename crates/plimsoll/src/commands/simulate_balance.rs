//! `plimsoll simulate balance`: recorded requests on simulated endpoints, each chosen by the real picker.

use std::path::PathBuf;

use clap::Args;
use plimsoll_balancer::{Policy, Settings, Subset};

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::trace::Progress;
use crate::trace::balance::{BalanceReport, ServerModel, Setup, drive, read_requests};

/// Most endpoints of a run.
const MAX_ENDPOINTS: u32 = 100_000;
const WHOLE_PERMILLE: f64 = 1_000.0;

/// Runs recorded requests on simulated endpoints, each chosen by the real picker.
#[derive(Args, Debug)]
pub(crate) struct SimulateBalance {
    /// CSV of requests: t_s,ctx_tokens,gen_tokens or t_ms,in_tokens,out_tokens,block_ids
    #[arg(value_name = "REQUESTS")]
    requests: PathBuf,
    /// Endpoints, all alike but for --slow
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=i64::from(MAX_ENDPOINTS)))]
    endpoints: u32,
    /// round_robin, least_loaded, latency, weighted, affinity or predictive
    #[arg(long, value_name = "NAME", value_parser = policy)]
    policy: Policy,
    /// Makes endpoint I, from 0, TIMES times slower; may be repeated
    #[arg(long, value_name = "I:TIMES", value_parser = slow)]
    slow: Vec<(u32, u64)>,
    /// Seed of the random choices
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// Only the first so many requests
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Requests that an endpoint serves at once
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u32).range(1..=65_536))]
    places: u32,
    /// Tokens of prompts that an endpoint reads in a second
    #[arg(long, value_name = "TOKENS", default_value_t = 8_000, value_parser = rate())]
    prompt_rate: u64,
    /// Tokens of one answer that it writes in a second
    #[arg(long, value_name = "TOKENS", default_value_t = 50, value_parser = rate())]
    output_rate: u64,
    /// Blocks of prompts that it keeps
    #[arg(long, value_name = "N", default_value_t = 4_096)]
    cache_blocks: u32,
    /// First blocks of a prompt that make its key for affinity
    #[arg(long, value_name = "N", default_value_t = 2)]
    key_blocks: usize,
    /// Most requests of an endpoint under affinity, over the mean: at least 1, or none
    #[arg(long, value_name = "C", default_value = "1.25", value_parser = load_bound)]
    load_bound: LoadBound,
    /// Use only so many of the endpoints, as one client of many would
    #[arg(long, value_name = "N")]
    subset: Option<u32>,
}

impl SimulateBalance {
    pub(crate) fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let mut arrivals = read_requests(&self.requests, self.key_blocks)?;
        arrivals.truncate(self.limit.unwrap_or(usize::MAX));
        let setup = self.setup()?;
        let progress = Progress::new(arrivals.len(), globals.quiet);
        let course = drive(&setup, &arrivals, |arrived| progress.at(arrived))
            .map_err(|error| CliError::usage(error.to_string()))?;
        progress.end();
        let report = BalanceReport::new(&setup, &arrivals, course);
        let out = globals.out();
        if out.is_human() {
            out.emit(&report.text())?
        } else {
            out.document(&report.document())?
        }
        Ok(Exit::Done)
    }

    fn setup(&self) -> Result<Setup, CliError> {
        let subset = self.subset.map(|size| Subset { size, client: self.seed });
        let mut settings = Settings { subset, ..Settings::default() };
        settings.affinity.load_bound_permille = self.load_bound.0;
        settings.predictive.blocks_per_endpoint = self.cache_blocks;
        let mut slowness = vec![1; self.endpoints as usize];
        for (endpoint, times) in &self.slow {
            let Some(slow) = slowness.get_mut(*endpoint as usize) else {
                let last = self.endpoints - 1;
                return Err(CliError::usage(format!("--slow {endpoint}:{times}: endpoints are 0 to {last}")));
            };
            *slow = *times;
        }
        let model = ServerModel {
            places: self.places,
            prompt_tokens_per_s: self.prompt_rate,
            output_tokens_per_s: self.output_rate,
            cache_blocks: self.cache_blocks,
        };
        Ok(Setup {
            endpoints: self.endpoints,
            policy: self.policy,
            settings,
            seed: self.seed,
            model,
            slowness,
        })
    }
}

/// The bound of affinity in thousandths, where there is one.
#[derive(Clone, Copy, Debug)]
struct LoadBound(Option<u32>);

fn rate() -> clap::builder::RangedU64ValueParser {
    clap::value_parser!(u64).range(1..=1_000_000_000)
}

fn policy(name: &str) -> Result<Policy, String> {
    let name = name.replace('-', "_");
    name.parse().map_err(|_| {
        let known = Policy::ALL.map(Policy::name);
        let meant = plimsoll_policy::nearest(&name, &known);
        let meant = meant.map_or_else(String::new, |word| format!("did you mean {word}? "));
        format!("{meant}choose one of {}", known.join(", "))
    })
}

fn slow(text: &str) -> Result<(u32, u64), String> {
    let parsed =
        text.split_once(':').and_then(|(index, times)| Some((index.parse().ok()?, times.parse().ok()?)));
    parsed
        .filter(|(_, times)| (1..=1_000_000).contains(times))
        .ok_or_else(|| "write I:TIMES, as in 1:10 for endpoint 1 ten times slower".to_owned())
}

fn load_bound(text: &str) -> Result<LoadBound, String> {
    if text == "none" {
        return Ok(LoadBound(None));
    }
    let bound = text.parse().ok().filter(|bound: &f64| (1.0..=1_000.0).contains(bound));
    let permille = bound.map(|bound| (bound * WHOLE_PERMILLE).round() as u32);
    permille
        .map(|permille| LoadBound(Some(permille)))
        .ok_or_else(|| "write a number from 1 to 1000, or none".to_owned())
}
