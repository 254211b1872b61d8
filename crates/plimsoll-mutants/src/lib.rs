//! Seeded bugs, to find out whether the tests would find them (`docs/seeded-bugs.md`).
//!
//! Each is one `mutant!("name")` in the product. Without the feature `mutants`, which nothing turns on by default and
//! which a release build refuses, the macro is a constant false and nothing of it is left. With it, the one that the
//! environment variable [`VARIABLE`] names when the process first asks is there; without the variable none is.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("seeded bugs are for debug builds: turn the feature `mutants` off");

/// Names the seeded bug that this process has.
pub const VARIABLE: &str = "PLIMSOLL_MUTANT";

/// True where this process has the seeded bug of that name.
#[macro_export]
macro_rules! mutant {
    ($name:literal) => {
        $crate::is_on($name)
    };
}

/// True where this process has the seeded bug of that name: never, in this build.
#[cfg(not(feature = "mutants"))]
#[inline(always)]
pub const fn is_on(_name: &str) -> bool {
    false
}

/// True where this process has the seeded bug of that name.
#[cfg(feature = "mutants")]
pub fn is_on(name: &str) -> bool {
    static CHOSEN: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    CHOSEN.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(name)
}

/// The machine's own time, in milliseconds since the Unix epoch: what nothing that is replicated may look at.
pub fn wall_ms() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    #[test]
    fn no_bug_is_there_unless_it_is_asked_for() {
        assert!(!mutant!("nobody-asked-for-this"));
    }
}
