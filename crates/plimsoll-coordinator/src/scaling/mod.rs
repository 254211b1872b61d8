//! Scaling that acts: while this coordinator leads, it looks at each scaling policy about once a second, decides, and has machines started
//! and stopped; and at elastic pools, whose nodes it has moved. What it needs to go on is in the ledger, so that the next leader does.
//!
//! Invariants: nobody is called before the intent is in the log; a provider that fails or hangs holds up its own machine alone; this task
//! decides nothing that apply does not look at again.

mod act;
mod contention;
mod elastic;
mod expand;
mod foresight;
mod looks;
mod need;
mod rightsizing;
mod signals;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use plimsoll_autoscaler::{FloorSource, Reason, ScaleDecision, ScaleMemory, decide};
use plimsoll_ledger::limits::{MAX_SCALING_INPUTS, MAX_SCALING_TEXT};
use plimsoll_ledger::{
    Command, Entry, Fleet, Intent, IntentState, Ledger, Outcome, ScaleDecided, Scaling, ScalingPolicy,
    ScalingTarget,
};
use plimsoll_provider::{Machines, Providers};
use plimsoll_types::{LedgerTime, Revision};
use tokio::task::JoinSet;

use crate::core::Core;
use foresight::Foresight;

pub(crate) use elastic::pool_look;
pub use looks::{Look, Looks};
pub(crate) use need::may_come;
pub use rightsizing::{Rightsized, Rightsizing};

/// Most machines of one policy that are asked for in one look.
const MOST_AT_ONCE: u64 = 16;

/// Has machines started and stopped while its core leads.
pub struct Scaler {
    core: Core,
    providers: Arc<dyn Providers>,
    /// Names the cluster among those that use the same providers.
    scope: String,
}

/// One term of leadership.
#[derive(Default)]
struct Lead {
    memories: BTreeMap<String, ScaleMemory>,
    /// Of those that are to foresee their load.
    foresights: BTreeMap<String, Foresight>,
    /// Of nodes that move between elastic pools.
    moves: elastic::Moves,
    calls: JoinSet<Revision>,
    /// Intents for which a provider is being called.
    called: BTreeMap<Revision, tokio::task::Id>,
}

impl Scaler {
    /// A scaler for a core; `scope` names the cluster to providers.
    pub fn new(core: Core, providers: Arc<dyn Providers>, scope: impl Into<String>) -> Scaler {
        Scaler { core, providers, scope: scope.into() }
    }

    /// Runs until the core stops.
    pub async fn run(self) {
        let mut serving = self.core.serving();
        let mut policies = self.core.scaling_changes();
        let period = Duration::from_millis(self.core.config().timings.scaling_ms.max(1));
        // An error is the end of the core.
        while serving.wait_for(|serves| *serves).await.is_ok() {
            let mut lead = Lead::default();
            while *serving.borrow_and_update() {
                // Without policies nothing wakes: an idle cluster is quiet.
                if *policies.borrow_and_update() == 0 {
                    tokio::select! {
                        changed = serving.changed() => if changed.is_err() { return },
                        changed = policies.changed() => if changed.is_err() { return },
                    }
                    continue;
                }
                self.look(&mut lead).await;
                tokio::select! {
                    changed = serving.changed() => if changed.is_err() { return },
                    () = tokio::time::sleep(period) => {}
                }
            }
            // Calls under way are dropped with this: the next leader makes them under the same keys.
            self.core.looks().clear();
        }
    }

    /// One look at every policy.
    async fn look(&self, lead: &mut Lead) {
        while let Some(ended) = lead.calls.try_join_next_with_id() {
            // A call that panicked said so; its intent is tried again like one that was lost.
            let id = ended.map_or_else(|error| error.id(), |(id, _)| id);
            lead.called.retain(|_, task| *task != id);
        }
        let policies: Vec<Arc<ScalingPolicy>> = self.core.local().scaling_policies().cloned().collect();
        lead.memories.retain(|name, _| policies.iter().any(|policy| policy.name == *name));
        lead.foresights.retain(|name, _| {
            policies.iter().any(|policy| policy.name == *name && policy.rules.predictive.is_some())
        });
        self.core
            .looks()
            .retain(|name| elastic::is_pool(name) || policies.iter().any(|policy| policy.name == name));
        for policy in &policies {
            let look = self.decide(lead, policy).await;
            let problem = self.reconcile(lead, policy).await.err();
            let problem = problem.unwrap_or_default();
            if let Some(look) = look {
                self.core.looks().put(&policy.name, Look { problem, ..look });
            }
        }
        elastic::look(&self.core, &mut lead.moves).await;
    }

    /// Decides what a target wants, and proposes it where it is something else than before.
    async fn decide(&self, lead: &mut Lead, policy: &ScalingPolicy) -> Option<Look> {
        let mut notes = Vec::new();
        let (decision, computed_from, pinned) = {
            let ledger = self.core.local();
            let state = Arc::clone(ledger.scaling(&policy.name)?);
            let now = LedgerTime(self.core.clock().now_ms()).max(ledger.clock());
            let fresh = || ScaleMemory::begin(now.0, state.desired);
            let memory = lead.memories.entry(policy.name.clone()).or_insert_with(fresh);
            memory.follow(state.changes.iter().map(|change| (change.at.0, change.by)));
            let turned_away = match &policy.target {
                ScalingTarget::Service(service) => self.core.turned_away().lately(service),
                ScalingTarget::Pool(_) => 0,
            };
            let mut signals = signals::read(&ledger, policy, &state, now, turned_away, &mut notes);
            if policy.rules.predictive.is_some()
                && let Some(load_milli) = foresight::load_milli(&ledger, policy)
            {
                let known = lead.foresights.entry(policy.name.clone());
                known.or_insert_with(|| Foresight::new(policy, now)).look(load_milli, now, &mut signals);
            }
            let decision = decide(&signals, &policy.rules, memory, now.0);
            (decision, ledger.revision(), state.pinned(now).cloned())
        };
        let mut lines: Vec<String> =
            decision.reasons.iter().map(|reason| bounded(&reason.to_string())).collect();
        lines.extend(notes.iter().map(|note| bounded(note)));
        lines.truncate(MAX_SCALING_INPUTS);
        let look = |desired, lines| Look { at_ms: decision.at_ms, desired, lines, problem: String::new() };
        if let Some(pin) = pinned {
            lines.insert(0, format!("set to {} by {} until {} ms", pin.to, pin.by, pin.until.0));
            return Some(look(pin.to, lines));
        }
        if decision.changes() {
            let decided = ScaleDecided {
                policy: policy.name.clone(),
                desired: decision.desired,
                computed_from,
                rule: rule_of(&decision),
                inputs: lines.clone(),
            };
            if let Err(why) = self.propose(Command::SetDesired(decided)).await {
                lines.push(format!("not taken: {why}"));
            }
        }
        Some(look(decision.desired, lines))
    }

    /// Asks for the machines that are missing, lets those go that are too many, and takes the next step with each that is under way.
    async fn reconcile(&self, lead: &mut Lead, policy: &ScalingPolicy) -> Result<(), String> {
        let Some(provider) = &policy.provider else { return Ok(()) };
        let machines = self.providers.machines(&provider.kind).map_err(|error| error.message)?;
        let (wanted, going) = {
            let ledger = self.core.local();
            let now = LedgerTime(self.core.clock().now_ms()).max(ledger.clock());
            open_next(&ledger, policy, now)
        };
        let open = |machine, template| Command::OpenIntent { policy: policy.name.clone(), machine, template };
        let coming = wanted.into_iter().map(|template| open(None, template));
        let commands = coming.chain(going.into_iter().map(|id| open(Some(id), String::new())));
        let mut refused = None;
        for command in commands {
            if let Err(why) = self.propose(command).await {
                refused = Some(why);
            }
        }
        let intents: Vec<Arc<Intent>> =
            self.core.local().intents_of(&policy.name).filter(|intent| intent.is_open()).cloned().collect();
        for intent in intents {
            if !lead.called.contains_key(&intent.id) {
                self.step(lead, policy, &machines, intent).await;
            }
        }
        refused.map_or(Ok(()), Err)
    }

    /// The next step of an intent; where that is a call of the provider, apart from all else.
    async fn step(
        &self,
        lead: &mut Lead,
        policy: &ScalingPolicy,
        machines: &Arc<dyn Machines>,
        intent: Arc<Intent>,
    ) {
        let next = {
            let ledger = self.core.local();
            let now = LedgerTime(self.core.clock().now_ms()).max(ledger.clock());
            act::next(&ledger, policy, &intent, now)
        };
        match next {
            act::Next::Wait => {}
            act::Next::Settle => {
                let step = plimsoll_ledger::IntentStep::Ready;
                // A refusal is news of the next look.
                let _ = self.propose(act::step(&intent, step)).await;
            }
            act::Next::Call(what) => {
                let call = act::Call {
                    core: self.core.clone(),
                    machines: Arc::clone(machines),
                    policy: policy.clone(),
                    scope: self.scope.clone(),
                    what,
                };
                let id = intent.id;
                let handle = lead.calls.spawn(async move {
                    call.run(intent).await;
                    id
                });
                lead.called.insert(id, handle.id());
            }
        }
    }

    async fn propose(&self, command: Command) -> Result<(), String> {
        propose(&self.core, command).await.map(drop)
    }
}

/// Proposes a command of the leader's own: its revision, or why it came to nothing.
async fn propose(core: &Core, command: Command) -> Result<Revision, String> {
    let answer = core.submit(Entry::system(command)).await.map_err(|error| error.to_string())?;
    match answer.outcome {
        Outcome::Refused(refusal) => {
            let first = refusal.blockers.first();
            Err(first.map_or_else(
                || format!("{:?}", refusal.reason),
                |blocker| format!("{} ({} asked, {})", blocker.subject, blocker.asked, blocker.available),
            ))
        }
        _ => Ok(answer.revision),
    }
}

/// Of which templates machines are to be asked for, and which are to go.
fn open_next(ledger: &Ledger, policy: &ScalingPolicy, now: LedgerTime) -> (Vec<String>, Vec<Revision>) {
    let Some(state) = ledger.scaling(&policy.name) else { return (Vec::new(), Vec::new()) };
    let fleet = ledger.fleet(policy);
    let candidates = ledger.may_leave(policy);
    let gone = |id: &Revision| {
        let machine = ledger.intent(*id).filter(|intent| intent.state == IntentState::Ready);
        machine.is_some_and(|machine| ledger.is_gone(policy, machine))
    };
    let mut going: Vec<Revision> = candidates.iter().copied().filter(gone).collect();
    if now < state.retry_at {
        return (Vec::new(), going);
    }
    let missing = state.desired.saturating_sub(fleet.counted()).min(MOST_AT_ONCE);
    let surplus = surplus(state, &fleet, policy);
    let others = candidates.into_iter().filter(|id| !going.contains(id)).collect::<Vec<_>>();
    going.extend(others.into_iter().take(usize::try_from(surplus).unwrap_or(usize::MAX)));
    (need::next_templates(ledger, policy, missing, now), going)
}

/// Machines that may leave now.
fn surplus(state: &Scaling, fleet: &Fleet, policy: &ScalingPolicy) -> u64 {
    let budget = u64::from(policy.max_leaving).saturating_sub(fleet.leaving);
    fleet.counted().saturating_sub(state.desired).min(budget)
}

/// The rule that a decision goes by in the end, in one word.
fn rule_of(decision: &ScaleDecision) -> String {
    let mut rule = "metrics".to_owned();
    let mut most = None;
    for reason in &decision.reasons {
        match reason {
            Reason::Asleep => return "sleep".to_owned(),
            Reason::Metric { metric, proposal } if Some(proposal.replicas) > most => {
                (rule, most) = (metric.to_string(), Some(proposal.replicas));
            }
            Reason::Floor { source, replicas, .. } if Some(*replicas) > most => {
                most = Some(*replicas);
                rule = match source {
                    FloorSource::Schedule(name) => format!("schedule {name}"),
                    FloorSource::Manual(_) => "manual".to_owned(),
                    FloorSource::Waiting(_) => "waiting".to_owned(),
                    FloorSource::TurnedAway(_) => "turned away".to_owned(),
                    FloorSource::Contention(resource) => format!("contention {resource}"),
                    FloorSource::InUse => "in use".to_owned(),
                    FloorSource::Kept => "calendar".to_owned(),
                };
            }
            Reason::Forecast { replicas, .. } if Some(*replicas) > most => {
                (rule, most) = ("forecast".to_owned(), Some(*replicas));
            }
            _ => {}
        }
    }
    bounded(&rule)
}

/// As much of a text as the ledger takes.
fn bounded(text: &str) -> String {
    let mut end = text.len().min(MAX_SCALING_TEXT);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text[..end].to_owned()
}
