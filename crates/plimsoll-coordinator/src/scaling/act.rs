//! The next step of a machine: whether its provider is to be called, and the call itself.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use plimsoll_ledger::{Command, Intent, IntentAction, IntentState, IntentStep, Ledger, ScalingPolicy};
use plimsoll_provider::{Ask, Machines, ProviderError, Started};
use plimsoll_types::{LedgerTime, Revision};

use super::{bounded, propose};
use crate::core::Core;

/// Wait before a call is made again, in milliseconds: after the first that failed, and at most. It doubles with each.
const AGAIN_MS: (u64, u64) = (1_000, 60_000);
/// The same while nothing is wrong, in milliseconds.
const UNDERWAY_MS: u64 = 2_000;

/// What is to be done about an intent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing now.
    Wait,
    /// The machine registered, or is gone.
    Settle,
    /// Its provider is called.
    Call(What),
}

/// What a provider is called for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum What {
    /// To start the machine.
    Start,
    /// To stop it.
    Stop,
    /// To stop one that did not come in time, or will not.
    GiveUp(String),
}

/// The next step of an intent that is open.
pub(super) fn next(ledger: &Ledger, policy: &ScalingPolicy, intent: &Intent, now: LedgerTime) -> Next {
    if now < intent.not_before {
        return Next::Wait;
    }
    let IntentAction::Remove { .. } = intent.action else {
        let present = ledger.is_present(policy, intent);
        let late = intent.deadline.0 > 0 && now > intent.deadline;
        return match intent.state {
            // Whatever the provider said of it, or did not: it is there, and may hold something already.
            IntentState::Acting if present => Next::Settle,
            IntentState::Acting if late => {
                let seconds = policy.start_within_ms / 1_000;
                let heard = if intent.detail.is_empty() { "" } else { ": " };
                Next::Call(What::GiveUp(format!(
                    "did not register within {seconds} s{heard}{}",
                    intent.detail
                )))
            }
            IntentState::Acting if !intent.handle.is_empty() => Next::Wait,
            _ => Next::Call(What::Start),
        };
    };
    let held = ledger.node_of(policy, intent).is_some_and(|node| ledger.holders(node.id).next().is_some());
    let finishes = ledger.finishes_until(policy, intent).is_some_and(|until| now < until);
    if held || finishes { Next::Wait } else { Next::Call(What::Stop) }
}

/// A step, under the attempts that the leader knows.
pub(super) fn step(intent: &Intent, step: IntentStep) -> Command {
    Command::StepIntent { intent: intent.id, attempts: intent.attempts, step }
}

/// One call of a provider, with all that it comes to.
pub(super) struct Call {
    pub(super) core: Core,
    pub(super) machines: Arc<dyn Machines>,
    pub(super) policy: ScalingPolicy,
    pub(super) scope: String,
    pub(super) what: What,
}

impl Call {
    /// Writes that the provider is called, calls it, and writes what it said. What cannot be written is done again by whoever leads.
    pub(super) async fn run(self, intent: Arc<Intent>) {
        if propose(&self.core, step(&intent, IntentStep::Act)).await.is_err() {
            return;
        }
        // As it is from that entry on.
        let Some((intent, ask)) = self.ask(intent.id) else { return };
        let came = match &self.what {
            What::Start => self.start(&intent, &ask).await,
            What::Stop => self.stop(&intent, &ask).await,
            What::GiveUp(why) => self.give_up(&intent, &ask, why).await,
        };
        if let Err(why) = propose(&self.core, step(&intent, came)).await {
            tracing::debug!(intent = intent.id.0, why, "what a provider said was not written");
        }
    }

    async fn start(&self, intent: &Intent, ask: &Ask) -> IntentStep {
        match self.within(self.machines.start(ask)).await {
            Ok(Started { handle, node }) => {
                IntentStep::Answered { handle: bounded(&handle), node: bounded(&node) }
            }
            Err(error) if error.underway => later(&error.message, UNDERWAY_MS),
            Err(error) if error.again && intent.attempts < self.attempts() => self.again(intent, &error),
            Err(error) => self.give_up(intent, ask, &error.message).await,
        }
    }

    async fn stop(&self, intent: &Intent, ask: &Ask) -> IntentStep {
        match self.within(self.machines.stop(ask)).await {
            Ok(()) => IntentStep::Ready,
            Err(error) if error.underway => later(&error.message, UNDERWAY_MS),
            Err(error) if error.again && intent.attempts < self.attempts() => self.again(intent, &error),
            Err(error) => IntentStep::Failed { detail: bounded(&error.message) },
        }
    }

    /// Whatever came of it is stopped: a machine that nobody waits for is not left running.
    async fn give_up(&self, intent: &Intent, ask: &Ask, why: &str) -> IntentStep {
        // It came after all: what it holds by now is not taken away.
        if self.core.local().is_present(&self.policy, intent) {
            return IntentStep::Ready;
        }
        match self.within(self.machines.stop(ask)).await {
            Ok(()) => IntentStep::Failed { detail: bounded(why) },
            // Twice as many as may fail at the start: then people have to look.
            Err(error) if error.again && intent.attempts < self.attempts().saturating_mul(2) => {
                self.again(intent, &error)
            }
            Err(error) => {
                IntentStep::Failed { detail: bounded(&format!("{why}; it may still run: {}", error.message)) }
            }
        }
    }

    /// The call, within its time limit.
    async fn within<T>(&self, call: BoxFuture<'_, Result<T, ProviderError>>) -> Result<T, ProviderError> {
        let limit_ms = self.policy.provider.as_ref().map_or(0, |provider| provider.timeout_ms);
        let late = |_| Err(ProviderError::again(format!("the provider did not answer within {limit_ms} ms")));
        tokio::time::timeout(Duration::from_millis(limit_ms), call).await.unwrap_or_else(late)
    }

    fn again(&self, intent: &Intent, error: &ProviderError) -> IntentStep {
        let (first, most) = AGAIN_MS;
        let doubled = first.saturating_mul(1 << intent.attempts.saturating_sub(1).min(16));
        later(&error.message, doubled.min(most))
    }

    fn attempts(&self) -> u32 {
        self.policy.provider.as_ref().map_or(1, |provider| provider.attempts)
    }

    /// What the provider is asked, by the ledger as it is now.
    fn ask(&self, id: Revision) -> Option<(Arc<Intent>, Ask)> {
        let addresses = self.core.member_addresses();
        let ledger = self.core.local();
        let intent = Arc::clone(ledger.intent(id)?);
        let machine = match intent.action {
            IntentAction::Start { .. } => intent.id,
            IntentAction::Remove { machine } => machine,
        };
        let is_other =
            |one: &&Arc<Intent>| one.starts() && one.id != machine && one.state != IntentState::Failed;
        let same = |one: &&Arc<Intent>| one.template == intent.template;
        let others: Vec<&Arc<Intent>> =
            ledger.intents_of(&self.policy.name).filter(is_other).filter(same).collect();
        // A machine that goes may be of a template that is not declared any more.
        let template = self.policy.offer(&intent.template).map(|offer| offer.machine());
        let ask = Ask {
            scope: self.scope.clone(),
            machine: machine.0,
            policy: self.policy.name.clone(),
            target: self.policy.target.clone(),
            node: intent.node.clone(),
            handle: intent.handle.clone(),
            template_name: intent.template.clone(),
            template: template.unwrap_or_default(),
            addresses,
            // Those that leave are there until their provider has let them go.
            wanted: others.len() as u64 + 1,
            taken: others.iter().map(|one| one.handle.clone()).filter(|handle| !handle.is_empty()).collect(),
        };
        Some((intent, ask))
    }
}

fn later(why: &str, after_ms: u64) -> IntentStep {
    IntentStep::Later { detail: bounded(why), after_ms }
}
