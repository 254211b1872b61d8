//! Named scenarios: schedules of faults that provoke the classic bugs of Raft implementations, one for each, in place of the
//! seeded schedule. The numbers are those of the reliability plan's list (7.2).

use crate::faults::Fault;
use crate::upgrade;

/// A schedule.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// Its name.
    pub name: &'static str,
    /// What must not happen, with its number in the plan.
    pub against: &'static str,
    /// A seed whose load suits it: the membership changes where that matters.
    pub seed: u64,
    /// The round of faults, begun again until the chaos is over.
    pub round: &'static [Step],
}

/// One fault of a schedule.
#[derive(Clone, Copy, Debug)]
pub struct Step {
    /// How long after the step before, in simulated milliseconds.
    pub after_ms: u64,
    /// What happens. Where it cannot at that moment, the schedule waits until it can.
    pub fault: Fault,
    /// How long it lasts, in simulated milliseconds.
    pub lasts_ms: u64,
}

/// All of them.
pub const SCENARIOS: [Scenario; 16] = [
    Scenario {
        name: "prior-term",
        against: "1: an entry of an earlier term is committed by counting replicas",
        seed: 1,
        round: &[
            step(500, Fault::IsolateLeader, 900),
            step(700, Fault::CrashLeader, 300),
            step(400, Fault::CrashLeader, 1_200),
        ],
    },
    Scenario {
        name: "double-vote",
        against: "3: a vote is given twice in a term, since the first was not on disk",
        seed: 2,
        round: &[
            step(350, Fault::CrashAll, 60),
            step(900, Fault::CrashLeader, 100),
            step(150, Fault::CrashOne, 80),
        ],
    },
    Scenario {
        name: "order-of-writes",
        against: "4: a term reaches the disk after the entries of that term",
        seed: 3,
        round: &[step(300, Fault::SlowLeader, 2_000), step(250, Fault::CrashAll, 150)],
    },
    Scenario {
        name: "late-appends",
        against: "5: entries that agree are cut off by an append that came late",
        seed: 4,
        round: &[step(400, Fault::Hold, 700), step(300, Fault::OneWay, 600), step(600, Fault::Hold, 300)],
    },
    Scenario {
        name: "applied-apart",
        against: "6: the applied index is on disk and the state is not",
        seed: 5,
        round: &[step(1_500, Fault::CrashOne, 200), step(1_300, Fault::CrashAll, 200)],
    },
    Scenario {
        name: "early-purge",
        against: "8: the log is let go of before the snapshot is on disk",
        seed: 6,
        round: &[step(2_200, Fault::CrashAll, 150)],
    },
    Scenario {
        name: "own-write",
        against: "9: a leader counts what its own disk does not have yet",
        seed: 7,
        round: &[step(300, Fault::SlowLeader, 1_500), step(350, Fault::CrashLeader, 900)],
    },
    Scenario {
        name: "deposed-reader",
        against: "10: a leader that was replaced answers reads",
        seed: 8,
        round: &[step(500, Fault::IsolateLeader, 2_500), step(2_700, Fault::CutClients, 300)],
    },
    Scenario {
        name: "one-ear",
        against: "11: a coordinator that hears nobody disturbs the others for ever",
        seed: 9,
        round: &[step(300, Fault::OneWay, 2_500), step(200, Fault::OneWay, 2_500)],
    },
    Scenario {
        name: "removed-campaigns",
        against: "12, 13: a removed or learning coordinator disturbs, or is counted as a voter after a restart",
        seed: 24,
        round: &[step(900, Fault::CrashAll, 120), step(1_500, Fault::CutOne, 800)],
    },
    Scenario {
        name: "snapshots-overlap",
        against: "14, 17: parts of two leaders' snapshots are mixed, or one is installed while another is applied",
        seed: 11,
        round: &[
            step(300, Fault::CutOne, 3_500),
            step(3_650, Fault::CrashLeader, 200),
            step(100, Fault::Hold, 400),
        ],
    },
    Scenario {
        name: "ignored-error",
        against: "15: a failure of the disk is logged and forgotten",
        seed: 12,
        round: &[step(900, Fault::FailSync, 400), step(1_500, Fault::CrashOne, 200)],
    },
    Scenario {
        name: "index-before-term",
        against: "16: a long log of an old term wins against a short one of a new term",
        seed: 13,
        round: &[step(300, Fault::IsolateLeader, 1_800), step(1_000, Fault::CrashLeader, 1_500)],
    },
    Scenario {
        name: "endless-leases",
        against: "18: each change of leader starts leases anew, and none ends",
        seed: 14,
        round: &[step(1_200, Fault::CrashLeader, 200), step(900, Fault::SilenceAgent, 7_000)],
    },
    Scenario {
        name: "half-changed",
        against: "19, M4: a change of members is cut short by the end of its leader, or taken from a log that gave way",
        seed: 3,
        round: &[step(200, Fault::CrashInChange, 400), step(300, Fault::IsolateLeader, 600)],
    },
    Scenario {
        name: upgrade::ROLLING,
        against: "M6: a member applies by rules that it does not know, or members differ in when new rules begin",
        seed: 24,
        round: &[
            step(600, Fault::CrashLeader, 300),
            step(900, Fault::IsolateLeader, 700),
            step(800, Fault::CrashOne, 900),
        ],
    },
];

/// The scenario of that name.
pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

const fn step(after_ms: u64, fault: Fault, lasts_ms: u64) -> Step {
    Step { after_ms, fault, lasts_ms }
}
