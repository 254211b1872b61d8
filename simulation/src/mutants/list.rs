//! Which seeded bugs there are, and which nets are to catch each: the cheapest first.

use super::net::Net;

/// One seeded bug.
#[derive(Clone, Copy, Debug)]
pub struct Seeded {
    /// Its name in `mutant!`.
    pub name: &'static str,
    /// What is wrong with it.
    pub what: &'static str,
    /// Nets that may catch it, in the order in which they are tried.
    pub nets: &'static [Net],
}

const MODEL: Net = Net::tests("plimsoll-ledger", "model_test", "");
const QOS: Net = Net::tests("plimsoll-ledger", "qos", "");
const EVICTIONS: Net = Net::tests("plimsoll-ledger", "evictions", "");
const SPOT: Net = Net::tests("plimsoll-ledger", "spot", "");
const USAGE: Net = Net::tests("plimsoll-ledger", "usage", "");
const LIFE: Net = Net::tests("plimsoll-ledger", "lifecycle", "");
const CONTENTION: Net = Net::tests("plimsoll-ledger", "contention", "");
const ELASTIC: Net = Net::tests("plimsoll-ledger", "elastic", "");
const SCALING: Net = Net::tests("plimsoll-ledger", "scaling", "");
const SCALING_SERVICES: Net = Net::tests("plimsoll-ledger", "scaling_services", "");
const TEMPLATES: Net = Net::tests("plimsoll-ledger", "templates", "");
const SCALING_RANDOM: Net = Net::tests("plimsoll-ledger", "scaling_random", "");
const RELOCATION: Net = Net::tests("plimsoll-ledger", "relocation", "");
const REPAIR: Net = Net::tests("plimsoll-ledger", "repair", "");
const PROCESSING: Net = Net::tests("plimsoll-ledger", "processing", "");
const CLASS_ORDER: Net = Net::tests("plimsoll-scheduler", "class_order_test", "");
const POINTS: Net = Net::tests("plimsoll-scheduler", "points_test", "");
const HOURS: Net = Net::tests("plimsoll-ledger", "hours", "");
const ROLES: Net = Net::tests("plimsoll-ledger", "roles", "");
const ADMINISTRATION: Net = Net::tests("plimsoll-ledger", "administration", "");
const FAIR_TREE: Net = Net::tests("plimsoll-ledger", "fair_tree", "");
const OVERFLOW: Net = Net::tests("plimsoll-ledger", "overflow", "");
const MOVES: Net = Net::tests("plimsoll-scheduler", "elastic_test", "");
const SLICES: Net = Net::tests("plimsoll-rates", "sum", "");
const REDISTRIBUTION: Net = Net::tests("plimsoll-scheduler", "redistribute_test", "");
const PLANNER: Net = Net::tests("plimsoll-scheduler", "planner_test", "");
const AHEAD: Net = Net::tests("plimsoll-scheduler", "ahead_test", "");
const GROUP: Net = Net::tests("plimsoll-consensus", "plimsoll_consensus", "");
const CLOCK: Net = Net::tests("plimsoll-coordinator", "plimsoll_coordinator", "clock::");
const WATCHES: Net = Net::tests("plimsoll-coordinator", "plimsoll_coordinator", "services::tests::history");
const RULES: Net = Net::tests("plimsoll-coordinator", "plimsoll_coordinator", "validator");
const FORWARD: Net = Net::tests("plimsoll-coordinator", "plimsoll_coordinator", "forward");
const GATE: Net = Net::tests("plimsoll-agent", "plimsoll_agent", "token_gate");
const UNKNOWN: Net = Net::tests("plimsoll-simulation", "upgrade", "");
const SEEDS: Net = Net::Seeds;
const TWICE: Net = Net::Twice;

/// All of them.
pub const SEEDED: [Seeded; 78] = [
    // The ledger.
    bug("reuse-token", "a token is the revision of the request, not of the grant", &[MODEL, SEEDS]),
    bug("renew-resurrects", "a renewal brings an ended lease back", &[MODEL, SEEDS]),
    bug("free-early", "what a silent node holds is free before its agent says so", &[MODEL, SEEDS]),
    bug("partial-gang", "a gang goes on without the members of a failed node", &[MODEL, SEEDS]),
    bug(
        "repair-keeps-token",
        "a newcomer to a gang has the token of those before it",
        &[REPAIR, MODEL, SEEDS],
    ),
    bug(
        "repair-for-ever",
        "a gang below its minimum is not ended when its time to be repaired is over",
        &[REPAIR, MODEL, SEEDS],
    ),
    bug("gang-without-a-role", "a gang is granted without one of its roles", &[ROLES, SEEDS]),
    bug("contention-flaps", "a severity falls before it has lasted", &[CONTENTION, MODEL]),
    bug("resolution-unnoted", "what was done about a contention is not noted", &[CONTENTION, MODEL]),
    bug("forget-answers", "answers to request ids are not restored from rows", &[MODEL, SEEDS]),
    bug("never-forget-answers", "the table of answers grows without bound", &[MODEL, LIFE]),
    bug("wrap-on-overflow", "amounts times members wrap", &[MODEL, SEEDS]),
    bug("panic-on-empty-gang", "a gang of nobody ends the process", &[MODEL, SEEDS]),
    bug("trust-the-planner", "apply does not check again what the planner found", &[MODEL, SEEDS]),
    bug("forget-quota", "a grant is not held against its queue's quota", &[MODEL, SEEDS]),
    bug("anyone-administers", "administrators of queues are not looked at", &[ADMINISTRATION]),
    bug("forget-past-use", "what a queue used over time is not counted", &[FAIR_TREE]),
    bug("forget-a-level", "what the queues above have left is not looked at", &[MODEL, SEEDS]),
    bug("never-true-up", "what a grant had committed of a budget is not given back", &[MODEL, USAGE, SEEDS]),
    bug("stale-quota-index", "a quota that is put is not found for anybody", &[MODEL, USAGE, SEEDS]),
    bug("buy-beyond-the-wish", "a machine is asked for that nobody wants any more", &[SCALING, SEEDS]),
    bug("buy-beyond-the-template", "a template has more machines than it may", &[TEMPLATES, MODEL]),
    bug("buy-beyond-the-power", "a machine is asked for that the pool has no power for", &[TEMPLATES, MODEL]),
    bug("late-word-counts", "what an earlier leader heard of a machine counts", &[SCALING]),
    bug(
        "let-go-without-a-word",
        "a replica that is to be removed serves until its provider stops it",
        &[SCALING_SERVICES],
    ),
    bug(
        "stop-a-busy-machine",
        "a machine is stopped that holds something",
        &[SCALING, SCALING_RANDOM, SEEDS],
    ),
    bug("spend-a-slice-twice", "half of what is spent of a slice stays in it", &[SLICES, SEEDS]),
    bug("tokens-for-all", "a rate gives more tokens than there are", &[USAGE, SEEDS]),
    bug("reclaim-own-quota", "a reclaim takes a queue below its own quota", &[MODEL, SEEDS]),
    bug("no-grace", "who has to leave is out at once", &[MODEL, SEEDS]),
    bug(
        "grant-past-the-batch",
        "a queue grants more than its batch, or before it begins",
        &[PROCESSING, MODEL],
    ),
    bug("start-outside-of-hours", "who would rather start at night starts at any time", &[HOURS, MODEL]),
    bug(
        "serve-classes-by-priority",
        "classes of a pool that goes by their weights are served by priority",
        &[CLASS_ORDER],
    ),
    bug("forget-the-points", "a queue that goes by points goes by class and age", &[POINTS]),
    bug("lowest-tier", "a user is in the lower of two tiers that name him", &[USAGE, MODEL]),
    bug(
        "break-the-promise",
        "what a queue promised to process ends where it is interrupted",
        &[PROCESSING, MODEL],
    ),
    bug("count-classes-alike", "a class's multiplier is not looked at", &[PROCESSING, MODEL]),
    bug(
        "give-away-the-kept",
        "a place that others leave for somebody is granted to another",
        &[MODEL, SEEDS],
    ),
    bug("move-a-busy-node", "a node with work moves to another pool", &[ELASTIC, MODEL]),
    bug("move-below-the-least", "moves leave a pool fewer nodes than its least", &[ELASTIC, MODEL]),
    bug(
        "relocate-anyone",
        "a grant is asked to go elsewhere whatever its class, protected or not",
        &[RELOCATION, MODEL],
    ),
    bug("preempt-anyone", "a grant of any class is taken back, protected or not", &[MODEL, SEEDS]),
    bug("keep-token", "who was taken back waits with the token of its old grant", &[MODEL, SEEDS]),
    bug("expire-without-recheck", "a due time that was moved on ends the lease", &[MODEL, SEEDS]),
    bug("new-leader-expires-all", "a new leader does not give leases a full length", &[MODEL, SEEDS]),
    bug("time-goes-back", "ledger time follows the clock of the leader of the moment", &[MODEL, SEEDS]),
    bug("stale-queue", "what was placed stays in the queue", &[MODEL, SEEDS]),
    bug("endpoint-outlives-lease", "an endpoint is still there when its lease has ended", &[MODEL, SEEDS]),
    bug("set-aside-the-first", "a queue sets aside those that its bound has room for", &[OVERFLOW, MODEL]),
    bug(
        "drop-the-body",
        "what one asked that ended while it was aside goes before the answer that shows it",
        &[OVERFLOW],
    ),
    bug("overlapping-slices", "an instance is granted where another lies", &[MODEL]),
    bug("sell-idle-as-guaranteed", "what is oversubscribed is granted as backed", &[QOS, MODEL, SEEDS]),
    bug("best-effort-stays", "best effort leaves for nobody of its own or a lower class", &[QOS, MODEL]),
    bug("forget-the-spot-share", "more of the work is on spot nodes than may be", &[SPOT, MODEL]),
    bug("no-notice-of-interruption", "who is on a node that goes is told nothing", &[SPOT, MODEL]),
    bug("retry-what-fails", "what is to end with its node waits again", &[SPOT, MODEL]),
    bug("one-price-for-all", "a spot node costs what every node costs", &[SPOT]),
    bug("evict-the-backed", "what is backed leaves for what its node measures", &[EVICTIONS, MODEL]),
    // The scheduler.
    bug("hash-order", "the planner takes nodes in the order of a hash map", &[PLANNER, TWICE]),
    bug("redistribute-nowhere", "a grant is asked to go where it has no place", &[REDISTRIBUTION]),
    bug("overtake-the-head", "a strict queue does not stop at its head", &[PLANNER]),
    bug("backfill-delays-the-head", "who overtakes is not asked for how long it stays", &[AHEAD]),
    bug("lend-what-is-missed", "a node that somebody at home waits for is lent", &[MOVES]),
    // Storage and consensus.
    bug("skip-fsync", "what was written counts before it is on disk", &[SEEDS]),
    bug("vote-not-persisted", "a vote is forgotten at a power cut", &[SEEDS]),
    bug("purge-before-sync", "the log is let go of before the rows are on disk", &[SEEDS]),
    bug("rows-after-index", "the applied index is written before the rows", &[SEEDS]),
    bug("ack-before-commit", "the caller is answered before a quorum has it", &[SEEDS]),
    bug("local-read", "a deposed leader answers reads by itself", &[SEEDS]),
    bug("joint-as-one", "two sets of voters are counted as one", &[GROUP]),
    // The coordinator.
    bug("local-clock", "each replica applies by its own clock", &[SEEDS]),
    bug("untamed-clock", "a clock that jumps takes ledger time along", &[CLOCK]),
    bug("skip-unknown-command", "a command of a later version is skipped", &[UNKNOWN]),
    bug("watch-skips-one", "a watch that is taken up again misses an event", &[WATCHES, SEEDS]),
    bug("no-rules", "what breaks a validator's rule is proposed", &[RULES]),
    bug("watch-leaks-tenant", "a watch of one tenant shows those of others", &[WATCHES]),
    bug("forwarded-loses-actor", "a call that was passed on is the coordinator's", &[FORWARD]),
    // The agent.
    bug("gate-takes-old-tokens", "a device obeys a holder that was replaced", &[GATE]),
];

/// Those of the plan (`reliability.md` 10.5) whose features are not there yet, or that these nets cannot see.
pub const NOT_THERE: [(&str, &str); 4] = [
    ("quota check before propose", "trust-the-planner is that for all that is checked, quota among it"),
    (
        "watch leaks other tenant, by permission",
        "there are no permissions yet; watch-leaks-tenant is the filter",
    ),
    (
        "snapshot without directory fsync",
        "needs a file system that loses what was not synced: the crash tests' part",
    ),
    (
        "joint quorum counted as one, inside openraft",
        "its quorum is not ours to break; joint-as-one is our codec",
    ),
];

const fn bug(name: &'static str, what: &'static str, nets: &'static [Net]) -> Seeded {
    Seeded { name, what, nets }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::*;

    /// Every name that stands in a `mutant!` of the product.
    fn used(folder: &Path, names: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(folder).expect("the sources are there") {
            let path = entry.expect("readable").path();
            if path.is_dir() {
                used(&path, names);
            } else if path.extension().is_some_and(|end| end == "rs") {
                let text = std::fs::read_to_string(&path).expect("text");
                let pieces = text.split("mutant!(\"").skip(1);
                names.extend(
                    pieces.filter_map(|piece| piece.split_once('"')).map(|(name, _)| name.to_owned()),
                );
            }
        }
    }

    #[test]
    fn every_seeded_bug_is_in_the_product_and_listed() {
        let crates = Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates");
        let mut names = BTreeSet::new();
        for entry in std::fs::read_dir(crates).expect("the crates are there") {
            let folder = entry.expect("readable").path();
            if !folder.ends_with("plimsoll-mutants") {
                used(&folder.join("src"), &mut names);
            }
        }
        let listed: BTreeSet<String> = SEEDED.iter().map(|one| one.name.to_owned()).collect();
        assert_eq!(listed, names);
        assert_eq!(listed.len(), SEEDED.len(), "a name is listed twice");
    }

    #[test]
    fn nothing_turns_the_seeded_bugs_on_by_default() {
        assert!(!plimsoll_mutants::is_on("skip-fsync"));
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let mut asking = Vec::new();
        for folder in ["crates", "."] {
            for entry in std::fs::read_dir(root.join(folder)).expect("there") {
                let manifest = entry.expect("readable").path().join("Cargo.toml");
                let Ok(text) = std::fs::read_to_string(&manifest) else { continue };
                let asks = |line: &&str| line.contains("mutants") && line.contains("features = ");
                asking.extend(text.lines().filter(asks).map(str::to_owned));
                assert!(!text.lines().any(|line| line.starts_with("default") && line.contains("mutants")));
            }
        }
        assert_eq!(asking, Vec::<String>::new(), "a dependency that asks for them turns them on for all");
    }
}
