//! What processes used, from `/proc`.

/// Clock ticks a second in `/proc`: a constant of Linux's user interface on every architecture that Rust runs on.
const TICKS_PER_S: u64 = 100;
const PAGE_BYTES: u64 = 4_096;

/// CPU time that a process has used so far, user and system, in microseconds; `None` where there is no such process.
pub fn cpu_us(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold spaces: fields count from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks: u64 = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks * 1_000_000 / TICKS_PER_S)
}

/// Resident memory of a process in bytes; `None` where there is no such process.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    Some(statm.split_whitespace().nth(1)?.parse::<u64>().ok()? * PAGE_BYTES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_uses_memory_and_a_missing_one_is_told() {
        assert!(resident_bytes(std::process::id()).is_some_and(|bytes| bytes > 1 << 20));
        assert!(cpu_us(std::process::id()).is_some());
        assert_eq!(cpu_us(u32::MAX), None);
    }
}
