//! I31: holders of slices of a rate spend no more, all together, than was taken for them in the log. What the log gives in any time is I4's affair.

use plimsoll_ledger::{Command, Outcome};
use plimsoll_types::Revision;

use super::{Findings, Invariant};
use crate::oracle::{Case, Step};
use crate::workload::{SLICED_QUOTA, SLICED_RATE};

/// See the module.
#[derive(Default)]
pub(super) struct Slices {
    /// Tokens that the log gave.
    taken: u64,
}

impl Invariant for Slices {
    fn step(&mut self, step: &Step, _: &mut Findings) {
        if let (Command::TakeTokens { quota, rate, .. }, Outcome::Tokens(told)) =
            (&step.entry.command, &step.outcome)
            && (quota.as_str(), rate.as_str()) == (SLICED_QUOTA, SLICED_RATE)
            && !step.replayed
        {
            self.taken += told.taken;
        }
    }

    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        let spent = case.evidence.spent;
        if spent > self.taken {
            let detail = format!("{spent} tokens were spent out of slices, and {} were taken", self.taken);
            findings.add("I31", Revision(0), detail);
        }
    }
}

#[cfg(test)]
mod tests {
    use crate::invariants::fixture::Good;

    #[test]
    fn tokens_that_nobody_took_are_found() {
        let mut good = Good::new();
        assert_eq!(good.judge(), Vec::<&str>::new());
        good.evidence.spent = 1;
        assert_eq!(good.judge(), ["I31"]);
    }
}
