//! Shared fixtures for the benchmarks: a fleet that is 70 % full, and requests to put into it.

use std::time::{Duration, Instant};

use criterion::Criterion;
use plimsoll_ledger::{
    Answer, Command, Device, Entry, GpuAsk, Ledger, Outcome, PolicyObject, Pool, Registration, Request,
    Reservation, Stamp, Strategy, Verdict,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::{LedgerTime, NodeId, Operator, Resources, Revision, Selector, Term};

const GIB: u64 = 1 << 30;

/// Fleets that are measured, in nodes.
pub const SIZES: [u32; 3] = [1_000, 10_000, 100_000];

/// Every strategy with its name.
pub const STRATEGIES: [(&str, Strategy); 10] = [
    ("greedy", Strategy::Greedy),
    ("balanced", Strategy::Balanced),
    ("priority", Strategy::Priority),
    ("first_fit", Strategy::FirstFit),
    ("best_fit", Strategy::BestFit),
    ("worst_fit", Strategy::WorstFit),
    ("first_fit_decreasing", Strategy::FirstFitDecreasing),
    ("random", Strategy::Random),
    ("fragmentation", Strategy::Fragmentation),
    ("optimized", Strategy::Optimized),
];

/// A ledger with its own log: every command is stamped with the next revision.
pub struct Log {
    /// The ledger.
    pub ledger: Ledger,
}

impl Log {
    /// A fleet of `nodes` nodes (64 cores, 256 GiB, four GPUs of one of two models; four zones)
    /// in the pool `default`, filled at random places until about 70 % of its cpu is granted.
    pub fn filled(nodes: u32, strategy: Strategy) -> Log {
        let mut log = Log::empty(nodes);
        log.set_strategy(Strategy::Random);
        let mut planner = Planner::new(&log.ledger, 1);
        // 7 grants of 6.4 cores a node on the mean, of mixed shapes.
        for index in 0..nodes * 7 {
            let request = request(index);
            let verdict = planner.place(&log.ledger, &request);
            let placed = match &verdict {
                Verdict::Place(placement) => placement.members[0].node,
                Verdict::Blocked(_) | Verdict::Infeasible(_) => continue,
            };
            log.apply(Command::Submit { request, verdict });
            planner.sync(&log.ledger, [placed]);
        }
        log.set_strategy(strategy);
        log.ledger.clear_touched();
        log
    }

    /// The same nodes with nothing on them.
    pub fn empty(nodes: u32) -> Log {
        let mut log = Log { ledger: Ledger::new() };
        log.apply(Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION });
        for node in 0..nodes {
            log.apply(Command::RegisterNode(registration(node)));
        }
        log
    }

    /// Chooses the strategy of the pool `default`.
    pub fn set_strategy(&mut self, strategy: Strategy) {
        let pool = Pool { name: "default".into(), strategy, ..Pool::default() };
        let put = vec![PolicyObject::Pool(pool)];
        self.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
    }

    /// Applies a command at the next revision.
    pub fn apply(&mut self, command: Command) -> Answer {
        self.apply_entry(&Entry::system(command))
    }

    /// Applies an entry at the next revision.
    pub fn apply_entry(&mut self, entry: &Entry) -> Answer {
        let revision = Revision(self.ledger.revision().0 + 1);
        let stamp = Stamp { revision, proposed_at: LedgerTime(revision.0) };
        self.ledger.apply(stamp, entry).answer
    }
}

/// The reservation that an answer shows.
///
/// # Panics
/// Where it shows none: the benchmark measures something else than it says.
pub fn granted(answer: Answer) -> std::sync::Arc<Reservation> {
    match answer.outcome {
        Outcome::Reservation(reservation) => reservation,
        other => panic!("no reservation but {other:?}"),
    }
}

fn registration(node: u32) -> Registration {
    let device = |index| Device {
        uuid: format!("GPU-{node}-{index}"),
        model: if node.is_multiple_of(3) { "a100" } else { "h100" }.into(),
        memory_bytes: 80 * GIB,
        failed: false,
        mig: None,
    };
    Registration {
        name: format!("node-{node}"),
        incarnation: 1,
        labels: [
            ("zone".to_owned(), format!("zone-{}", node % 4)),
            ("rack".to_owned(), format!("rack-{}", node / 40)),
        ]
        .into(),
        capacity: Resources::new(64_000, 256 * GIB),
        devices: (0..4).map(device).collect(),
        ..Registration::default()
    }
}

/// A request of the mix: cpu alone, shares of GPUs, whole GPUs.
pub fn request(index: u32) -> Request {
    let cpu_millis = 1_000 + u64::from(index.wrapping_mul(2_654_435_761) >> 16) % 11_000;
    let mut request = Request {
        pool: "default".into(),
        class: "standard".into(),
        auto_confirm: true,
        ttl_ms: 3_600_000_000,
        ..Request::default()
    };
    request.requirements.amounts = Resources::new(cpu_millis, 4 * cpu_millis / 1_000 * GIB);
    request.requirements.gpu = match index % 8 {
        0 | 1 => Some(GpuAsk::whole(1)),
        2 => Some(GpuAsk::milli(250)),
        3 => Some(GpuAsk::milli(600)),
        _ => None,
    };
    request
}

/// The request that is measured: 4 cores, 16 GiB, half a GPU, in one of four zones.
pub fn labelled_request() -> Request {
    let mut request = request(4);
    request.requirements.amounts = Resources::new(4_000, 16 * GIB);
    request.requirements.gpu = Some(GpuAsk::milli(500));
    let zone = Term { key: "zone".into(), operator: Operator::In, values: vec!["zone-2".into()] };
    request.requirements.required = Selector { terms: vec![zone] };
    request
}

/// The node of the first member.
pub fn first_node(verdict: &Verdict) -> Option<NodeId> {
    match verdict {
        Verdict::Place(placement) => placement.members.first().map(|member| member.node),
        Verdict::Blocked(_) | Verdict::Infeasible(_) => None,
    }
}

/// Runs a routine under Criterion (which keeps history and prints its own estimate) and returns the median of ten
/// batches in nanoseconds a call, for the table.
pub fn measure(criterion: &mut Criterion, name: &str, mut routine: impl FnMut()) -> u64 {
    criterion.bench_function(name, |bencher| bencher.iter(&mut routine));
    let begun = Instant::now();
    let mut calls: u32 = 0;
    while begun.elapsed() < Duration::from_millis(20) {
        routine();
        calls += 1;
    }
    let mut batches: Vec<u64> = (0..10)
        .map(|_| {
            let begun = Instant::now();
            for _ in 0..calls {
                routine();
            }
            u64::try_from(begun.elapsed().as_nanos()).unwrap_or(u64::MAX) / u64::from(calls)
        })
        .collect();
    batches.sort_unstable();
    batches[batches.len() / 2]
}

/// A table with one column per size, in nanoseconds, and the growth exponent between the ends.
pub fn print_table(title: &str, rows: &[(String, Vec<u64>)]) {
    println!("\n{title} (ns, median of 10 batches)");
    let sizes: String = SIZES.iter().map(|size| format!("{size:>12}")).collect();
    println!("{:<34}{sizes}{:>10}", "nodes", "exponent");
    for (name, figures) in rows {
        let columns: String = figures.iter().map(|ns| format!("{ns:>12}")).collect();
        let ends = (figures.first().copied().unwrap_or(1), figures.last().copied().unwrap_or(1));
        let growth = f64::from(SIZES[SIZES.len() - 1]) / f64::from(SIZES[0]);
        let exponent = (ends.1 as f64 / ends.0.max(1) as f64).ln() / growth.ln();
        println!("{name:<34}{columns}{exponent:>10.2}");
    }
}

/// Criterion with short runs: the fleets are large and the machine is shared.
pub fn criterion() -> Criterion {
    Criterion::default()
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_millis(1_000))
        .sample_size(20)
        .without_plots()
        .configure_from_args()
}
