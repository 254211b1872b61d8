//! Objects in one word, as commands print them: `pool/gpu`.

use plimsoll_ledger::PolicyName;

/// The kind as files write it: `Pool`, `Class`, `NodeLimits`, `Queue`, `Quota`, `Schedule`, `Service`, `ScalingPolicy`, `Validator`.
pub fn kind_word(name: &PolicyName) -> &'static str {
    match name {
        PolicyName::Pool(_) => "Pool",
        PolicyName::Class(_) => "Class",
        PolicyName::NodeLimits(_) => "NodeLimits",
        PolicyName::Queue(_) => "Queue",
        PolicyName::Quota(_) => "Quota",
        PolicyName::Validator(_) => "Validator",
        PolicyName::Schedule(_) => "Schedule",
        PolicyName::Service(_) => "Service",
        PolicyName::ScalingPolicy(_) => "ScalingPolicy",
    }
}

/// Kind and name in one word: `pool/gpu`, `class/batch`, `nodelimits/edge`.
pub fn label(name: &PolicyName) -> String {
    format!("{}/{}", kind_word(name).to_lowercase(), name.name())
}
