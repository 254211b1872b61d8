//! Which nodes measure fuller than classes stay for, since when, and who has to leave next.
//!
//! What agents measured is the leader's alone and in no log; the ledger's law decides by what the leader says it saw. A threshold counts as crossed
//! from the first sample above it on, while every later one is above it too: silence and old samples end that. One at a time leaves a node, of
//! the lowest class the youngest, and the next one only for a sample that was taken after he was gone.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use plimsoll_ledger::{
    Command, Entry, EvictWhen, Evicted, Gauge, Ledger, NodeHealth, Overload, Reservation, State,
};
use plimsoll_proto::v1::NodeSample;
use plimsoll_scheduler::{Closed, next_to_leave};
use plimsoll_types::{NodeEpoch, NodeId, ReservationId};
use tokio::time::Instant;

use crate::core::agents::Latest;

/// What the kernel's pressure gauges are averaged over (`avg10` of `/proc/pressure`).
const PRESSURE_WINDOW: Duration = Duration::from_secs(10);

/// What one term of leadership saw.
#[derive(Debug, Default)]
pub(super) struct Overloads {
    /// Thresholds that are crossed, by node and class.
    crossed: BTreeMap<(NodeId, String), Crossing>,
    /// Nodes that somebody was made to leave: when the latest of them was seen to be gone, `None` before that.
    gone_at: BTreeMap<NodeId, Option<Instant>>,
    /// Nodes with an eviction on its way.
    in_flight: BTreeSet<NodeId>,
}

/// A threshold that is crossed.
#[derive(Clone, Copy, Debug)]
struct Crossing {
    when: EvictWhen,
    epoch: NodeEpoch,
    /// When the first sample above it was taken, and the newest.
    since: Instant,
    newest: Instant,
    /// From when on the newest sample measured.
    measured_from: Instant,
    measured_permille: u32,
}

impl Crossing {
    /// The crossing with a sample above the threshold, where `known` is what it was before.
    fn with(known: Option<Crossing>, when: EvictWhen, sampled: &Latest, measured_permille: u32) -> Crossing {
        let (epoch, newest) = (sampled.epoch, sampled.taken);
        let known = known.filter(|known| known.when == when && known.epoch == epoch);
        match known {
            Some(known) if known.newest >= newest => known,
            Some(Crossing { since, newest: before, .. }) => {
                let measured_from = measured_from(when.gauge, before, newest);
                Crossing { when, epoch, since, newest, measured_from, measured_permille }
            }
            None => Crossing { when, epoch, since: newest, newest, measured_from: newest, measured_permille },
        }
    }

    fn overload(&self, node: NodeId) -> Overload {
        let over = self.newest.duration_since(self.since);
        let over_ms = u64::try_from(over.as_millis()).unwrap_or(u64::MAX);
        let Crossing { when, epoch, measured_permille, .. } = *self;
        Overload { node, epoch, gauge: when.gauge, measured_permille, over_ms }
    }
}

/// From when on a sample measured: memory is as it is at that moment, time in use since the sample before.
fn measured_from(gauge: Gauge, before: Instant, taken: Instant) -> Instant {
    match gauge {
        Gauge::Memory => taken,
        Gauge::Cpu => before,
        Gauge::CpuPressure | Gauge::MemoryPressure | Gauge::IoPressure => {
            taken.checked_sub(PRESSURE_WINDOW).unwrap_or(before)
        }
    }
}

impl Overloads {
    /// Looks at the newest samples. True where a node is to be closed to a class that it was open to, or the other way round.
    pub(super) fn look(&mut self, ledger: &Ledger, latest: impl Fn(NodeId) -> Option<Latest>) -> bool {
        let thresholds: Vec<_> =
            ledger.classes().filter_map(|class| Some((&class.name, class.evict_when?))).collect();
        if thresholds.is_empty() && self.crossed.is_empty() {
            return false;
        }
        let mut now = BTreeMap::new();
        for node in ledger.nodes().filter(|node| node.health == NodeHealth::Available) {
            let says = |sampled: &Latest| !sampled.stale && sampled.epoch == node.epoch;
            let Some(sampled) = latest(node.id).filter(says) else { continue };
            for (class, when) in &thresholds {
                let measured = measured(&sampled.sample, when.gauge);
                if let Some(permille) = measured.filter(|it| *it > when.above_permille) {
                    let key = (node.id, (*class).clone());
                    let known = self.crossed.get(&key).copied();
                    now.insert(key, Crossing::with(known, *when, &sampled, permille));
                }
            }
        }
        let before = std::mem::replace(&mut self.crossed, now);
        !self.crossed.keys().eq(before.keys())
    }

    /// Classes to which nodes are closed: best effort of theirs would have to leave again.
    pub(super) fn closed(&self) -> Closed {
        let mut closed = Closed::new();
        for ((node, class), crossing) in &self.crossed {
            let (overload, above_permille) = (crossing.overload(*node), crossing.when.above_permille);
            closed.entry(*node).or_default().insert(class.clone(), Evicted { overload, above_permille });
        }
        closed
    }

    /// Evictions to propose now, one of a node and `most` of all at most. Each node is left alone until [`Overloads::settled`].
    pub(super) fn due(&mut self, ledger: &Ledger, most: usize) -> Vec<(NodeId, Entry)> {
        let now = Instant::now();
        self.gone_at.retain(|node, _| ledger.node(*node).is_some());
        let nodes: BTreeSet<NodeId> = self.crossed.keys().map(|(node, _)| *node).collect();
        let mut due = Vec::new();
        for node in nodes {
            if self.in_flight.contains(&node) {
                continue;
            }
            // Also who was made to leave by an earlier leader.
            if ledger.holders(node).any(|holder| leaves(holder, node)) {
                self.gone_at.insert(node, None);
                continue;
            }
            let gone_at = self.gone_at.get_mut(&node).map(|gone_at| *gone_at.get_or_insert(now));
            let Some((reservation, overload)) = self.next_of(ledger, node, gone_at) else { continue };
            if due.len() == most {
                break;
            }
            self.in_flight.insert(node);
            due.push((node, Entry::system(Command::Evict { reservation, overload })));
        }
        due
    }

    /// What came of an eviction is known.
    pub(super) fn settled(&mut self, node: NodeId, refused: bool) {
        self.in_flight.remove(&node);
        if !refused {
            self.gone_at.insert(node, None);
        }
    }

    /// Of the lowest class the youngest of those who may be made to leave for what was measured since the last one was gone.
    fn next_of(
        &self,
        ledger: &Ledger,
        node: NodeId,
        gone_at: Option<Instant>,
    ) -> Option<(ReservationId, Overload)> {
        let of_node = self.crossed.range((node, String::new())..).take_while(|((of, _), _)| *of == node);
        let fresh = of_node.filter(|(_, crossing)| gone_at.is_none_or(|gone| crossing.measured_from > gone));
        let overloads: BTreeMap<&str, Overload> =
            fresh.map(|((_, class), crossing)| (class.as_str(), crossing.overload(node))).collect();
        next_to_leave(ledger, node, &overloads)
    }
}

/// True for a grant that was made to leave this node and is still there.
fn leaves(holder: &Reservation, node: NodeId) -> bool {
    let evicted = holder.preempted().and_then(|preempted| preempted.evicted);
    holder.resume_state == State::Preempting && evicted.is_some_and(|one| one.overload.node == node)
}

/// A share of what the node has, in thousandths; `None` where the node cannot tell.
fn measured(sample: &NodeSample, gauge: Gauge) -> Option<u32> {
    match gauge {
        Gauge::Cpu => sample.cpu_permille,
        Gauge::Memory => {
            let (used, left) = (sample.memory_used_bytes?, sample.memory_available_bytes?);
            let permille = u128::from(used) * 1_000 / (u128::from(used) + u128::from(left)).max(1);
            u32::try_from(permille).ok()
        }
        Gauge::CpuPressure => sample.cpu_pressure_permille,
        Gauge::MemoryPressure => sample.memory_pressure_permille,
        Gauge::IoPressure => sample.io_pressure_permille,
    }
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{
        Class, LATEST_VERSION, MemberPlacement, Outcome, Placement, PolicyObject, Qos, Registration, Request,
        Requirements, Stamp, Verdict, Wait,
    };
    use plimsoll_types::{LedgerTime, Resources, Revision};

    use super::*;

    struct World {
        ledger: Ledger,
        seen: Overloads,
        ms: u64,
    }

    impl World {
        /// A node, and the classes `batch` and `low`, which leave it above 90 % and 80 % of what is measured after 10 s.
        fn new(gauge: Gauge) -> World {
            let (ledger, seen) = (Ledger::new(), Overloads::default());
            let mut world = World { ledger, seen, ms: 0 };
            world.apply(Command::Upgrade { to: LATEST_VERSION });
            let class = |name: &str, priority, above_permille| {
                let evict_when = Some(EvictWhen { gauge, above_permille, for_ms: 10_000 });
                PolicyObject::Class(Class { name: name.into(), priority, evict_when, ..Class::default() })
            };
            let put = vec![class("batch", 10, 900), class("low", 25, 800)];
            world.apply(Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
            let capacity = Resources::new(8_000, 1 << 34);
            let node = Registration { name: "n".into(), capacity, incarnation: 1, ..Registration::default() };
            world.apply(Command::RegisterNode(node));
            world
        }

        fn apply(&mut self, command: Command) -> Outcome {
            self.apply_entry(&Entry::system(command))
        }

        fn apply_entry(&mut self, entry: &Entry) -> Outcome {
            let revision = Revision(self.ledger.revision().0 + 1);
            let proposed_at = LedgerTime(1_000_000 + self.ms);
            self.ledger.apply(Stamp { revision, proposed_at }, entry).answer.outcome
        }

        fn grant(&mut self, class: &str, qos: Qos) -> ReservationId {
            self.ms += 1;
            let member = MemberPlacement { node: NodeId(0), devices: vec![], role: 0 };
            let request = Request {
                pool: "default".into(),
                class: class.into(),
                qos: Some(qos),
                auto_confirm: true,
                wait: Wait::Queue { deadline_ms: 0 },
                requirements: Requirements { amounts: Resources::new(500, 0), ..Requirements::default() },
                ..Request::default()
            };
            let verdict = Verdict::Place(Placement { members: vec![member] });
            match self.apply(Command::Submit { request, verdict }) {
                Outcome::Reservation(granted) => granted.id,
                other => panic!("it fits: {other:?}"),
            }
        }

        /// A sample, so many milliseconds after the one before; who has to leave then, which is done.
        async fn sample(&mut self, after_ms: u64, permille: Option<u32>) -> Vec<ReservationId> {
            self.ms += after_ms;
            tokio::time::advance(Duration::from_millis(after_ms)).await;
            let used = permille.map(u64::from);
            let sample = NodeSample {
                memory_used_bytes: used,
                memory_available_bytes: used.map(|used| 1_000 - used),
                cpu_permille: permille,
                io_pressure_permille: permille,
                ..NodeSample::default()
            };
            let epoch = self.ledger.node(NodeId(0)).expect("registered").epoch;
            let latest = Latest { taken: Instant::now(), epoch, sample, stale: false };
            self.seen.look(&self.ledger, |_| Some(latest.clone()));
            let mut leaving = Vec::new();
            for (node, entry) in self.seen.due(&self.ledger, 10) {
                let Command::Evict { reservation, .. } = entry.command else { panic!("only evictions") };
                let refused = matches!(self.apply_entry(&entry), Outcome::Refused(_));
                assert!(!refused, "the ledger knows no reason against {reservation}");
                self.seen.settled(node, refused);
                leaving.push(reservation);
            }
            leaving
        }

        fn release(&mut self, id: ReservationId) {
            let token = self.ledger.reservation(id).expect("there").token;
            self.apply(Command::Release { reservation: id, token });
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_youngest_of_the_lowest_class_leaves_once_every_sample_was_above_for_long_enough() {
        let mut world = World::new(Gauge::Memory);
        let [old, young] = [(); 2].map(|()| world.grant("batch", Qos::BestEffort));
        let low = world.grant("low", Qos::BestEffort);
        let backed = [Qos::Burstable, Qos::Guaranteed].map(|qos| world.grant("batch", qos));
        assert_eq!(world.sample(0, Some(950)).await, []);
        assert_eq!(world.seen.closed()[&NodeId(0)].len(), 2, "it takes no best effort of either class");
        assert_eq!(world.sample(9_000, Some(950)).await, []);
        assert_eq!(world.sample(1_000, Some(850)).await, [low], "only low leaves at 85 %");
        let closed = world.seen.closed();
        let told: Vec<_> =
            closed[&NodeId(0)].iter().map(|(class, why)| (class.as_str(), why.to_string())).collect();
        assert_eq!(told, [("low", "memory at 85%, above 80% for 10s".to_owned())]);
        world.release(low);
        // Batch begins to count anew.
        assert_eq!(world.sample(1_000, Some(950)).await, []);
        assert_eq!(world.sample(9_999, Some(950)).await, []);
        assert_eq!(world.sample(1, Some(901)).await, [young]);
        let leaving = world.ledger.reservation(young).expect("there");
        assert_eq!(leaving.state, State::Preempting);
        assert_eq!(world.sample(10_000, Some(950)).await, [], "one at a time");
        world.release(young);
        assert_eq!(world.sample(1_000, Some(950)).await, [], "he is gone only now");
        assert_eq!(world.sample(1_000, Some(950)).await, [old]);
        world.release(old);
        assert_eq!(world.sample(60_000, Some(999)).await, []);
        assert_eq!(world.sample(60_000, Some(999)).await, [], "who is backed stays");
        for id in backed {
            assert!(world.ledger.reservation(id).is_some_and(|backed| backed.state == State::Active));
        }
    }

    #[tokio::test(start_paused = true)]
    async fn silence_and_samples_without_the_reading_count_for_nothing() {
        let mut world = World::new(Gauge::Memory);
        let holder = world.grant("batch", Qos::BestEffort);
        assert_eq!(world.sample(0, Some(950)).await, []);
        assert_eq!(world.sample(9_000, None).await, [], "it cannot be read");
        assert_eq!(world.sample(9_000, Some(950)).await, [], "and begins anew");
        let taken = Instant::now() + Duration::from_secs(20);
        let epoch = world.ledger.node(NodeId(0)).expect("registered").epoch;
        let sample = NodeSample {
            memory_used_bytes: Some(99),
            memory_available_bytes: Some(1),
            ..NodeSample::default()
        };
        let fresh = Latest { taken, epoch, sample, stale: false };
        for old in [
            Latest { stale: true, ..fresh.clone() },
            Latest { epoch: NodeEpoch(epoch.0 + 1), ..fresh.clone() },
        ] {
            world.seen.look(&world.ledger, |_| Some(fresh.clone()));
            assert!(!world.seen.closed().is_empty());
            assert!(world.seen.look(&world.ledger, |_| Some(old.clone())));
            assert!(world.seen.closed().is_empty(), "what is old or of another incarnation says nothing");
        }
        assert!(!world.seen.look(&world.ledger, |_| None));
        assert!(world.ledger.reservation(holder).is_some_and(|holder| holder.state == State::Active));
    }

    #[tokio::test(start_paused = true)]
    async fn who_left_and_came_back_to_the_node_leaves_it_again() {
        let mut world = World::new(Gauge::Memory);
        let who = world.grant("batch", Qos::BestEffort);
        assert_eq!(world.sample(0, Some(950)).await, []);
        assert_eq!(world.sample(10_000, Some(950)).await, [who]);
        // The memory is free before he says that he has stopped, and nobody looks at the node when he is gone.
        assert_eq!(world.sample(1_000, Some(500)).await, []);
        let token = world.ledger.reservation(who).expect("there").token;
        world.apply(Command::Requeue { reservation: who, token });
        let member = MemberPlacement { node: NodeId(0), devices: vec![], role: 0 };
        world.apply(Command::Place { reservation: who, placement: Placement { members: vec![member] } });
        assert_eq!(world.sample(1_000, Some(950)).await, []);
        assert_eq!(world.sample(10_000, Some(950)).await, [who]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_next_one_leaves_only_for_what_was_measured_without_the_last_one() {
        // How many seconds after he was gone, with a sample each second.
        for (gauge, seconds) in [(Gauge::Memory, 1), (Gauge::Cpu, 2), (Gauge::IoPressure, 11)] {
            let mut world = World::new(gauge);
            let [first, second] = [(); 2].map(|()| world.grant("batch", Qos::BestEffort));
            assert_eq!(world.sample(20_000, Some(950)).await, []);
            assert_eq!(world.sample(20_000, Some(950)).await, [second]);
            world.release(second);
            let mut left = Vec::new();
            let mut waited = 0;
            while left.is_empty() {
                left = world.sample(1_000, Some(950)).await;
                waited += 1;
                assert!(waited < 60, "nobody leaves for {gauge:?}");
            }
            // He is seen to be gone by the first of these looks.
            assert_eq!((left, waited - 1), (vec![first], seconds), "{gauge:?}");
        }
    }
}
