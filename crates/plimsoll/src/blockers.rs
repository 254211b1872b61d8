//! What stands in the way, in words: amounts as people write them, and what is worth knowing first.

use plimsoll_client::reason;
use plimsoll_client::v1::{Blocker, ErrorReason};
use plimsoll_types::quantity::{display_bytes, format_resource};

/// GPU shares are counted in thousandths of one device.
const WHOLE_GPU_MILLI: u64 = 1_000;

/// One thing that stands in the way, with its numbers.
pub(crate) fn sentence(blocker: &Blocker) -> String {
    let numbers = match blocker.reason() {
        ErrorReason::NoCapacity | ErrorReason::CountableExhausted => shortage(blocker),
        ErrorReason::DeviceMismatch if is_too_many_devices(blocker) => most_devices(blocker),
        _ => None,
    };
    if let Some(numbers) = numbers {
        return format!("{}: {numbers}{}", blocker.subject, nodes(blocker.nodes));
    }
    if !blocker.message.is_empty() {
        return blocker.message.clone();
    }
    let what = reason::describe(blocker.reason());
    format!("{}: {what} ({} asked, {} there)", blocker.subject, blocker.asked, blocker.available)
}

/// The first of them, and how many more there are; empty where there are none.
pub(crate) fn summary(blockers: &[Blocker]) -> String {
    match by_weight(blockers).as_slice() {
        [] => String::new(),
        [one] => sentence(one),
        [first, rest @ ..] => format!("{} (+{} more)", sentence(first), rest.len()),
    }
}

/// What is short before nodes that never counted: those were left out on purpose.
pub(crate) fn by_weight(blockers: &[Blocker]) -> Vec<Blocker> {
    let mut sorted = blockers.to_vec();
    sorted.sort_by_key(|blocker| {
        matches!(blocker.reason(), ErrorReason::LabelMismatch | ErrorReason::PoolMismatch)
    });
    sorted
}

fn shortage(blocker: &Blocker) -> Option<String> {
    let Blocker { asked, available, limit, .. } = blocker;
    let show = |amount: u64| display(blocker, amount);
    let most =
        if *limit > 0 && limit != available { format!(", at most {}", show(*limit)) } else { String::new() };
    (*asked > 0).then(|| format!("{} asked, {} free{most}", show(*asked), show(*available)))
}

/// The unit follows from the subject; of GPUs, from the most that there is of one: a device is 1,000 or has so much memory.
fn display(blocker: &Blocker, amount: u64) -> String {
    match blocker.subject.as_str() {
        "cpu" => decimal(amount),
        "memory" => display_bytes(amount),
        "gpu" if blocker.limit == WHOLE_GPU_MILLI => format!("{} GPU", decimal(amount)),
        "gpu" if blocker.limit > WHOLE_GPU_MILLI => display_bytes(amount),
        "gpu" => amount.to_string(),
        resource => format_resource(resource, amount),
    }
}

/// Thousandths as a decimal number: `1.5`, as in tables.
fn decimal(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1_000, milli % 1_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn is_too_many_devices(blocker: &Blocker) -> bool {
    blocker.subject == "gpu" && blocker.limit < blocker.asked && blocker.limit < WHOLE_GPU_MILLI
}

fn most_devices(blocker: &Blocker) -> Option<String> {
    Some(match blocker.limit {
        0 => format!("{} asked, and there are none", blocker.asked),
        limit => format!("{} asked on one node, the most there are on one is {limit}", blocker.asked),
    })
}

fn nodes(count: u32) -> String {
    match count {
        0 => String::new(),
        1 => " (1 node)".to_owned(),
        _ => format!(" ({count} nodes)"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocker(reason: ErrorReason, subject: &str, asked: u64, available: u64, limit: u64) -> Blocker {
        let subject = subject.to_owned();
        Blocker { reason: reason.into(), subject, asked, available, limit, nodes: 1, ..Blocker::default() }
    }

    #[test]
    fn amounts_are_written_as_they_are_asked_for() {
        let short = |subject, asked, available, limit| {
            sentence(&blocker(ErrorReason::NoCapacity, subject, asked, available, limit))
        };
        assert_eq!(short("cpu", 4_000, 1_500, 8_000), "cpu: 4 asked, 1.5 free, at most 8 (1 node)");
        assert_eq!(short("memory", 16 << 30, 1 << 30, 0), "memory: 16Gi asked, 1Gi free (1 node)");
        assert_eq!(short("gpu", 2, 0, 2), "gpu: 2 asked, 0 free, at most 2 (1 node)");
        assert_eq!(short("gpu", 500, 300, 1_000), "gpu: 0.5 GPU asked, 0.3 GPU free, at most 1 GPU (1 node)");
        let many = blocker(ErrorReason::DeviceMismatch, "gpu", 9, 0, 2);
        assert_eq!(sentence(&many), "gpu: 9 asked on one node, the most there are on one is 2 (1 node)");
    }

    #[test]
    fn nodes_that_never_counted_are_told_last() {
        let labels = blocker(ErrorReason::LabelMismatch, "labels", 1, 0, 0);
        let short = blocker(ErrorReason::NoCapacity, "gpu", 2, 0, 2);
        let text = summary(&[labels, short]);
        assert_eq!(text, "gpu: 2 asked, 0 free, at most 2 (1 node) (+1 more)");
        assert_eq!(summary(&[]), "");
    }
}
