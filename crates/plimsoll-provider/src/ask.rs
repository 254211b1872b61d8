//! What a provider is asked, and what it answers.

use std::collections::BTreeMap;

use plimsoll_ledger::{ScalingTarget, WorkTemplate};
use serde_json::{Value, json};

use crate::ProviderError;

/// Longest handle or name that is taken over, in bytes.
const MOST_TEXT: usize = 512;

/// One machine that is asked for, or given back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// Names the cluster among those that use the provider.
    pub scope: String,
    /// Number of the intent that starts the machine: with the scope the key under which it is done once.
    pub machine: u64,
    /// Policy that wants it.
    pub policy: String,
    /// What is scaled.
    pub target: ScalingTarget,
    /// Name of the node or replica.
    pub node: String,
    /// What the provider called it; empty where it has not answered yet.
    pub handle: String,
    /// Which of the policy's templates it is of; empty where the policy has the one.
    pub template_name: String,
    /// What it offers.
    pub template: WorkTemplate,
    /// Where the coordinators are, `host:port`.
    pub addresses: Vec<String>,
    /// Machines of the policy and template that there are to be, this one included.
    pub wanted: u64,
    /// Handles of the other ones.
    pub taken: Vec<String>,
}

/// A machine that is on its way.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Started {
    /// What the provider calls it.
    pub handle: String,
    /// Name of its node, where the provider chose another one; empty for the one asked for.
    pub node: String,
}

impl Ask {
    /// The key under which the machine is started once.
    pub fn key(&self) -> String {
        format!("{}/{}", self.scope, self.machine)
    }

    /// As JSON, for programs and webhooks.
    pub fn document(&self, action: &str) -> Value {
        let template = &self.template;
        let amounts: BTreeMap<&str, u64> =
            template.resources.iter().map(|(name, amount)| (name, amount.0)).collect();
        let gpus = template.devices.iter().map(|device| {
            json!({ "model": device.model, "memoryBytes": device.memory_bytes, "count": device.count })
        });
        json!({
            "action": action,
            "key": self.key(),
            "machine": self.machine,
            "policy": self.policy,
            "target": self.target.path(),
            "node": self.node,
            "handle": self.handle,
            "addresses": self.addresses,
            "template": {
                "name": self.template_name,
                "resources": amounts,
                "labels": template.labels,
                "gpus": gpus.collect::<Vec<Value>>(),
                "command": template.command,
            },
        })
    }
}

impl Started {
    /// From the JSON of a program or webhook: `{"handle": "...", "node": "..."}`. Nothing at all stands for the key as handle.
    pub(crate) fn read(text: &str, ask: &Ask) -> Result<Started, ProviderError> {
        let bad = |why: String| ProviderError::again(format!("the answer cannot be read: {why}"));
        if text.trim().is_empty() {
            return Ok(Started { handle: ask.key(), node: String::new() });
        }
        let answer: Value = serde_json::from_str(text).map_err(|error| bad(error.to_string()))?;
        let word = |key: &str| match &answer[key] {
            Value::Null => Ok(String::new()),
            Value::String(word) if word.len() <= MOST_TEXT => Ok(word.clone()),
            _ => Err(bad(format!("{key:?} is not a text of at most {MOST_TEXT} bytes"))),
        };
        let (handle, node) = (word("handle")?, word("node")?);
        Ok(Started { handle: if handle.is_empty() { ask.key() } else { handle }, node })
    }
}
