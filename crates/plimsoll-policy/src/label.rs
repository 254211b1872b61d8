//! Objects in one word, as commands print them: `pool/gpu`.

use plimsoll_ledger::PolicyName;

/// The kind as files write it: `Pool`, `Class`, `NodeLimits`.
pub fn kind_word(name: &PolicyName) -> &'static str {
    match name {
        PolicyName::Pool(_) => "Pool",
        PolicyName::Class(_) => "Class",
        PolicyName::NodeLimits(_) => "NodeLimits",
    }
}

/// Kind and name in one word: `pool/gpu`, `class/batch`, `nodelimits/edge`.
pub fn label(name: &PolicyName) -> String {
    let (PolicyName::Pool(text) | PolicyName::Class(text) | PolicyName::NodeLimits(text)) = name;
    format!("{}/{text}", kind_word(name).to_lowercase())
}
