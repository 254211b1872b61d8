//! The servers of a simulated service: each reads one prompt at a time and writes a few answers at once, as one replica of a language model does.
//!
//! - Requests wait in one line. The first of it is taken when no prompt is being read and one of `places` is free, and holds its place until it ends.
//! - Its prompt takes `tokens / prompt_tokens_per_s`, less the blocks of it that the server keeps (512 tokens each; at least one token is always read).
//! - Its answer takes `tokens / output_tokens_per_s`, whoever else is there.
//! - The server keeps `cache_blocks` blocks; the longest unused go first.
//!
//! The model is simple on purpose: memory, batching within a prompt and the slowing of many answers at once are left out. What it has is what endpoint choice
//! is about: lines, unequal work, unequal servers, and work that is saved where the prompt was seen before.

use std::collections::VecDeque;

use plimsoll_balancer::{BlockCache, LoadReport};

use super::Arrival;

/// What a server can do. The defaults are those of the command line, and round figures of one replica of a 70-billion-parameter model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ServerModel {
    /// Requests that are served at once.
    pub(crate) places: u32,
    /// How fast prompts are read, all together.
    pub(crate) prompt_tokens_per_s: u64,
    /// How fast one answer is written.
    pub(crate) output_tokens_per_s: u64,
    /// Blocks of prompts that are kept.
    pub(crate) cache_blocks: u32,
}

/// Tokens in a block of the Mooncake traces.
pub(crate) const TOKENS_PER_BLOCK: u64 = 512;

const US_PER_S: u64 = 1_000_000;
/// What a report goes over fades by a quarter with each.
const REPORT_KEEPS: (u64, u64) = (3, 4);

/// One server.
pub(super) struct Server {
    model: ServerModel,
    /// How many times slower than the model it is.
    slowness: u64,
    line: VecDeque<usize>,
    is_reading: bool,
    held: u32,
    cache: BlockCache,
    busy: Busy,
    ended: u64,
    /// Sums of `busy` and `ended` that fade, for reports.
    recent: (u64, u64, u64),
    reported: (u64, u64, u64),
}

/// Time times places in use, up to a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Busy {
    place_us: u64,
    at_us: u64,
}

/// A request that was taken.
pub(super) struct Taken {
    pub(super) request: usize,
    pub(super) found_blocks: usize,
    pub(super) read_us: u64,
    pub(super) write_us: u64,
}

impl Server {
    pub(super) fn new(model: ServerModel, slowness: u64) -> Server {
        Server {
            model,
            slowness,
            line: VecDeque::new(),
            is_reading: false,
            held: 0,
            cache: BlockCache::new(model.cache_blocks),
            busy: Busy::default(),
            ended: 0,
            recent: (0, 0, 0),
            reported: (0, 0, 0),
        }
    }

    /// A request joins the line.
    pub(super) fn join(&mut self, request: usize) {
        self.line.push_back(request);
    }

    /// Takes the first of the line where it can.
    pub(super) fn take(&mut self, now_us: u64, arrivals: &[Arrival]) -> Option<Taken> {
        if self.is_reading || self.held >= self.model.places {
            return None;
        }
        let request = self.line.pop_front()?;
        self.hold(now_us, 1);
        self.is_reading = true;
        let arrival = &arrivals[request];
        let found_blocks = self.cache.found(&arrival.blocks);
        let found_tokens = (found_blocks as u64).saturating_mul(TOKENS_PER_BLOCK);
        let tokens = arrival.prompt_tokens.saturating_sub(found_tokens).max(1);
        // Nobody else can be taken before it is read, so whether they are kept from here or from then makes no difference.
        self.cache.insert(&arrival.blocks, |_| {});
        Some(Taken {
            request,
            found_blocks,
            read_us: self.time_us(tokens, self.model.prompt_tokens_per_s),
            write_us: self.time_us(arrival.output_tokens, self.model.output_tokens_per_s),
        })
    }

    /// A prompt is read.
    pub(super) fn read(&mut self) {
        self.is_reading = false;
    }

    /// A request ended.
    pub(super) fn end(&mut self, now_us: u64) {
        self.hold(now_us, -1);
        self.ended += 1;
    }

    /// Microseconds times places in use so far.
    pub(super) fn busy_place_us(&self) -> u64 {
        self.busy.place_us
    }

    /// What it says of its load: places in use and requests ended, of late.
    pub(super) fn report(&mut self, now_us: u64) -> LoadReport {
        self.hold(now_us, 0);
        let (place_us, ended, at_us) = self.reported;
        let faded = |sum: u64, new: u64| sum * REPORT_KEEPS.0 / REPORT_KEEPS.1 + new;
        self.recent = (
            faded(self.recent.0, self.busy.place_us - place_us),
            faded(self.recent.1, (self.ended - ended) * US_PER_S),
            faded(self.recent.2, now_us - at_us),
        );
        self.reported = (self.busy.place_us, self.ended, now_us);
        let (place_us, ended, us) = self.recent;
        let permille =
            place_us.saturating_mul(1_000) / us.saturating_mul(u64::from(self.model.places)).max(1);
        LoadReport {
            application_utilization_permille: u32::try_from(permille).unwrap_or(u32::MAX),
            requests_per_s_milli: ended.saturating_mul(1_000) / us.max(1),
            ..LoadReport::default()
        }
    }

    fn time_us(&self, tokens: u64, per_s: u64) -> u64 {
        tokens.saturating_mul(US_PER_S).saturating_mul(self.slowness) / per_s.max(1)
    }

    fn hold(&mut self, now_us: u64, change: i32) {
        self.busy.place_us += u64::from(self.held) * now_us.saturating_sub(self.busy.at_us);
        self.busy.at_us = now_us;
        self.held = self.held.saturating_add_signed(change);
    }
}
