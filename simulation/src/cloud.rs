//! Where machines come from in a simulated world: slow, failing, and now and then without an answer for what it did. One for all coordinators; it
//! outlives them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use futures_util::{FutureExt, TryFutureExt};
use parking_lot::Mutex;
use plimsoll_ledger::ProviderKind;
use plimsoll_provider::{Ask, Machines, ProviderError, Providers, Started};

use crate::rng::Rng;

/// Longest time that a call takes, in milliseconds; some take for ever.
const MOST_CALL_MS: u64 = 1_500;
/// Longest time from a machine's start to its node's first word, in milliseconds.
const MOST_BOOT_MS: u64 = 3_000;
/// Of a hundred calls: those that fail, those that are answered never though they did it, and machines that never come up.
const FAIL_PERCENT: u64 = 15;
const MUTE_PERCENT: u64 = 15;
const DEAD_PERCENT: u64 = 10;

/// Machines, by the key under which they were asked for.
#[derive(Debug, Default)]
pub struct Cloud {
    seed: u64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    machines: BTreeMap<String, Machine>,
    calls: BTreeMap<String, u64>,
    counts: BTreeMap<&'static str, u64>,
}

#[derive(Clone, Debug)]
struct Machine {
    number: u64,
    node: String,
    runs: bool,
    /// When its node says its first word, in simulated milliseconds; never, if so.
    up_at_ms: Option<u64>,
}

/// What a call comes to.
#[derive(Clone, Copy, Debug)]
enum Fate {
    Fails,
    Mute,
    Done,
}

impl Cloud {
    /// One without machines.
    pub fn new(seed: u64) -> Cloud {
        Cloud { seed, ..Cloud::default() }
    }

    /// Names of nodes whose machines run and are up by now.
    pub fn nodes(&self, now_ms: u64) -> Vec<String> {
        let inner = self.inner.lock();
        let up = |one: &&Machine| one.runs && one.up_at_ms.is_some_and(|at_ms| at_ms <= now_ms);
        inner.machines.values().filter(up).map(|one| one.node.clone()).collect()
    }

    /// Numbers of the intents whose machines run.
    pub fn running(&self) -> Vec<u64> {
        self.inner.lock().machines.values().filter(|one| one.runs).map(|one| one.number).collect()
    }

    /// How often what was done.
    pub fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.inner.lock().counts.clone()
    }

    /// Takes a while, and says what comes of a call.
    async fn call(&self, what: &'static str, ask: &Ask) -> Fate {
        let name = format!("{what} {}", ask.key());
        let turn = {
            let mut inner = self.inner.lock();
            let turns = inner.calls.entry(name.clone()).or_default();
            *turns += 1;
            *turns
        };
        let mut rng = Rng::of(self.seed, &format!("cloud {name} {turn}"));
        tokio::time::sleep(Duration::from_millis(rng.between(20, MOST_CALL_MS))).await;
        let done = 100 - FAIL_PERCENT - MUTE_PERCENT;
        let choices = [(FAIL_PERCENT, Fate::Fails), (MUTE_PERCENT, Fate::Mute), (done, Fate::Done)];
        let fate = rng.weighted(&choices).unwrap_or(Fate::Done);
        *self.inner.lock().counts.entry(fate.word(what)).or_default() += 1;
        fate
    }

    /// A call with what it does, or not; some are answered never.
    async fn act(
        &self,
        what: &'static str,
        ask: &Ask,
        effect: fn(&Cloud, &Ask),
        failure: &str,
    ) -> Result<(), ProviderError> {
        let fate = self.call(what, ask).await;
        if let Fate::Fails = fate {
            return Err(ProviderError::again(failure));
        }
        effect(self, ask);
        if let Fate::Mute = fate {
            std::future::pending::<()>().await;
        }
        Ok(())
    }

    fn begin(&self, ask: &Ask) {
        let mut rng = Rng::of(self.seed, &format!("cloud boot {}", ask.key()));
        let boot_ms = rng.between(200, MOST_BOOT_MS);
        let is_dead = rng.percent(DEAD_PERCENT);
        let up_at_ms = (!is_dead).then(|| crate::board::Board::now_ms() + boot_ms);
        let machine = Machine { number: ask.machine, node: ask.node.clone(), runs: true, up_at_ms };
        self.inner.lock().machines.entry(ask.key()).or_insert(machine).runs = true;
    }

    fn end(&self, ask: &Ask) {
        if let Some(machine) = self.inner.lock().machines.get_mut(&ask.key()) {
            machine.runs = false;
        }
    }
}

impl Fate {
    fn word(self, what: &'static str) -> &'static str {
        match (what, self) {
            ("start", Fate::Fails) => "start failed",
            ("start", Fate::Mute) => "start unanswered",
            ("start", Fate::Done) => "started",
            (_, Fate::Fails) => "stop failed",
            (_, Fate::Mute) => "stop unanswered",
            (_, Fate::Done) => "stopped",
        }
    }
}

/// The cloud, as coordinators know it: whatever kind of provider a policy names.
pub struct CloudProviders(pub Arc<Cloud>);

impl Providers for CloudProviders {
    fn machines(&self, _kind: &ProviderKind) -> Result<Arc<dyn Machines>, ProviderError> {
        Ok(Arc::new(CloudMachines(Arc::clone(&self.0))))
    }
}

struct CloudMachines(Arc<Cloud>);

impl Machines for CloudMachines {
    fn start<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Started, ProviderError>> {
        let done = self.0.act("start", ask, Cloud::begin, "no machine of the kind just now");
        done.map_ok(|()| Started { handle: ask.key(), node: String::new() }).boxed()
    }

    fn stop<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), ProviderError>> {
        self.0.act("stop", ask, Cloud::end, "not just now").boxed()
    }
}
