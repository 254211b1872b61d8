//! Numbers read off the core when a page is asked for.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use plimsoll_ledger::{Contention, Ledger, OverflowTally};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::Memory;
use super::contention::Episodes;
use super::invariants::Invariants;
use super::pools::{PoolCapacity, Split, capacities, in_base_unit};
use super::tallies::{Row, Tallies};
use crate::agreement::Agreement;
use crate::core::{ByPool, Core, Counters};

/// Reads a core, and what was counted along with its log.
pub(super) struct Gatherer {
    pub(super) core: Core,
    pub(super) memory: Arc<Memory>,
    pub(super) tallies: Tallies,
    pub(super) episodes: Episodes,
    pub(super) invariants: Invariants,
    pub(super) agreement: Agreement,
}

/// Labels of one row.
type Labels = Vec<(&'static str, String)>;

/// Commit that this program was built from, where the build said so.
const COMMIT: Option<&str> = option_env!("PLIMSOLL_COMMIT");

impl Gatherer {
    fn process(&self, page: &mut Page<'_>) -> fmt::Result {
        let counters = self.core.counters();
        for (name, help, counter) in [
            ("commands_applied", "Commands applied here", &counters.applied),
            ("commands_refused", "Commands applied here that were refused", &counters.refused),
            (
                "commands_replayed",
                "Commands applied here that repeated an earlier request",
                &counters.replayed,
            ),
            ("reservations_granted", "Grants applied here", &counters.granted),
            ("entries_proposed", "Raft entries proposed by this leader", &counters.entries_proposed),
            ("commands_proposed", "Commands proposed by this leader", &counters.commands_proposed),
            ("intake_overloaded", "Commands turned away because the intake was full", &counters.overloaded),
            (
                "commands_replanned",
                "Commands planned again after apply refused their place",
                &counters.replanned,
            ),
            ("raft_leader_changes", "Terms in which this coordinator began to lead", &counters.leaderships),
        ] {
            page.counter(name, help, Counters::get(counter))?;
        }
        for (name, help, counter) in [
            ("planning_seconds", "Time spent planning", &counters.planning_ns),
            ("applying_seconds", "Time spent applying", &counters.applying_ns),
        ] {
            page.seconds_counter(name, help, Counters::get(counter))?;
        }
        page.gauge("intake_waiting", "Commands that wait in the intake", Counters::get(&counters.waiting))?;
        page.gauge("raft_entries_in_flight", "Raft entries in flight", Counters::get(&counters.in_flight))?;
        page.gauge("watchers", "Open watches", Counters::get(&counters.watchers))?;
        page.counter(
            "requests_shed",
            "New requests turned away because memory or disk was short",
            self.memory.shed(),
        )?;
        page.gauge("memory_used_bytes", "Memory of this process that no file backs", self.memory.used())?;
        page.gauge("memory_budget_bytes", "Memory that it may use, 0 for no bound", self.memory.budget())?;
        let disk_free = self.core.disk().map_or(0, plimsoll_store::rocks::Headroom::free_bytes);
        page.gauge(
            "disk_free_bytes",
            "Free bytes of the disk with the data, without those set aside",
            disk_free,
        )?;
        let scrubbed = self.core.scrubbed();
        page.counter("scrub_passes", "Times that all data on the disk were read again", scrubbed.passes())?;
        page.counter("scrub_bytes", "Bytes of the data on the disk that were read again", scrubbed.bytes())?;
        page.counter(
            "scrub_findings",
            "Damaged things found on the disk while running",
            scrubbed.findings(),
        )?;
        let deferred = self.core.group().snapshots_deferred();
        page.counter(
            "snapshots_deferred",
            "Snapshots put off because they did not fit on the disk",
            deferred,
        )?;
        let violations = self.invariants.violations() + Counters::get(&counters.violations);
        page.counter("invariant_violations", "Invariants of the ledger found broken here", violations)?;
        let help = "Revision of the ledger whose invariants were checked last here, 0 for none";
        page.gauge("invariant_checked_revision", help, self.invariants.checked())?;
        let help = "Latest revision at which another coordinator was found to have the same, 0 for none";
        page.gauge("replicas_agreed_revision", help, self.agreement.agreed())?;
        let help = "Coordinators that had something else at the same revision when they were last asked";
        page.gauge("replicas_differing", help, self.agreement.differing())?;
        let (version, commit) =
            (env!("CARGO_PKG_VERSION").to_owned(), COMMIT.unwrap_or("unknown").to_owned());
        let labels = vec![("version", version), ("commit", commit)];
        page.rows("build_info", "Version of this program", vec![(labels, 1.0)])
    }

    fn group(&self, page: &mut Page<'_>) -> fmt::Result {
        let status = self.core.status();
        let group = &status.group;
        page.gauge("raft_term", "Term of the group", group.term)?;
        page.gauge("raft_is_leader", "1 on the leader", u64::from(self.core.is_leader()))?;
        page.gauge("raft_committed_index", "Latest raft entry known to be committed", group.committed)?;
        page.gauge("raft_applied_index", "Latest raft entry applied here", group.applied)?;
        page.gauge("raft_last_log_index", "Latest raft entry in the log here", group.last_log)?;
        page.gauge("raft_snapshot_index", "Raft entry that the latest snapshot covers", group.snapshot)?;
        let lag =
            group.lag.iter().map(|(id, lag)| (vec![("member", id.to_string())], to_f64(*lag))).collect();
        page.rows("raft_follower_lag_entries", "Raft entries that a follower lacks (leader only)", lag)?;
        page.gauge("revision", "Revision of the latest command applied here", status.revision.0)?;
        page.gauge("first_revision", "Oldest revision kept in history here", status.first_revision.0)?;
        page.gauge("agents", "Agents with a session here", status.agents)
    }

    fn ledger(&self, page: &mut Page<'_>) -> fmt::Result {
        // The lock is held while summing only, not while writing.
        let (queues, broken, (measure, thresholds), lent, pools, ids, aside) = {
            let view = self.core.local();
            let broken: Vec<_> = view
                .pools()
                .map(|pool| {
                    (vec![("pool", pool.name.clone())], to_f64(view.repairing(&pool.name).count() as u64))
                })
                .collect();
            let queues: Vec<_> =
                view.pools().map(|pool| (pool.name.clone(), view.pending_len(&pool.name))).collect();
            let ids: Vec<_> =
                if self.core.is_leader() { view.nodes().map(|node| node.id).collect() } else { Vec::new() };
            let capacities = capacities(&view);
            let thresholds: BTreeMap<String, u32> =
                view.pools().map(|pool| (pool.name.clone(), pool.elastic.fragmentation_permille)).collect();
            let measure = self.core.measured().begin(&view);
            let tally = |queue: &str| (queue.to_owned(), view.overflow_of(queue));
            let aside: Vec<_> = view.queues_aside().map(tally).collect();
            (queues, broken, (measure, thresholds), lent(&view), capacities, ids, aside)
        };
        let names = || queues.iter().map(|(name, _)| name.as_str());
        let live = self.tallies.reservations(names());
        page.rows(
            "reservations",
            "Reservations that have not ended, by state, pool and class",
            gauges(live),
        )?;
        let help = "Reservations that ended since this coordinator started, by state, pool and class";
        page.counters("reservations_ended", help, self.tallies.ended(names()))?;
        let help = "Requests that wait, by pool and by what stands in their way first";
        page.rows("unplaced", help, gauges(self.tallies.unplaced(names())))?;
        let rows =
            queues.into_iter().map(|(pool, length)| (vec![("pool", pool)], to_f64(length as u64))).collect();
        page.rows("queue_length", "Requests that wait, by pool", rows)?;
        let by_queue = |what: fn(&OverflowTally) -> [(&'static str, u64); 2]| {
            let rows = aside.iter().flat_map(|(queue, tally)| {
                what(tally).map(|(how, number)| {
                    (vec![("queue", queue.clone()), ("how", how.to_owned())], to_f64(number))
                })
            });
            rows.collect()
        };
        let counts = by_queue(|tally| [("spilled", tally.spilled), ("compressed", tally.compressed)]);
        page.rows("queue_overflow", "Requests that are set aside, by queue and how they are kept", counts)?;
        let bytes =
            by_queue(|tally| [("spilled", tally.spilled_bytes), ("compressed", tally.compressed_bytes)]);
        let help = "Bytes of what those asked who are set aside, by queue and how they are kept";
        page.rows("queue_overflow_bytes", help, bytes)?;
        let help =
            "Gangs that lost members with their nodes and that nothing has taken the place of, by pool";
        page.rows("gangs_repairing", help, broken)?;
        fragmentation(page, &self.core.measured().finish(measure), &thresholds)?;
        page.rows("nodes_lent", "Nodes that a pool has lent to another, by the pool that lends them", lent)?;
        page.rows(
            "pool_capacity",
            "What pools have: granted (backed), free and lost sum to it (cpu in cores, gpu in devices, memory in bytes)",
            capacity_rows(&pools),
        )?;
        let help =
            "What best-effort grants have of pools: idle, or beyond what there is (units of pool_capacity)";
        page.rows("pool_best_effort", help, best_effort_rows(&pools))?;
        page.rows("nodes", "Nodes, by pool and state", node_rows(&pools))?;
        self.scaling(page)?;
        self.contention(page)?;
        self.measured(page, &ids)?;
        let oldest = ids.into_iter().filter_map(|id| self.core.agents().silent_ms(id)).max();
        page.rows(
            "node_heartbeat_age_seconds",
            "Longest time since a node was heard of (leader only)",
            oldest.map(|age_ms| (Labels::new(), to_f64(age_ms) / 1_000.0)).into_iter().collect(),
        )
    }
}

impl Gatherer {
    /// What those who wait lack, and how often that was so.
    fn contention(&self, page: &mut Page<'_>) -> fmt::Result {
        let open: Vec<_> = {
            let view = self.core.local();
            view.contentions().filter(|one| one.is_open()).map(Arc::clone).collect()
        };
        let labels = |one: &Contention| vec![("pool", one.pool.clone()), ("resource", one.resource.clone())];
        let severity = |one: &Arc<Contention>| {
            let mut labels = labels(one);
            labels.push(("severity", one.severity.name().to_owned()));
            (labels, 1.0)
        };
        let help = "1 for each open contention, by pool, resource and severity";
        page.rows("contention", help, open.iter().map(severity).collect())?;
        let missing = |one: &Arc<Contention>| {
            (labels(one), in_base_unit(&one.resource, one.demand.saturating_sub(one.open)))
        };
        let help =
            "What those who wait ask beyond what is open, where that is contended (units of pool_capacity)";
        page.rows("contention_missing", help, open.iter().map(missing).collect())?;
        let waiting = |one: &Arc<Contention>| (labels(one), to_f64(one.waiting));
        page.rows(
            "contention_waiting",
            "Requests that wait for what is contended",
            open.iter().map(waiting).collect(),
        )?;
        let help =
            "Times that a contention reached a severity since this coordinator started, by pool and resource";
        let reached = self.episodes.reached();
        if reached.is_empty() {
            return Ok(());
        }
        page.counters("contention_episodes", help, reached)?;
        let help =
            "What was done about contentions since this coordinator started, by pool, resource and kind";
        page.counters("contention_resolutions", help, self.episodes.done())
    }

    /// What nodes measured last, as far as this leader has heard of it.
    fn measured(&self, page: &mut Page<'_>, ids: &[plimsoll_types::NodeId]) -> fmt::Result {
        for (name, help, rows) in super::measured::rows(&self.core, ids) {
            page.rows(name, help, rows)?;
        }
        Ok(())
    }

    /// Targets of scaling: what they want and have.
    fn scaling(&self, page: &mut Page<'_>) -> fmt::Result {
        let seen: Vec<_> = {
            let view = self.core.local();
            let seen = view.scaling_policies().map(|policy| {
                let state =
                    view.scaling(&policy.name).map_or((0, 0), |state| (state.desired, state.failures));
                (policy.name.clone(), policy.target.path(), view.fleet(policy), state)
            });
            seen.collect()
        };
        let labels =
            |policy: &str, target: &str| vec![("policy", policy.to_owned()), ("target", target.to_owned())];
        let rows = |of: &dyn Fn(&plimsoll_ledger::Fleet, (u64, u32)) -> u64| {
            let row =
                |(policy, target, fleet, state): &(String, String, plimsoll_ledger::Fleet, (u64, u32))| {
                    (labels(policy, target), to_f64(of(fleet, *state)))
                };
            seen.iter().map(row).collect::<Vec<_>>()
        };
        page.rows("scaling_desired", "Machines or replicas that a target wants", rows(&|_, state| state.0))?;
        page.rows(
            "scaling_present",
            "Those that are there and not leaving",
            rows(&|fleet, _| fleet.present),
        )?;
        page.rows("scaling_ready", "Of these, those that take work", rows(&|fleet, _| fleet.ready))?;
        page.rows("scaling_starting", "Those on their way", rows(&|fleet, _| fleet.starting))?;
        page.rows("scaling_leaving", "Those that leave", rows(&|fleet, _| fleet.leaving))?;
        let help = "Machines of a target that failed one after another";
        page.rows("scaling_failures", help, rows(&|_, state| state.1.into()))
    }
}

/// What is free of pools' devices, and what of that is stranded.
fn fragmentation(page: &mut Page<'_>, all: &ByPool, thresholds: &BTreeMap<String, u32>) -> fmt::Result {
    let (mut free, mut stranded, mut over) = (Vec::new(), Vec::new(), Vec::new());
    for (pool, measured) in all {
        let threshold = thresholds.get(pool).copied().unwrap_or_default();
        for one in measured {
            let labels = vec![
                ("pool", pool.clone()),
                ("model", one.class.model.clone()),
                ("memory", one.class.memory_bytes.to_string()),
            ];
            over.push((labels.clone(), f64::from(u8::from(one.is_over(threshold)))));
            free.push((labels.clone(), in_base_unit("gpu", one.free_milli)));
            stranded.push((labels, in_base_unit("gpu", one.stranded_milli)));
        }
    }
    page.rows(
        "fragmentation_free_gpus",
        "GPUs that nobody has, by pool, model and memory; without those that are cut into slices",
        free,
    )?;
    page.rows(
        "fragmentation_stranded_gpus",
        "Of these, what the requests that are expected cannot use",
        stranded,
    )?;
    let help = "1 where at least the pool's fragmentation threshold of what is free is stranded, else 0";
    page.rows("fragmentation_over_threshold", help, over)
}

/// Nodes that pools have lent, by the pool that they are of: a row for each pool.
fn lent(ledger: &Ledger) -> Vec<(Labels, f64)> {
    let mut lent: BTreeMap<&str, u64> = ledger.pools().map(|pool| (pool.name.as_str(), 0)).collect();
    for home in ledger.nodes().filter_map(|node| node.lent_by()) {
        *lent.entry(home).or_default() += 1;
    }
    lent.into_iter().map(|(pool, count)| (vec![("pool", pool.to_owned())], to_f64(count))).collect()
}

fn gauges(rows: Vec<Row>) -> Vec<(Labels, f64)> {
    rows.into_iter().map(|row| (row.labels, to_f64(row.count))).collect()
}

fn capacity_rows(pools: &BTreeMap<String, PoolCapacity>) -> Vec<(Labels, f64)> {
    let mut rows = Vec::new();
    for (pool, capacity) in pools {
        for (resource, split) in &capacity.resources {
            for (state, amount) in [("granted", split.granted), ("free", split.free), ("lost", split.lost)] {
                let labels =
                    vec![("pool", pool.clone()), ("resource", resource.clone()), ("state", state.to_owned())];
                rows.push((labels, in_base_unit(resource, amount)));
            }
        }
    }
    rows
}

fn best_effort_rows(pools: &BTreeMap<String, PoolCapacity>) -> Vec<(Labels, f64)> {
    let of_pool = |(pool, capacity): (&String, &PoolCapacity)| {
        let row = |(resource, split): (&String, &Split)| {
            let labels = vec![("pool", pool.clone()), ("resource", resource.clone())];
            (labels, in_base_unit(resource, split.best_effort))
        };
        capacity.resources.iter().map(row).collect::<Vec<_>>()
    };
    pools.iter().flat_map(of_pool).collect()
}

fn node_rows(pools: &BTreeMap<String, PoolCapacity>) -> Vec<(Labels, f64)> {
    let row = |pool: &str, state: &str, count| {
        (vec![("pool", pool.to_owned()), ("state", state.to_owned())], to_f64(count))
    };
    pools
        .iter()
        .flat_map(|(pool, capacity)| {
            capacity.nodes.iter().map(move |(state, count)| row(pool, state, *count))
        })
        .collect()
}

#[expect(clippy::cast_precision_loss, reason = "metrics are floats; nothing decides by them")]
pub(super) fn to_f64(value: u64) -> f64 {
    value as f64
}

impl Collector for Gatherer {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut page = Page { encoder };
        self.process(&mut page)?;
        self.group(&mut page)?;
        self.ledger(&mut page)
    }
}

impl fmt::Debug for Gatherer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gatherer")
    }
}

/// The page being written.
struct Page<'a> {
    encoder: DescriptorEncoder<'a>,
}

impl Page<'_> {
    fn counter(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        let counter = ConstCounter::new(value);
        counter.encode(self.encoder.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    /// One counter with several rows.
    fn counters(&mut self, name: &str, help: &str, rows: Vec<Row>) -> fmt::Result {
        let kind = ConstCounter::new(0u64).metric_type();
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for row in rows {
            ConstCounter::new(row.count).encode(metric.encode_family(&row.labels)?)?;
        }
        Ok(())
    }

    fn seconds_counter(&mut self, name: &str, help: &str, nanoseconds: u64) -> fmt::Result {
        let counter = ConstCounter::new(std::time::Duration::from_nanos(nanoseconds).as_secs_f64());
        counter.encode(self.encoder.encode_descriptor(name, help, None, counter.metric_type())?)
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) -> fmt::Result {
        self.rows(name, help, vec![(Labels::new(), to_f64(value))])
    }

    /// One gauge with several rows; nothing at all where there are none.
    fn rows(&mut self, name: &str, help: &str, rows: Vec<(Labels, f64)>) -> fmt::Result {
        if rows.is_empty() {
            return Ok(());
        }
        let kind = ConstGauge::new(0.0).metric_type();
        let mut metric = self.encoder.encode_descriptor(name, help, None, kind)?;
        for (labels, value) in rows {
            let gauge = ConstGauge::new(value);
            if labels.is_empty() {
                metric.encode_gauge(&value)?;
            } else {
                gauge.encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
