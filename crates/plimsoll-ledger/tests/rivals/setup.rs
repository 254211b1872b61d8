//! What rivals live under: a tree of queues with small quotas and one beside it, classes, and what their pool lets be taken back.

use std::collections::BTreeMap;

use plimsoll_ledger::{Class, Command, PolicyObject, Pool, Preemption, Queue, Quota};
use plimsoll_types::{Amount, Revision};
use proptest::prelude::*;

/// Queues and what is above each: `cv` is two steps from the root, `alien` is of another tree.
const QUEUES: [(&str, &str); 5] =
    [("org", ""), ("vision", "org"), ("cv", "vision"), ("speech", "org"), ("alien", "")];
/// Classes from the lowest priority up.
const CLASSES: [(&str, i32); 4] = [("batch", 10), ("low", 25), ("standard", 50), ("high", 75)];

/// Guaranteed, on top of that nominal, and perhaps on top of that a limit; `None` where nothing is said.
type Given = Option<(u64, u64, Option<u64>)>;

/// Quotas of cpu and devices of each queue, rules of each class, and those of the pool.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    queues: Vec<(Given, Given)>,
    classes: Vec<(bool, u64, u64)>,
    preemption: Preemption,
    max_preemptions_per_hour: u32,
    /// How much of the cores is promised, in thousandths.
    cpu_permille: u32,
}

pub(super) fn setup() -> impl Strategy<Value = Setup> {
    let given = |percent: f64| {
        let limit = prop::option::weighted(0.25, 0u64..4);
        prop::option::weighted(percent, (prop_oneof![2 => Just(0u64), 2 => 1u64..3], 0u64..5, limit))
    };
    let queues = prop::collection::vec((given(0.85), given(0.5)), QUEUES.len());
    let classes = prop::collection::vec(
        (
            prop::bool::weighted(0.7),
            prop_oneof![Just(0u64), Just(2_000)],
            prop_oneof![3 => Just(0u64), 1 => Just(3_000)],
        ),
        CLASSES.len(),
    );
    let preemption = prop_oneof![
        8 => Just(Preemption::Any), 2 => Just(Preemption::Reclaim), 1 => Just(Preemption::LowerClass), 1 => Just(Preemption::Never),
    ];
    let most = prop_oneof![4 => Just(0u32), 1 => 1u32..4];
    let over = prop_oneof![3 => Just(1_000u32), 1 => Just(1_400)];
    (queues, classes, preemption, most, over).prop_map(
        |(queues, classes, preemption, max_preemptions_per_hour, cpu_permille)| Setup {
            queues,
            classes,
            preemption,
            max_preemptions_per_hour,
            cpu_permille,
        },
    )
}

fn quota((guaranteed, more, limit): (u64, u64, Option<u64>), unit: u64) -> Quota {
    let nominal = guaranteed + more;
    let amount = |units: u64| Amount(units * unit);
    Quota {
        guaranteed: amount(guaranteed),
        nominal: amount(nominal),
        limit: limit.map(|more| amount(nominal + more)),
    }
}

impl Setup {
    /// The policy that says so.
    pub(super) fn command(&self) -> Command {
        let pool = |name: &str| {
            PolicyObject::Pool(Pool {
                name: name.into(),
                preemption: self.preemption,
                max_preemptions_per_hour: self.max_preemptions_per_hour,
                oversubscription: BTreeMap::from([("cpu".into(), self.cpu_permille)]),
                ..Pool::default()
            })
        };
        let class =
            |((name, priority), (preemptible, grace_ms, min_run_ms)): (&(&str, i32), &(bool, u64, u64))| {
                PolicyObject::Class(Class {
                    name: (*name).into(),
                    priority: *priority,
                    preemptible: *preemptible,
                    grace_ms: *grace_ms,
                    min_run_ms: *min_run_ms,
                    ..Class::default()
                })
            };
        let queue = |((name, parent), (cpu, gpu)): (&(&str, &str), &(Given, Given))| {
            let cpu = cpu.map(|given| ("cpu".to_owned(), quota(given, 1_000)));
            let gpu = gpu.map(|given| ("gpu".to_owned(), quota(given, 500)));
            let resources: BTreeMap<String, Quota> = cpu.into_iter().chain(gpu).collect();
            let given = (!resources.is_empty()).then(|| ("default".to_owned(), resources));
            PolicyObject::Queue(Queue {
                name: (*name).into(),
                parent: (*parent).into(),
                quotas: given.into_iter().collect(),
                ..Queue::default()
            })
        };
        let mut put = vec![pool("default"), pool("gpu")];
        put.extend(CLASSES.iter().zip(&self.classes).map(class));
        put.extend(QUEUES.iter().zip(&self.queues).map(queue));
        Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) }
    }
}
