//! One schedule from beginning to end: build, load, faults, heal, converge, collect, judge.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use plimsoll_client::v1;
use rand::Rng;
use tokio::task::JoinHandle;

use super::check::{self, Finding};
use super::collect::{self, Auditor};
use super::nemesis::{Failed, Nemesis};
use super::report::{Fault, Report};
use super::setup::Setup;
use super::stage::{Plan, Stage};
use super::workload::{Load, Workload};

/// After the last fault is mended, everything must be well within this.
const HEALED_WITHIN: Duration = Duration::from_secs(10);
/// Clients work undisturbed before the first fault.
const WARM_UP: Duration = Duration::from_millis(1_500);
/// And between faults, in milliseconds.
const CALM_MS: (u64, u64) = (800, 2_000);
/// The list is read by one call, the replicas' logs by some more.
const COLLECT_WITHIN: Duration = Duration::from_secs(30);

/// What to do.
pub struct Schedule {
    /// Seed of everything drawn.
    pub seed: u64,
    /// What kind of cluster.
    pub setup: Setup,
    /// Which faults there are.
    pub nemeses: Vec<Box<dyn Nemesis>>,
    /// In which order, by name; where this is empty, drawn until the time is over.
    pub order: Vec<&'static str>,
    /// How long faults go on, where they are drawn.
    pub length: Duration,
    /// How many clients.
    pub clients: u32,
    /// Pause between the calls of each, in milliseconds.
    pub pause_ms: u64,
    /// Say each fault when it is over.
    pub is_loud: bool,
    /// Operations below which the run proves too little.
    pub least_operations: usize,
}

/// Runs it.
///
/// # Errors
/// Where the harness could not do its part: then nothing is known of the product.
pub async fn run(schedule: Schedule) -> Result<Report, String> {
    let mut report =
        Report { seed: schedule.seed, least_operations: schedule.least_operations, ..Report::default() };
    let setup = schedule.setup.clone().possible();
    // What is not possible as asked is skipped, although it might be in the cluster that is built instead.
    let why = |one: &dyn Nemesis| one.forbidden(&schedule.setup).or_else(|| one.forbidden(&setup));
    let (usable, forbidden): (Vec<_>, Vec<_>) =
        schedule.nemeses.iter().map(|one| (one, why(one.as_ref()))).partition(|(_, why)| why.is_none());
    report.skipped = forbidden.iter().filter_map(|(one, why)| Some((one.name(), why.clone()?))).collect();
    let nemeses: Vec<&dyn Nemesis> = usable.into_iter().map(|(one, _)| one.as_ref()).collect();
    if nemeses.is_empty() {
        return Err(format!("no fault is possible here: {:?}", report.skipped));
    }
    let uses = |name: &str| nemeses.iter().any(|one| one.name() == name);
    let plan = Plan {
        setup,
        agents: 5,
        seed: schedule.seed,
        fake_clocks: uses("clock-jump") || uses("clock-drift"),
        small_disks: uses("full-disk") || uses("full-disk-leader"),
    };
    let began = Instant::now();
    let mut stage = Stage::build(plan).await?;
    report.build_ms = millis(began);
    let auditor = Auditor::new(stage.access().clone());
    let mut followed = BTreeMap::new();
    follow(&stage, &auditor, &mut followed);
    let load = Load { clients: schedule.clients, pause_ms: schedule.pause_ms, seed: schedule.seed };
    let workload = Workload::start(&stage.cluster.addresses(), &stage.options(), load, &stage.recorder);
    tokio::time::sleep(WARM_UP).await;
    report.planned = schedule.order.clone();
    faults(&schedule, &nemeses, &mut stage, &mut report, |stage| follow(stage, &auditor, &mut followed))
        .await?;
    stage.heal();
    let healed = Instant::now();
    report.findings.extend(serves(&stage, healed).await);
    report.healed_ms = millis(healed);
    workload.stop().await?;
    report.findings.extend(converges(&stage).await);
    report.converged_ms = millis(healed);
    for (_, follower) in followed {
        follower.abort();
    }
    let mut evidence = auditor.evidence(&stage.addresses(), &stage.client(), COLLECT_WITHIN).await?;
    evidence.history = stage.recorder.take();
    report.wall_ms = millis(began);
    let judging = Instant::now();
    report.count(&evidence);
    report.findings.extend(check::judge(&evidence));
    report.judged_ms = millis(judging);
    if !report.findings.is_empty() {
        report.kept = keep(&stage, &report);
    }
    Ok(report)
}

/// Strikes in the order given, or as drawn until the time is over.
async fn faults(
    schedule: &Schedule,
    nemeses: &[&dyn Nemesis],
    stage: &mut Stage,
    report: &mut Report,
    mut each: impl FnMut(&Stage),
) -> Result<(), String> {
    let until = Instant::now() + schedule.length;
    let mut order = schedule.order.iter();
    let mut untried: BTreeSet<&str> = nemeses.iter().map(|one| one.name()).collect();
    loop {
        let nemesis = if schedule.order.is_empty() {
            if Instant::now() >= until {
                return Ok(());
            }
            // Every kind once before any kind twice.
            let fresh: Vec<&&dyn Nemesis> =
                nemeses.iter().filter(|one| untried.contains(one.name())).collect();
            if fresh.is_empty() {
                *nemeses[stage.random.random_range(0..nemeses.len())..].first().expect("not empty")
            } else {
                *fresh[stage.random.random_range(0..fresh.len())]
            }
        } else {
            let Some(name) = order.next() else { return Ok(()) };
            let Some(one) = nemeses.iter().find(|one| one.name() == *name) else { continue };
            *one
        };
        untried.remove(nemesis.name());
        let began_us = stage.recorder.now_us();
        let struck = nemesis.strike(stage).await;
        let began_us = stage.struck_us().unwrap_or(began_us);
        let ended_us = stage.recorder.now_us();
        each(stage);
        let fault = |target| Fault { nemesis: nemesis.name(), target, began_us, ended_us };
        match struck {
            Ok(struck) => {
                if schedule.is_loud {
                    eprintln!("{:>8} ms  {} {}", ended_us / 1_000, nemesis.name(), struck.target);
                }
                report.faults.push(fault(struck.target));
            }
            Err(Failed::Harness(why)) => return Err(format!("{}: {why}", nemesis.name())),
            Err(Failed::Product(why)) => {
                if schedule.is_loud {
                    eprintln!("{:>8} ms  {} FOUND {why}", ended_us / 1_000, nemesis.name());
                }
                report.faults.push(fault("see findings".to_owned()));
                report
                    .findings
                    .push(Finding { judge: "fault", detail: format!("{}: {why}", nemesis.name()) });
            }
        }
        let calm = stage.between_ms(CALM_MS.0, CALM_MS.1);
        tokio::time::sleep(calm).await;
    }
}

fn follow(stage: &Stage, auditor: &Auditor, followed: &mut BTreeMap<u64, JoinHandle<()>>) {
    for (id, address) in stage.addresses() {
        followed.entry(id).or_insert_with(|| auditor.follow(id, address));
    }
}

/// Through every member a change is made in time.
async fn serves(stage: &Stage, healed: Instant) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (id, address) in stage.addresses() {
        let left = HEALED_WITHIN.saturating_sub(healed.elapsed()).max(Duration::from_millis(1));
        let client = stage.client_of(vec![address]).with_timeout(left);
        let spec = v1::ReservationSpec {
            name: "healed".to_owned(),
            requirements: Some(v1::Requirements {
                amounts: Some(v1::Quantities { cpu_millis: 1, ..Default::default() }),
                ..Default::default()
            }),
            ttl_ms: 600_000,
            auto_confirm: true,
            ..Default::default()
        };
        let request = v1::CreateReservationRequest { spec: Some(spec), ..Default::default() };
        if let Err(error) = client.create_reservation(request).await {
            let detail = format!("c{id} does not serve within {HEALED_WITHIN:?} of the last fault: {error}");
            findings.push(Finding { judge: "liveness (I22)", detail });
        }
    }
    findings
}

/// All replicas come to one revision.
async fn converges(stage: &Stage) -> Vec<Finding> {
    let began = Instant::now();
    let mut said = Vec::new();
    while began.elapsed() < HEALED_WITHIN {
        said.clear();
        for (id, address) in stage.addresses() {
            said.push((
                id,
                collect::digest(stage.access(), &address).await.map(|digest| digest.revision).unwrap_or(0),
            ));
        }
        if said.iter().all(|(_, revision)| *revision > 0 && *revision == said[0].1) {
            return Vec::new();
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    vec![Finding {
        judge: "liveness (I22)",
        detail: format!("replicas do not come to one revision: {said:?}"),
    }]
}

/// Keeps what the processes printed, for whoever looks into it.
fn keep(stage: &Stage, report: &Report) -> Option<std::path::PathBuf> {
    let folder = std::env::temp_dir().join(format!("plimsoll-chaos-{}-{}", report.seed, std::process::id()));
    std::fs::create_dir_all(&folder).ok()?;
    for member in &stage.cluster.members {
        std::fs::write(folder.join(format!("c{}.log", member.id)), member.log()).ok()?;
    }
    std::fs::write(folder.join("report.txt"), report.to_string()).ok()?;
    Some(folder)
}

fn millis(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}
