//! The kinds of faults, how often each happens, and how long each lasts.

use crate::rng::Rng;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// The leader loses power and comes back.
    CrashLeader,
    /// The leader loses power while voters change. Only in scenarios: by chance the moment is never met.
    CrashInChange,
    /// Any coordinator loses power and comes back.
    CrashOne,
    /// All coordinators lose power at once and come back.
    CrashAll,
    /// The agents' machine dies and starts again.
    CrashAgent,
    /// The leader is cut off from the other coordinators, not from clients.
    IsolateLeader,
    /// A coordinator is cut off from everybody.
    CutOne,
    /// Two coordinators are cut off from everybody, each other included: no majority.
    CutTwo,
    /// Messages of one coordinator to another are lost, in one direction.
    OneWay,
    /// Messages between two coordinators are held up and delivered late.
    Hold,
    /// The agents are cut off.
    CutAgent,
    /// The agents are cut off until leases of silent nodes are over.
    SilenceAgent,
    /// The clients are cut off from the leader.
    CutClients,
    /// What coordinators answer to clients is lost; what clients ask arrives.
    LoseAnswers,
    /// A disk becomes slow.
    SlowDisk,
    /// The leader's disk becomes slow.
    SlowLeader,
    /// A disk fails to sync: the coordinator must stop, and starts again on a disk that is well.
    FailSync,
    /// Power is lost and a bit of the log flips: the coordinator must refuse to start until it is mended.
    BitRot,
    /// A clock jumps, forward or back.
    StepClock,
    /// A coordinator of an older build loses power and comes back as one of the newest. At moments of its own, in seeds
    /// that begin on an older build.
    NewBuild,
}

/// How often each happens. Coverage is printed by every run: keep each above zero.
const WEIGHTS: [(u64, Fault); 18] = [
    (6, Fault::CrashLeader),
    (3, Fault::CrashOne),
    (1, Fault::CrashAll),
    (1, Fault::CrashAgent),
    (4, Fault::IsolateLeader),
    (2, Fault::CutOne),
    (1, Fault::CutTwo),
    (3, Fault::OneWay),
    (2, Fault::Hold),
    (1, Fault::CutAgent),
    (1, Fault::SilenceAgent),
    (2, Fault::CutClients),
    (4, Fault::LoseAnswers),
    (1, Fault::SlowDisk),
    (1, Fault::SlowLeader),
    (2, Fault::FailSync),
    (2, Fault::BitRot),
    (2, Fault::StepClock),
];

impl Fault {
    /// One of them, and how long it lasts in milliseconds.
    pub(super) fn draw(rng: &mut Rng) -> Option<(Fault, u64)> {
        let lasts_ms = rng.between(200, 3_000);
        let fault = rng.weighted(&WEIGHTS)?;
        let long = matches!(fault, Fault::SilenceAgent);
        Some((fault, if long { 6_000 + lasts_ms } else { lasts_ms }))
    }
}
