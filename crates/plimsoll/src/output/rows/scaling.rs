//! Scaling policies with what their targets want.

use plimsoll_client::v1::{IntentAction, IntentState, ScalingIntent, ScalingPolicy, ScalingStatus};
use serde_json::Value;

use super::{document, word};
use crate::output::{Column, Shown, ago, left};

/// A scaling policy with what its target looks like now.
#[derive(Clone, Debug, Default)]
pub(crate) struct ScalingRow {
    /// The policy.
    pub(crate) scaling_policy: ScalingPolicy,
    /// What its target looks like.
    pub(crate) status: ScalingStatus,
}

impl Shown for ScalingRow {
    const COLUMNS: &'static [Column<ScalingRow>] = &[
        Column::new("POLICY", |s, _| s.scaling_policy.name.clone()),
        Column::new("TARGET", |s, _| s.scaling_policy.target.clone()),
        Column::new("MIN", |s, _| s.scaling_policy.min().to_string()),
        Column::new("MAX", |s, _| s.scaling_policy.max().to_string()),
        Column::new("DESIRED", |s, view| s.desired(view.now_ms)),
        Column::new("PRESENT", |s, _| s.status.present.to_string()),
        Column::new("READY", |s, _| s.status.ready.to_string()),
        Column::new("STARTING", |s, _| s.status.starting.to_string()),
        Column::new("LEAVING", |s, _| s.status.leaving.to_string()),
        Column::new("RULE", |s, _| s.decision(|decision| decision.rule.clone())),
        Column::new("CHANGED", |s, view| {
            ago(s.status.decision.as_ref().map_or(0, |decision| decision.change_time_ms), view.now_ms)
        }),
        Column::wide("TEMPLATES", |s, _| s.templates()),
        Column::wide("BUSY", |s, _| s.status.busy.to_string()),
        Column::wide("FAILURES", |s, _| s.decision(|decision| decision.failures.to_string())),
        Column::wide("REVISION", |s, _| s.scaling_policy.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.scaling_policy.name.clone()
    }

    fn json(&self) -> Value {
        let mut policy = document(&self.scaling_policy);
        policy["status"] = document(&self.status);
        policy
    }
}

impl ScalingRow {
    fn decision(&self, of: impl Fn(&plimsoll_client::v1::ScalingDecision) -> String) -> String {
        self.status.decision.as_ref().map(of).unwrap_or_default()
    }

    /// How many machines of each template there are or will be, in the order of the policy: `small 2, large 1`.
    fn templates(&self) -> String {
        let lives = |intent: &&ScalingIntent| {
            intent.action() == IntentAction::Start && intent.state() != IntentState::Failed
        };
        let of = |name: &str| {
            self.status.intents.iter().filter(lives).filter(|intent| intent.template == name).count()
        };
        let templates = self.scaling_policy.templates.iter();
        let counts: Vec<String> = templates.map(|one| format!("{} {}", one.name, of(&one.name))).collect();
        counts.join(", ")
    }

    fn desired(&self, now_ms: u64) -> String {
        self.decision(|decision| match decision.pinned_to {
            Some(_) if decision.pinned_until_time_ms > now_ms => {
                format!("{} (by hand, {})", decision.desired, left(decision.pinned_until_time_ms, now_ms))
            }
            _ => decision.desired.to_string(),
        })
    }
}

/// A machine in one line: what is done, how far it is, and what was last heard.
pub(crate) fn intent_line(intent: &ScalingIntent) -> String {
    let what = match intent.action() {
        IntentAction::Remove => "remove",
        IntentAction::Start | IntentAction::Unspecified => "start",
    };
    let state = word(intent.state().as_str_name(), "INTENT_STATE_");
    let mut line = format!("{} {what} {state}", intent.node);
    if !intent.template.is_empty() {
        line.push_str(&format!(" ({})", intent.template));
    }
    if matches!(intent.state(), IntentState::Acting | IntentState::Failed) {
        line.push_str(&format!(", {} calls", intent.attempts));
    }
    if intent.action() == IntentAction::Start && intent.other > 0 {
        line.push_str(&format!(", leaves by intent {}", intent.other));
    }
    if !intent.detail.is_empty() {
        line.push_str(&format!(": {}", intent.detail));
    }
    line
}
