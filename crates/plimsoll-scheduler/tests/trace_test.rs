//! Packing quality on a published trace: 8,152 tasks placed in file order on 1,213 GPU nodes, none leaving.
//! Skipped where the trace is not at hand (`PLIMSOLL_TRACES`, else `../shared/traces` beside the checkout).

mod fixture;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command as Process;

use fixture::{STRATEGIES, apply, put_pool};
use plimsoll_ledger::{
    Command, Device, GpuAsk, GpuShare, Ledger, Pool, Registration, Request, Strategy, Verdict, Wait,
};
use plimsoll_scheduler::Planner;
use plimsoll_types::Resources;

const MIB: u64 = 1 << 20;
/// Requests planned together.
const BATCH: usize = 64;

fn traces() -> Option<PathBuf> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/traces");
    let folder = std::env::var_os("PLIMSOLL_TRACES").map_or_else(|| PathBuf::from(beside), PathBuf::from);
    folder.join("openb_nodes.csv.gz").exists().then_some(folder)
}

/// Rows of a packed table by column name; the files quote nothing.
fn table(folder: &std::path::Path, name: &str) -> Vec<BTreeMap<String, String>> {
    let output = Process::new("gzip").arg("-dc").arg(folder.join(name)).output().expect("gzip runs");
    assert!(output.status.success(), "{name} cannot be unpacked");
    let text = String::from_utf8(output.stdout).expect("the table is text");
    let mut lines = text.lines();
    let columns: Vec<&str> = lines.next().expect("a header").split(',').collect();
    let row = |line: &str| {
        columns.iter().map(|c| (*c).to_owned()).zip(line.split(',').map(str::to_owned)).collect()
    };
    lines.map(row).collect()
}

fn number(row: &BTreeMap<String, String>, column: &str) -> u64 {
    row[column].parse().unwrap_or_else(|_| panic!("{column} of {row:?} is no number"))
}

fn registration(row: &BTreeMap<String, String>) -> Registration {
    let device = |index| Device {
        uuid: format!("{}-{index}", row["sn"]),
        model: row["model"].to_lowercase(),
        memory_bytes: 16 << 30,
        failed: false,
        mig: None,
    };
    Registration {
        name: row["sn"].clone(),
        incarnation: 1,
        capacity: Resources::new(number(row, "cpu_milli"), number(row, "memory_mib") * MIB),
        devices: (0..number(row, "gpu")).map(device).collect(),
        ..Registration::default()
    }
}

fn task(row: &BTreeMap<String, String>) -> Request {
    let gpu = match (number(row, "num_gpu"), number(row, "gpu_milli")) {
        (0, _) => None,
        (1, milli) if milli < 1_000 => {
            Some(GpuAsk { share: GpuShare::Milli(milli as u16), ..GpuAsk::whole(1) })
        }
        (count, _) => Some(GpuAsk::whole(count as u32)),
    };
    let models =
        row["gpu_spec"].split('|').filter(|model| !model.is_empty()).map(str::to_lowercase).collect();
    let mut request = fixture::plain(number(row, "cpu_milli"));
    request.requirements.amounts = Resources::new(number(row, "cpu_milli"), number(row, "memory_mib") * MIB);
    request.requirements.gpu = gpu.map(|gpu| GpuAsk { models, ..gpu });
    request.wait = Wait::Refuse;
    request
}

/// Thousandths of a GPU granted, and requests granted.
fn pack(nodes: &[Registration], tasks: &[Request], strategy: Strategy) -> (u64, usize) {
    let mut ledger = Ledger::new();
    apply(&mut ledger, Command::Upgrade { to: plimsoll_ledger::LATEST_VERSION });
    put_pool(&mut ledger, Pool { name: "default".into(), strategy, ..Pool::default() });
    for node in nodes {
        apply(&mut ledger, Command::RegisterNode(node.clone()));
    }
    let mut planner = Planner::new(&ledger, 1);
    let mut granted = 0;
    for batch in tasks.chunks(BATCH) {
        let requests: Vec<&Request> = batch.iter().collect();
        let planned = planner.plan_batch(&ledger, &requests);
        for (request, (verdict, ticket)) in batch.iter().zip(planned) {
            granted += usize::from(matches!(verdict, Verdict::Place(_)));
            apply(&mut ledger, Command::Submit { request: request.clone(), verdict });
            if let Some(ticket) = ticket {
                planner.settle(&ledger, ticket);
            }
        }
    }
    assert_eq!(planner.check(&ledger), Vec::<String>::new());
    assert!(ledger.check_invariants().is_empty());
    let usage = ledger.nodes().filter_map(|node| ledger.usage(node.id));
    let taken = usage.flat_map(|usage| &usage.devices).map(|device| u64::from(device.milli)).sum();
    (taken, granted)
}

#[test]
fn strategies_on_the_openb_trace() {
    let Some(folder) = traces() else {
        eprintln!("skipped: no traces (set PLIMSOLL_TRACES to the folder that has openb_nodes.csv.gz)");
        return;
    };
    let nodes: Vec<Registration> = table(&folder, "openb_nodes.csv.gz").iter().map(registration).collect();
    let tasks: Vec<Request> = table(&folder, "openb_pods_default.csv.gz").iter().map(task).collect();
    let all: u64 = nodes.iter().map(|node| node.devices.len() as u64 * 1_000).sum();
    let mut shares = BTreeMap::new();
    println!("{:<22} {:>12} {:>10}", "strategy", "GPU share", "granted");
    for strategy in STRATEGIES {
        let (taken, granted) = pack(&nodes, &tasks, strategy);
        let share = taken * 10_000 / all;
        println!("{:<22} {:>10}.{:02} % {granted:>8}", format!("{strategy:?}"), share / 100, share % 100);
        shares.insert(strategy, share);
    }
    // In hundredths of a percent. Packing beats spreading on shared GPUs. Batches by size trade a little of the share for
    // the large ones going first.
    assert!(shares[&Strategy::BestFit] >= shares[&Strategy::Random]);
    assert!(shares[&Strategy::BestFit] >= shares[&Strategy::WorstFit]);
    assert!(shares[&Strategy::Fragmentation] >= shares[&Strategy::BestFit] + 250);
    assert!(shares[&Strategy::Optimized] >= shares[&Strategy::BestFit] + 250);
    assert!(shares[&Strategy::FirstFitDecreasing] + 200 >= shares[&Strategy::FirstFit]);
    assert!(
        shares.values().all(|share| *share > 5_000),
        "a strategy left half of the fleet idle: {shares:?}"
    );
}
