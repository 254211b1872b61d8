//! Sequences of commands on the ledger, read off bytes: whatever comes, the invariants hold, every replica comes to the
//! same, and what was taken from the rows is what was there.

use bytes::Bytes;
use plimsoll_ledger::{
    AdminChange, Applied, Class, Command, Device, DeviceGrant, Entry, Gang, GpuAsk, GpuShare, Ledger,
    Measure, MemberPlacement, Meter, MigLayout, MigProfile, NodeHealth, NodeLimits, Outcome, Placement,
    PolicyName, PolicyObject, Pool, ProfileName, QueueOrder, QuotaPolicy, Rate, Registration, Request,
    Requirements, Reset, Scope, Stamp, Verdict, Wait,
};
use plimsoll_proto::codec;
use plimsoll_scheduler::Planner;
use plimsoll_types::{
    Amount, DeviceIndex, LedgerTime, NodeEpoch, NodeId, Operator, ReservationId, Resources, Revision,
    Selector, Term,
};

use crate::choices::Choices;
use crate::mutate::Dice;

/// Most commands of a sequence: the checks read the whole ledger.
const MOST_COMMANDS: usize = 200;
/// The whole ledger is checked after every so many commands.
const CHECK_EVERY: usize = 16;

/// Steps of amounts of requests.
const SMALL: u64 = 4;
/// Steps of amounts of nodes.
const LARGE: u64 = 40;

/// Applies the sequence that the input says.
pub fn run(input: &[u8]) {
    let mut play = Play::new(input);
    let mut twin = Ledger::new();
    let mut count = 0;
    while let Some((stamp, entry)) = play.next() {
        count += 1;
        let bytes = codec::encode_entry(&entry);
        assert_eq!(codec::decode_entry(&bytes).as_ref(), Ok(&entry), "a command survives the log");
        let tried = play.ledger.excerpt(&entry).apply(stamp, &entry);
        let applied = play.ledger.apply(stamp, &entry);
        assert_eq!(tried.answer, applied.answer, "an excerpt answers as the whole to {entry:?}");
        assert_eq!(twin.apply(stamp, &entry), applied, "two replicas come to the same");
        assert_eq!(play.ledger.take_violations(), Vec::new(), "while applying {entry:?}");
        if count % CHECK_EVERY == 0 {
            assert_eq!(play.ledger.check_invariants(), Vec::new(), "after {entry:?}");
        }
    }
    assert_eq!(play.ledger.check_invariants(), Vec::new(), "at the end");
    let rows = play.ledger.rows().map(|(_, row)| {
        let bytes = codec::encode_row(&row);
        codec::decode_row(&bytes).unwrap_or_else(|error| panic!("{row:?}: {error}"))
    });
    let again = Ledger::from_rows(rows).expect("its own rows make a ledger");
    assert!(again.rows().eq(play.ledger.rows()), "a ledger survives its rows");
}

/// Sequences that dice make.
pub fn seeds() -> Vec<Vec<u8>> {
    let sequence = |seed: u64| {
        let mut dice = Dice::new(seed);
        let length = 200 + dice.below(1_200);
        (0..length).map(|_| u8::try_from(dice.below(256)).unwrap_or(0)).collect()
    };
    (1..=12).map(sequence).collect()
}

/// The commands of a sequence.
pub fn entries(input: &[u8]) -> Vec<Entry> {
    let mut play = Play::new(input);
    let mut entries = Vec::new();
    while let Some((stamp, entry)) = play.next() {
        play.ledger.apply(stamp, &entry);
        entries.push(entry);
    }
    entries
}

/// Canonical bytes of the commands of a sequence, of what they came to, and of the rows at its end.
pub fn encoded(input: &[u8]) -> (Vec<Bytes>, Vec<Bytes>, Vec<Bytes>) {
    let mut play = Play::new(input);
    let (mut entries, mut outcomes) = (Vec::new(), Vec::new());
    while let Some((stamp, entry)) = play.next() {
        entries.push(codec::encode_entry(&entry));
        let Applied { answer, .. } = play.ledger.apply(stamp, &entry);
        outcomes.push(codec::encode_outcome(&answer.outcome));
    }
    let rows = play.ledger.rows().map(|(_, row)| codec::encode_row(&row)).collect();
    (entries, outcomes, rows)
}

/// A sequence being read.
struct Play<'a> {
    choices: Choices<'a>,
    ledger: Ledger,
    now_ms: u64,
    left: usize,
}

impl<'a> Play<'a> {
    fn new(input: &'a [u8]) -> Play<'a> {
        Play { choices: Choices::new(input), ledger: Ledger::new(), now_ms: 1_000_000, left: MOST_COMMANDS }
    }

    /// The next command, for the ledger as it is.
    fn next(&mut self) -> Option<(Stamp, Entry)> {
        if self.left == 0 || self.choices.is_done() {
            return None;
        }
        self.left -= 1;
        // Clocks of new leaders may be behind.
        self.now_ms = match self.choices.below(8) {
            0 => self.now_ms.saturating_add(self.choices.number()),
            1 => self.now_ms.saturating_sub(self.choices.number() % 10_000),
            _ => self.now_ms.saturating_add(u64::from(self.choices.byte()) * 20),
        };
        let revision = Revision(self.ledger.revision().0 + 1);
        let command = self.command();
        let mut entry = Entry::system(command);
        if self.choices.yes() {
            entry.actor = self.choices.one_of(&["ada", "bob"]).to_owned();
            entry.request_id = format!("request-{}", self.choices.below(24));
            entry.request_hash = [u8::from(self.choices.below(8) == 0); 32];
        }
        Some((Stamp { revision, proposed_at: LedgerTime(self.now_ms) }, entry))
    }

    fn command(&mut self) -> Command {
        // Without a node nothing else happens.
        if self.ledger.nodes().next().is_none() && self.choices.below(8) > 0 {
            return Command::RegisterNode(self.registration());
        }
        match self.choices.below(24) {
            0..=2 => Command::RegisterNode(self.registration()),
            3..=9 => self.submit(),
            10 => {
                let (reservation, _) = self.lease();
                Command::Place { reservation, placement: self.placement() }
            }
            11 | 12 => {
                let (reservation, token) = self.lease();
                Command::Confirm { reservation, token }
            }
            13 => {
                let (reservation, token) = self.lease();
                Command::Renew { reservation, token, ttl_ms: self.choices.number() }
            }
            14 => {
                let (reservation, token) = self.lease();
                Command::Resize { reservation, token, amounts: self.amounts(SMALL) }
            }
            15 | 16 => {
                let (reservation, token) = self.lease();
                match self.choices.below(3) {
                    0 => Command::Requeue { reservation, token },
                    _ => Command::Release { reservation, token },
                }
            }
            17 => Command::Cancel { reservation: self.lease().0 },
            18 => Command::Expire { limit: self.choices.one_of(&[0, 1, 4, 1_000]) },
            19 => {
                let node = self.node();
                let epoch = self.ledger.node(node).map_or(NodeEpoch(0), |node| node.epoch);
                let health = self.choices.one_of(&[
                    NodeHealth::Available,
                    NodeHealth::Suspect,
                    NodeHealth::Lost,
                    NodeHealth::Fenced,
                    NodeHealth::Failed,
                ]);
                Command::SetNodeHealth { node, epoch, health }
            }
            20 => {
                let admin = match self.choices.below(3) {
                    0 => AdminChange::Uncordon,
                    1 => AdminChange::Cordon { reason: "tests".to_owned() },
                    _ => AdminChange::Drain { reason: String::new(), deadline_ms: self.choices.number() },
                };
                Command::SetNodeAdmin { node: self.node(), admin }
            }
            21 if self.choices.yes() => {
                // Ids of nodes grow without end; those that there are come up more often.
                let there: Vec<NodeId> = self.ledger.nodes().map(|node| node.id).collect();
                let node = if there.is_empty() { self.node() } else { self.choices.one_of(&there) };
                Command::RemoveNode { node }
            }
            21 => {
                let device = DeviceIndex(u16::from(self.choices.byte() % 3));
                Command::SetDeviceHealth { node: self.node(), device, failed: self.choices.yes() }
            }
            22 if self.ledger.meta().version >= 4 && self.choices.below(4) == 0 => Command::TakeTokens {
                quota: "all".to_owned(),
                rate: "calls".to_owned(),
                scope: String::new(),
                tokens: self.choices.number(),
            },
            22 => self.policy(),
            _ if self.choices.below(4) == 0 => Command::Upgrade { to: u32::from(self.choices.byte() % 5) },
            _ => Command::BecomeLeader { leader: u64::from(self.choices.byte() % 4) },
        }
    }

    fn node(&mut self) -> NodeId {
        NodeId(u32::from(self.choices.byte() % 5))
    }

    /// A reservation that is there more often than not, with its token more often than not.
    fn lease(&mut self) -> (ReservationId, Revision) {
        let count = self.ledger.reservations().count();
        let known = self.ledger.reservations().nth(self.choices.below(count.min(256)));
        let Some(known) = known else { return (ReservationId(self.choices.number()), Revision(0)) };
        let token = if self.choices.below(8) == 0 { Revision(self.choices.number()) } else { known.token };
        (known.id, token)
    }

    /// Of a node or of a request: small ones mostly, so that some fit.
    fn amounts(&mut self, scale: u64) -> Resources {
        let (cpu, memory) = match self.choices.below(8) {
            0 => (self.choices.number(), self.choices.number()),
            _ => (u64::from(self.choices.byte()) * scale, u64::from(self.choices.byte()) * scale),
        };
        let amounts = Resources::new(cpu, memory);
        match self.choices.below(8) {
            0 => amounts.with("license/matlab", self.choices.number()),
            1 => amounts.with("license/matlab", u64::from(self.choices.byte() % 4)),
            _ => amounts,
        }
    }

    fn registration(&mut self) -> Registration {
        let devices = (0..self.choices.below(3)).map(|index| {
            let kind = self.choices.below(8);
            Device {
                uuid: format!("GPU-{index}"),
                model: "a100".to_owned(),
                memory_bytes: 1_000,
                failed: kind == 0,
                mig: (1..3).contains(&kind).then(layout),
            }
        });
        let devices = devices.collect();
        let zone = self.choices.one_of(&["a", "b"]).to_owned();
        Registration {
            name: format!("n{}", self.choices.below(4)),
            incarnation: u64::from(self.choices.byte() % 3) + 1,
            labels: [("zone".to_owned(), zone)].into(),
            capacity: self.amounts(LARGE),
            devices,
            self_fencing: self.choices.yes(),
            running: Vec::new(),
            ..Registration::default()
        }
        .for_version(self.ledger.meta().version)
    }

    fn submit(&mut self) -> Command {
        let request = self.request();
        let verdict = match self.choices.below(4) {
            0 => Verdict::Place(self.placement()),
            1 => Verdict::Blocked(Vec::new()),
            _ => {
                let mut planner = Planner::new(&self.ledger, 1);
                let planned = planner.plan_batch(&self.ledger, &[&request]).pop();
                planned.map_or(Verdict::Blocked(Vec::new()), |(verdict, _)| verdict)
            }
        };
        Command::Submit { request, verdict }
    }

    fn request(&mut self) -> Request {
        let gpu = match self.choices.below(8) {
            0 => Some(GpuAsk::whole(u32::from(self.choices.byte() % 3))),
            1 => Some(GpuAsk::milli(u16::from(self.choices.byte()) * 5)),
            3 => {
                let share = GpuShare::Mig(profile(self.choices.one_of(&["1g.125", "3g.500", "1g.5gb"])));
                Some(GpuAsk { share, ..GpuAsk::whole(1) })
            }
            2 => {
                let share = GpuShare::Memory(self.choices.number() % 1_100);
                Some(GpuAsk { share, ..GpuAsk::whole(1) })
            }
            _ => None,
        };
        let required = match self.choices.below(6) {
            0 => {
                let term =
                    Term { key: "zone".to_owned(), operator: Operator::In, values: vec!["a".to_owned()] };
                Selector { terms: vec![term] }
            }
            _ => Selector::default(),
        };
        let min_members = u32::from(self.choices.byte() % 4);
        let gang = Gang {
            min_members,
            max_members: min_members + u32::from(self.choices.byte() % 2),
            spread: self.choices.yes(),
        };
        let wait = match self.choices.below(3) {
            0 => Wait::Refuse,
            1 => Wait::Queue { deadline_ms: 0 },
            _ => Wait::Queue { deadline_ms: self.choices.number() },
        };
        Request {
            name: "job".to_owned(),
            pool: rarely(&mut self.choices, "default", &["side", "none", ""]).to_owned(),
            class: rarely(&mut self.choices, "standard", &["urgent", "none"]).to_owned(),
            requirements: Requirements {
                amounts: self.amounts(SMALL),
                gpu,
                required,
                ..Requirements::default()
            },
            gang: if self.choices.below(3) > 0 { Gang::default() } else { gang },
            ttl_ms: rarely(&mut self.choices, 10_000, &[0, 1, 1_000, 60_000, u64::MAX]),
            hold_ms: rarely(&mut self.choices, 5_000, &[0, 1, 1_000, u64::MAX]),
            max_duration_ms: rarely(&mut self.choices, 0, &[1, 20_000, u64::MAX]),
            auto_confirm: self.choices.yes(),
            wait,
            ..Request::default()
        }
    }

    fn placement(&mut self) -> Placement {
        let member = |choices: &mut Choices<'_>| {
            let devices = (0..choices.below(3)).map(|_| DeviceGrant {
                device: DeviceIndex(u16::from(choices.byte() % 3)),
                milli: u16::from(choices.byte()) * 5,
                memory_bytes: choices.number(),
                slices: None,
            });
            let devices = devices.collect();
            let place = choices.byte();
            // Now and then one that hardly anybody has.
            MemberPlacement { node: NodeId(u32::from(place % 5)), devices, role: u16::from(place > 240) }
        };
        let count = self.choices.below(4);
        Placement { members: (0..count).map(|_| member(&mut self.choices)).collect() }
    }

    /// Limits of every measure and reset, small enough to be met.
    fn quota(&mut self) -> PolicyObject {
        let mut limits = std::collections::BTreeMap::new();
        for (_, measure) in Measure::NAMED {
            let reset = if measure.is_live() {
                Reset::Live
            } else {
                self.choices.one_of(&[Reset::Day, Reset::Month, Reset::Never, Reset::Rolling(60_000)])
            };
            let scope = self.choices.one_of(&[Scope::Together, Scope::User]);
            limits.insert(Meter::new(scope, measure, reset), self.choices.number() >> 1);
        }
        let rate = Rate { tokens: 1 + u64::from(self.choices.byte()), period_ms: 1_000, burst: 3 };
        PolicyObject::Quota(QuotaPolicy {
            name: "all".to_owned(),
            limits,
            queue_when_exhausted: self.choices.yes(),
            rates: [("calls".to_owned(), rate)].into(),
            ..QuotaPolicy::default()
        })
    }

    fn policy(&mut self) -> Command {
        let object = match self.choices.below(3) {
            0 => {
                let total = Amount(self.choices.number());
                PolicyObject::Pool(Pool {
                    name: self.choices.one_of(&["default", "side"]).to_owned(),
                    countables: if self.choices.yes() {
                        [("license/matlab".into(), total)].into()
                    } else {
                        [].into()
                    },
                    queue_order: self.choices.one_of(&[QueueOrder::BestEffortFifo, QueueOrder::StrictFifo]),
                    max_pending: u32::from(self.choices.byte() % 4),
                    ..Pool::default()
                })
            }
            1 => PolicyObject::Class(Class {
                name: self.choices.one_of(&["standard", "urgent"]).to_owned(),
                priority: i32::from(self.choices.byte()),
                ..Class::default()
            }),
            _ if self.ledger.meta().version >= 4 && self.choices.yes() => self.quota(),
            _ => PolicyObject::NodeLimits(NodeLimits {
                name: "cap".to_owned(),
                max: self.amounts(LARGE),
                ..NodeLimits::default()
            }),
        };
        let name = self.choices.one_of(&[
            PolicyName::Pool("side".to_owned()),
            PolicyName::Class("urgent".to_owned()),
            PolicyName::NodeLimits("cap".to_owned()),
            PolicyName::Pool("default".to_owned()),
        ]);
        let (put, delete) = match self.choices.below(3) {
            0 => (Vec::new(), vec![name]),
            1 => (vec![object], vec![name]),
            _ => (vec![object], Vec::new()),
        };
        let if_revision = Revision(if self.choices.below(8) == 0 { self.choices.number() } else { 0 });
        Command::ApplyPolicy { put, delete, if_revision }
    }
}

/// A small board that is cut in eight.
fn layout() -> MigLayout {
    let one = |name: &str, compute_slices, memory_slices, starts: &[u8]| MigProfile {
        name: profile(name),
        compute_slices,
        memory_slices,
        memory_bytes: 125 * u64::from(memory_slices),
        starts: starts.to_vec(),
    };
    let profiles = vec![one("1g.125", 1, 1, &[0, 1, 2, 3, 4, 5, 6]), one("3g.500", 3, 4, &[0, 4])];
    MigLayout { compute_slices: 7, memory_slices: 8, profiles }
}

fn profile(name: &str) -> ProfileName {
    ProfileName::new(name).expect("it is written as one")
}

/// The usual value, and one of the others every eighth time.
fn rarely<T: Clone>(choices: &mut Choices<'_>, usual: T, others: &[T]) -> T {
    if choices.below(8) == 0 { choices.one_of(others) } else { usual }
}

/// True where a sequence grants something: seeds that grant nothing would test little.
pub fn grants(input: &[u8]) -> bool {
    let (_, outcomes, _) = encoded(input);
    let granted = |bytes: &Bytes| matches!(codec::decode_outcome(bytes), Ok(Outcome::Reservation(reservation)) if reservation.state.is_occupying());
    outcomes.iter().any(granted)
}
