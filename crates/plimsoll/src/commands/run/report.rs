//! What `plimsoll run` says of a grant: what it is, why it is taken back, and what was used of it.

use std::time::Duration;

use plimsoll_agent::usage::ProcessUsage;
use plimsoll_client::v1::{PreemptionRule, Quantities, Reservation};
use plimsoll_types::quantity::{display_bytes, format_bytes, format_cpu_millis};

use crate::host::host_name;
use crate::output::{Out, granted, places, short_duration, too_full};

/// Memory advice is never below this.
const LEAST_ADVICE_BYTES: u64 = 64 << 20;

/// Why the grant is taken back.
pub(super) fn notice_of(reservation: &Reservation) -> String {
    let preempted = reservation.preempted.clone().unwrap_or_default();
    if let Some(evicted) = &preempted.evicted {
        return format!("{} has to leave {}", reservation.id, too_full(evicted));
    }
    if preempted.rule() == PreemptionRule::Interruption {
        return format!("{} has to leave: the provider takes its node back", reservation.id);
    }
    let why = match preempted.rule() {
        PreemptionRule::Reclaim => "whose queue takes back what it had lent",
        PreemptionRule::BestEffort => "which is backed: best effort leaves first",
        PreemptionRule::Relocation => {
            return format!(
                "{} is taken back and waits again: its pool is fragmented, and {} has a place for it",
                reservation.id, preempted.to_node
            );
        }
        _ => "of a higher class",
    };
    format!("{} is taken back for {}, {why}", reservation.id, preempted.by)
}

/// What was granted, and where.
pub(super) fn what(reservation: &Reservation) -> String {
    let here = host_name();
    let all_here = reservation.allocations.iter().all(|allocation| allocation.node == here);
    let place = if all_here { "this machine".to_owned() } else { places(&reservation.allocations) };
    let devices: Vec<&str> = reservation
        .allocations
        .iter()
        .flat_map(|allocation| &allocation.devices)
        .map(|device| device.uuid.as_str())
        .collect();
    let devices = if devices.is_empty() { String::new() } else { format!(" ({})", devices.join(", ")) };
    format!("{}{devices} on {place}", granted(reservation))
}

pub(super) fn warn_of_another_machine(reservation: &Reservation, out: &Out) {
    let here = host_name();
    if !reservation.allocations.iter().any(|allocation| allocation.node == here) {
        out.say(&format!(
            "{} the command runs on this machine, which is not the one granted",
            out.paint.strong("note:")
        ));
    }
}

/// The used-versus-granted line.
pub(super) fn used_line(usage: &ProcessUsage, reservation: &Reservation, out: &Out) -> String {
    let amounts = reservation.amounts.clone().unwrap_or_default();
    let dot = out.paint.dot();
    let tenths = usage.mean_cpu_millis().div_ceil(100);
    let cores = format!("{}.{}", tenths / 10, tenths % 10);
    let peak = display_bytes(usage.peak_rss_bytes.div_ceil(1 << 20) << 20);
    let mut parts = Vec::new();
    match amounts.memory_bytes {
        0 => parts.push(format!("peak {peak}")),
        granted => parts.push(format!("peak {peak} of {}", display_bytes(granted))),
    }
    match amounts.cpu_millis {
        0 => parts.push(format!("{cores} cpu")),
        granted => parts.push(format!("{cores} of {} cpu", format_cpu_millis(granted))),
    }
    let text = format!("{dot} {}", parts.join(", "));
    match advice(usage, &amounts) {
        Some(advice) => format!("{text} {dot} next time {advice} would do"),
        None => text,
    }
}

/// What would have been enough, where it is clearly less than what was granted.
fn advice(usage: &ProcessUsage, granted: &Quantities) -> Option<String> {
    // A quarter above the mean, in whole cores; twice the peak, in powers of two.
    let cores = (usage.mean_cpu_millis() + usage.mean_cpu_millis() / 4).div_ceil(1_000).max(1);
    let memory =
        (usage.peak_rss_bytes.saturating_mul(2)).max(LEAST_ADVICE_BYTES).checked_next_power_of_two()?;
    let mut parts = Vec::new();
    if granted.cpu_millis > cores * 1_000 {
        parts.push(format!("--cpu {cores}"));
    }
    if granted.memory_bytes > memory {
        parts.push(format!("--mem {}", format_bytes(memory)));
    }
    Some(parts.join(" ")).filter(|text| !text.is_empty())
}

pub(super) fn took(elapsed: Duration) -> String {
    short_duration(u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn advice_is_given_where_much_less_would_do() {
        let usage =
            ProcessUsage { peak_rss_bytes: 14 << 20, cpu_user_ms: 20, cpu_system_ms: 0, elapsed_ms: 200 };
        let granted = Quantities { cpu_millis: 2_000, memory_bytes: 1 << 30, ..Quantities::default() };
        assert_eq!(advice(&usage, &granted).as_deref(), Some("--cpu 1 --mem 64Mi"));
        let right = Quantities { cpu_millis: 1_000, memory_bytes: 64 << 20, ..Quantities::default() };
        assert_eq!(advice(&usage, &right), None);
    }
}
