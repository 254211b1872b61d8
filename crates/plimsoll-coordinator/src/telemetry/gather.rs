//! Numbers read off the core when a page is asked for.

use std::collections::BTreeMap;
use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use super::pools::{PoolCapacity, capacities, in_base_unit};
use crate::core::{Core, Counters};

/// Reads a core.
pub(super) struct Gatherer {
    core: Core,
}

/// Labels of one row.
type Labels = Vec<(&'static str, String)>;

impl Gatherer {
    pub(super) fn new(core: Core) -> Gatherer {
        Gatherer { core }
    }

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
        page.rows(
            "build_info",
            "Version of this program",
            vec![(vec![("version", env!("CARGO_PKG_VERSION").to_owned())], 1.0)],
        )
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
        let (states, queues, pools, ids) = {
            let view = self.core.local();
            let states: Vec<_> = view.counts().iter().map(|(state, count)| (state.name(), *count)).collect();
            let queues: Vec<_> =
                view.pools().map(|pool| (pool.name.clone(), view.queue_len(&pool.name))).collect();
            let ids: Vec<_> =
                if self.core.is_leader() { view.nodes().map(|node| node.id).collect() } else { Vec::new() };
            (states, queues, capacities(&view), ids)
        };
        let rows = states
            .into_iter()
            .map(|(state, count)| (vec![("state", state.to_owned())], to_f64(count)))
            .collect();
        page.rows("reservations", "Reservations in the ledger, by state", rows)?;
        let rows =
            queues.into_iter().map(|(pool, length)| (vec![("pool", pool)], to_f64(length as u64))).collect();
        page.rows("queue_length", "Requests that wait, by pool", rows)?;
        page.rows(
            "pool_capacity",
            "What pools have: granted, free and lost sum to it (cpu in cores, gpu in devices, memory in bytes)",
            capacity_rows(&pools),
        )?;
        page.rows("nodes", "Nodes, by pool and state", node_rows(&pools))?;
        let oldest = ids.into_iter().filter_map(|id| self.core.agents().silent_ms(id)).max();
        page.rows(
            "node_heartbeat_age_seconds",
            "Longest time since a node was heard of (leader only)",
            oldest.map(|age_ms| (Labels::new(), to_f64(age_ms) / 1_000.0)).into_iter().collect(),
        )
    }
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
fn to_f64(value: u64) -> f64 {
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
