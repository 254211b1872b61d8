//! M6: the rules in force change by an entry of the log alone, upwards, and an acknowledged upgrade stays.

use plimsoll_ledger::{Command, LATEST_VERSION, Outcome};
use plimsoll_types::Revision;

use super::{Findings, Invariant};
use crate::oracle::{Case, Step};
use crate::request::Request;

/// See the module.
pub(super) struct Versions {
    in_force: u32,
}

impl Default for Versions {
    fn default() -> Versions {
        Versions { in_force: 1 }
    }
}

impl Invariant for Versions {
    fn step(&mut self, step: &Step, findings: &mut Findings) {
        let Command::Upgrade { to } = step.entry.command else { return };
        if step.replayed || step.outcome != Outcome::Done {
            return;
        }
        if to <= self.in_force || to > LATEST_VERSION {
            let detail =
                format!("version {to} follows {}, and {LATEST_VERSION} is the newest", self.in_force);
            findings.add("M6", step.revision, detail);
        }
        self.in_force = to;
    }

    fn end(&mut self, case: &Case<'_>, findings: &mut Findings) {
        for call in case.calls {
            let Request::Upgrade(request) = &call.request else { continue };
            let Some(done) = call.answer.done() else { continue };
            if !request.validate_only && request.to > self.in_force {
                let detail =
                    format!("{} was done, and version {} is in force", request.request_id, self.in_force);
                findings.add("M6", Revision(done.revision), detail);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_client::v1;

    use super::*;
    use crate::history::{Answer, Done};
    use crate::invariants::fixture::{Good, found, node, step};

    #[test]
    fn a_step_back_and_a_version_of_nobody_are_found() {
        let mut versions = Versions::default();
        let mut raise = step(&[node(0)], &[]);
        raise.outcome = Outcome::Done;
        raise.entry.command = Command::Upgrade { to: 2 };
        assert_eq!(found(&mut versions, &raise), Vec::<&str>::new());
        assert_eq!(found(&mut versions, &raise), ["M6"]);
        raise.entry.command = Command::Upgrade { to: LATEST_VERSION + 1 };
        assert_eq!(found(&mut versions, &raise), ["M6"]);
    }

    #[test]
    fn an_acknowledged_upgrade_that_is_lost_is_found() {
        let mut good = Good::new();
        let mut call = good.calls[0].clone();
        call.request = Request::Upgrade(v1::UpgradeRequest { to: 2, ..Default::default() });
        call.answer = Answer::Done(Done { revision: 1, ..Done::default() });
        good.calls.push(call);
        assert_eq!(good.judge(), ["M6"]);
    }
}
