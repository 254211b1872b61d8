//! RESOURCES: what `run`, `reserve` and `explain` ask for.

use std::time::Duration;

use clap::Args;
use plimsoll_client::v1::{
    Gang, GpuAsk, NodeSelectorTerm, OnInterruption, OnPreempt, PreferredHours, PreferredTerm, Qos,
    Quantities, RequestLimits, Requirements, ReservationSpec, SelectorOperator,
};
use plimsoll_types::quantity;

use super::globals::duration;
use super::places::PlaceArgs;
use super::roles::read_role;
use crate::error::CliError;

/// What is asked for.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Resources")]
pub(crate) struct ResourceArgs {
    /// Compute per member: 2, 0.5 or 500m
    #[arg(long, value_name = "CORES")]
    pub(crate) cpu: Option<String>,
    /// Memory per member: 512Mi, 4Gi
    #[arg(long, alias = "memory", value_name = "SIZE")]
    pub(crate) mem: Option<String>,
    /// GPUs per member: 1, 0.5, h100, h100:2
    #[arg(long, value_name = "GPUS")]
    pub(crate) gpu: Option<String>,
    /// GPU memory: alone a share of one device, with --gpu the least of each device
    #[arg(long, value_name = "SIZE")]
    pub(crate) gpu_mem: Option<String>,
    /// An instance of a MIG profile per member, on a GPU that is cut: 1g.10gb; with --gpu of that model
    #[arg(long, value_name = "PROFILE")]
    pub(crate) gpu_mig: Option<String>,
    /// Network bandwidth per member: 100Mbps
    #[arg(long, value_name = "RATE")]
    pub(crate) bandwidth: Option<String>,
    /// Any other resource: license/foo=1, storage/ssd=50Gi (repeatable)
    #[arg(long = "res", value_name = "NAME=AMOUNT")]
    pub(crate) other: Vec<String>,
    /// Pool to take from
    #[arg(long, value_name = "POOL")]
    pub(crate) pool: Option<String>,
    /// Priority class
    #[arg(long, value_name = "CLASS")]
    pub(crate) class: Option<String>,
    /// Queue whose quota it counts against
    #[arg(long, value_name = "QUEUE")]
    pub(crate) queue: Option<String>,
    /// Service that it is a replica of: pool and class are the service's where none are given
    #[arg(long, value_name = "SERVICE")]
    pub(crate) service: Option<String>,
    /// Team, user or namespace that this is for
    #[arg(long, alias = "team", value_name = "NAME")]
    pub(crate) tenant: Option<String>,
    /// Name for people
    #[arg(long, short = 'n', value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Label of the reservation: key=value (repeatable)
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,
    /// Only nodes where this holds: zone=a, zone!=a, 'zone in (a,b)', gpu, '!gpu', 'rank>3' (repeatable)
    #[arg(long = "require", value_name = "SELECTOR")]
    pub(crate) require: Vec<String>,
    /// Rather nodes where this holds: 10:zone=a, with a weight from 1 to 100 (repeatable)
    #[arg(long = "prefer", value_name = "WEIGHT:SELECTOR")]
    pub(crate) prefer: Vec<String>,
    /// Members of a gang, all or nothing: 4, or 2-8 for at least 2 and at most 8
    #[arg(long, alias = "nodes", value_name = "N|MIN-MAX")]
    pub(crate) members: Option<String>,
    /// Members of one kind of a gang, granted with the others or not at all: worker:2-8:cpu=4,mem=16Gi,gpu=1 (repeatable)
    #[arg(long = "role", value_name = "NAME:N|MIN-MAX:ASKS", conflicts_with_all = ["members", "cpu", "mem", "gpu", "gpu_mem", "gpu_mig", "bandwidth", "other", "burst"])]
    pub(crate) roles: Vec<String>,
    /// Members on distinct nodes
    #[arg(long)]
    pub(crate) spread: bool,
    /// A gang that loses members with a node or GPU goes on without them for so long, first in line for what takes their
    /// place: 10m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) repair_within: Option<Duration>,
    /// The grant ends after so long, whatever is renewed: 8h
    #[arg(long = "for", value_name = "DURATION", value_parser = duration)]
    pub(crate) duration: Option<Duration>,
    /// Most that the grant may cost, in the pool's currency: 2.50
    #[arg(long, value_name = "MONEY")]
    pub(crate) max_cost: Option<String>,
    /// Length of the lease that each renewal buys: 1m
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub(crate) ttl: Option<Duration>,
    /// What becomes of it when its grant is taken back: it waits again, in its old place, or it ends
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) on_preempt: Option<Preempted>,
    /// What becomes of it when the provider of its node takes that back; else what the policy about spot nodes says
    #[arg(long, value_name = "WHAT", value_enum)]
    pub(crate) on_interruption: Option<Interrupted>,
    /// Rather start while a window of this schedule is open, and wait for that: off-peak
    #[arg(long, value_name = "SCHEDULE")]
    pub(crate) prefer_hours: Option<String>,
    /// With --prefer-hours: after so long it starts at any time; 24h where it is left out
    #[arg(long, value_name = "DURATION", value_parser = duration, requires = "prefer_hours")]
    pub(crate) longest_wait: Option<Duration>,
    /// Points that it gives up in a pool whose queue goes by points: 100
    #[arg(long, value_name = "POINTS")]
    pub(crate) nice: Option<u32>,
    /// What its holder may count on; else what the class says
    #[arg(long, value_name = "QOS", value_enum)]
    pub(crate) qos: Option<Service>,
    /// What it may use while it is idle, with --qos burstable: cpu=4, memory=8Gi (repeatable)
    #[arg(long, value_name = "NAME=AMOUNT")]
    pub(crate) burst: Vec<String>,
    /// Where members are.
    #[command(flatten)]
    pub(crate) places: PlaceArgs,
}

/// What the holder of a grant may count on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Service {
    /// All of it, and nothing beyond.
    Guaranteed,
    /// What is asked, and beyond it what is idle.
    Burstable,
    /// What others leave idle, or the pool oversubscribes; first to leave.
    BestEffort,
}

/// What becomes of a reservation when its grant is taken back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Preempted {
    /// It waits again, in its old place in the queue.
    Requeue,
    /// It ends.
    End,
}

/// What becomes of a reservation whose node is taken back by its provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
#[value(rename_all = "snake_case")]
pub(crate) enum Interrupted {
    /// It is told to save what it has, and waits again, in its old place in the queue.
    CheckpointAndRetry,
    /// It waits again, in its old place in the queue.
    Requeue,
    /// It ends.
    Fail,
}

impl ResourceArgs {
    /// The specification that it says.
    pub(crate) fn spec(&self) -> Result<ReservationSpec, CliError> {
        let mut spec = ReservationSpec {
            name: self.name.clone().unwrap_or_default(),
            pool: self.pool.clone().unwrap_or_default(),
            class: self.class.clone().unwrap_or_default(),
            queue: self.queue.clone().unwrap_or_default(),
            service: self.service.clone().unwrap_or_default(),
            tenant: self.tenant.clone().unwrap_or_default(),
            requirements: Some(self.requirements()?),
            gang: self.gang()?,
            roles: self.roles.iter().map(|role| read_role(role)).collect::<Result<_, _>>()?,
            max_duration_ms: self.duration.map_or(0, as_ms),
            ttl_ms: self.ttl.map_or(0, as_ms),
            repair_within_ms: self.repair_within.map_or(0, as_ms),
            on_preempt: match self.on_preempt {
                None => OnPreempt::Unspecified,
                Some(Preempted::Requeue) => OnPreempt::Requeue,
                Some(Preempted::End) => OnPreempt::End,
            }
            .into(),
            ..ReservationSpec::default()
        };
        spec.on_interruption = match self.on_interruption {
            None => OnInterruption::Unspecified,
            Some(Interrupted::CheckpointAndRetry) => OnInterruption::CheckpointAndRetry,
            Some(Interrupted::Requeue) => OnInterruption::Requeue,
            Some(Interrupted::Fail) => OnInterruption::Fail,
        }
        .into();
        spec.qos = match self.qos {
            None => Qos::Unspecified,
            Some(Service::Guaranteed) => Qos::Guaranteed,
            Some(Service::Burstable) => Qos::Burstable,
            Some(Service::BestEffort) => Qos::BestEffort,
        }
        .into();
        spec.hours = self.prefer_hours.as_ref().map(|schedule| PreferredHours {
            schedule: schedule.clone(),
            longest_wait_ms: self.longest_wait.map_or(plimsoll_policy::USUAL_LONGEST_WAIT_MS, as_ms),
        });
        spec.nice = self.nice.unwrap_or_default();
        spec.burst = self.burst()?;
        spec.topology = self.places.topology()?;
        spec.affinity = self.places.affinity()?;
        if let Some(money) = &self.max_cost {
            spec.limits = Some(RequestLimits { cost_micros: plimsoll_policy::parse_micros(money)? });
        }
        for label in &self.labels {
            let Some((key, value)) = label.split_once('=') else {
                return Err(CliError::usage(format!("--label {label:?} is not KEY=VALUE")));
            };
            spec.labels.insert(key.to_owned(), value.to_owned());
        }
        Ok(spec)
    }

    /// True where nothing was asked for.
    pub(crate) fn is_empty(&self) -> bool {
        let named = [&self.cpu, &self.mem, &self.gpu, &self.gpu_mem, &self.gpu_mig, &self.bandwidth];
        named.iter().all(|value| value.is_none()) && self.other.is_empty() && self.roles.is_empty()
    }

    fn requirements(&self) -> Result<Requirements, CliError> {
        let mut amounts = Quantities::default();
        if let Some(cpu) = &self.cpu {
            amounts.cpu_millis = quantity::parse_cpu_millis(cpu)?;
        }
        if let Some(memory) = &self.mem {
            amounts.memory_bytes = quantity::parse_bytes(memory)?;
        }
        if let Some(bandwidth) = &self.bandwidth {
            let bits = quantity::parse_bits_per_second(bandwidth)?;
            amounts.other.extend([("network/in".to_owned(), bits), ("network/out".to_owned(), bits)]);
        }
        for pair in &self.other {
            let (name, amount) = read_amount("--res", pair)?;
            amounts.other.insert(name.to_owned(), amount);
        }
        let mut preferred = Vec::new();
        for wish in &self.prefer {
            preferred.extend(read_wish(wish)?);
        }
        let mut required = Vec::new();
        for selector in &self.require {
            required.extend(read_selector(selector)?);
        }
        Ok(Requirements { amounts: Some(amounts), gpu: self.gpu_ask()?, required, preferred })
    }

    fn burst(&self) -> Result<Option<Quantities>, CliError> {
        let mut burst = Quantities::default();
        for pair in &self.burst {
            let (name, amount) = read_amount("--burst", pair)?;
            match name {
                "cpu" => burst.cpu_millis = amount,
                "memory" => burst.memory_bytes = amount,
                _ => drop(burst.other.insert(name.to_owned(), amount)),
            }
        }
        Ok((!self.burst.is_empty()).then_some(burst))
    }

    fn gpu_ask(&self) -> Result<Option<GpuAsk>, CliError> {
        let memory_bytes = self.gpu_mem.as_deref().map(quantity::parse_bytes).transpose()?.unwrap_or(0);
        if let Some(profile) = &self.gpu_mig {
            return self.mig_ask(profile, memory_bytes).map(Some);
        }
        let Some(gpu) = &self.gpu else {
            let share = GpuAsk { count: 1, memory_bytes, ..GpuAsk::default() };
            return Ok(Some(share).filter(|share| share.memory_bytes > 0));
        };
        let asked = quantity::parse_gpu(gpu)?;
        Ok(Some(GpuAsk {
            count: asked.count,
            milli: u32::from(asked.milli),
            models: asked.model.into_iter().collect(),
            min_device_memory_bytes: memory_bytes,
            ..GpuAsk::default()
        }))
    }

    /// One instance; a model narrows it down.
    fn mig_ask(&self, profile: &str, min_device_memory_bytes: u64) -> Result<GpuAsk, CliError> {
        let asked = self.gpu.as_deref().map(quantity::parse_gpu).transpose()?;
        if asked.as_ref().is_some_and(|asked| asked.count != 1 || asked.milli != 1_000) {
            let gpu = self.gpu.as_deref().unwrap_or_default();
            let error = format!(
                "--gpu {gpu} with --gpu-mig {profile}: an instance is of one device, and says how much it is"
            );
            return Err(CliError::usage(error)
                .help("write --gpu h100 --gpu-mig 1g.10gb, and --members for more of them"));
        }
        Ok(GpuAsk {
            count: 1,
            mig_profile: profile.trim().to_ascii_lowercase(),
            models: asked.and_then(|asked| asked.model).into_iter().collect(),
            min_device_memory_bytes,
            ..GpuAsk::default()
        })
    }

    fn gang(&self) -> Result<Option<Gang>, CliError> {
        let Some(members) = &self.members else {
            return Ok((!self.roles.is_empty()).then(|| Gang { spread: self.spread, ..Gang::default() }));
        };
        let (min, max) = members.split_once('-').unwrap_or((members, members));
        match (min.parse::<u32>(), max.parse::<u32>()) {
            (Ok(min_members), Ok(max_members)) if min_members >= 1 && min_members <= max_members => {
                Ok(Some(Gang { min_members, max_members, spread: self.spread }))
            }
            _ => Err(CliError::usage(format!("--members {members:?} is not a number from 1, or MIN-MAX"))),
        }
    }
}

/// Reads a label selector as Kubernetes writes it: terms with commas between.
pub(crate) fn read_selector(text: &str) -> Result<Vec<NodeSelectorTerm>, CliError> {
    let mut terms = Vec::new();
    let mut depth = 0usize;
    let mut part = String::new();
    for c in text.chars().chain([',']) {
        match c {
            ',' if depth == 0 => {
                let trimmed = part.trim();
                if !trimmed.is_empty() {
                    terms.push(read_term(trimmed)?);
                }
                part.clear();
                continue;
            }
            '(' => depth += 1,
            ')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        part.push(c);
    }
    if terms.is_empty() {
        return Err(
            CliError::usage(format!("{text:?} is not a selector")).help("write zone=a or 'zone in (a,b)'")
        );
    }
    Ok(terms)
}

/// NAME=AMOUNT of a flag.
pub(crate) fn read_amount<'a>(flag: &str, pair: &'a str) -> Result<(&'a str, u64), CliError> {
    let Some((name, amount)) = pair.split_once('=') else {
        return Err(CliError::usage(format!("{flag} {pair:?} is not NAME=AMOUNT")));
    };
    Ok((name, quantity::parse_resource(name, amount)?))
}

fn read_term(text: &str) -> Result<NodeSelectorTerm, CliError> {
    let term = |key: &str, operator: SelectorOperator, values: Vec<String>| NodeSelectorTerm {
        key: key.trim().to_owned(),
        operator: operator.into(),
        values,
    };
    let one = |value: &str| vec![value.trim().to_owned()];
    for (word, operator) in [(" notin ", SelectorOperator::NotIn), (" in ", SelectorOperator::In)] {
        if let Some((key, list)) = text.split_once(word) {
            let inner = list.trim().strip_prefix('(').and_then(|list| list.strip_suffix(')'));
            let Some(inner) = inner else { break };
            return Ok(term(key, operator, inner.split(',').map(|value| value.trim().to_owned()).collect()));
        }
    }
    let operators = [
        ("!=", SelectorOperator::NotIn),
        ("==", SelectorOperator::In),
        ("=", SelectorOperator::In),
        (">", SelectorOperator::Gt),
        ("<", SelectorOperator::Lt),
    ];
    for (sign, operator) in operators {
        if let Some((key, value)) = text.split_once(sign) {
            return Ok(term(key, operator, one(value)));
        }
    }
    let (key, operator) = match text.strip_prefix('!') {
        Some(key) => (key, SelectorOperator::DoesNotExist),
        None => (text, SelectorOperator::Exists),
    };
    if key.is_empty() || key.contains([' ', '(', ')']) {
        let error = CliError::usage(format!("{text:?} is not a condition on a label"));
        return Err(error.help("write zone=a, zone!=a, 'zone in (a,b)', gpu or '!gpu'"));
    }
    Ok(term(key, operator, Vec::new()))
}

fn read_wish(text: &str) -> Result<Vec<PreferredTerm>, CliError> {
    let parsed = text.split_once(':').and_then(|(weight, rest)| Some((weight.parse::<u32>().ok()?, rest)));
    let Some((weight, selector)) = parsed.filter(|(weight, _)| (1..=100).contains(weight)) else {
        return Err(CliError::usage(format!("--prefer {text:?} is not WEIGHT:SELECTOR, as in 10:zone=a")));
    };
    Ok(read_selector(selector)?.into_iter().map(|term| PreferredTerm { weight, term: Some(term) }).collect())
}

fn as_ms(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_are_read_as_kubernetes_reads_them() {
        let terms = read_selector("zone in (a, b),gpu!=t4,!spot,rank>3,ssd").unwrap();
        let found: Vec<_> =
            terms.iter().map(|t| (t.key.as_str(), t.operator(), t.values.join("+"))).collect();
        let expected = [
            ("zone", SelectorOperator::In, "a+b".to_owned()),
            ("gpu", SelectorOperator::NotIn, "t4".to_owned()),
            ("spot", SelectorOperator::DoesNotExist, String::new()),
            ("rank", SelectorOperator::Gt, "3".to_owned()),
            ("ssd", SelectorOperator::Exists, String::new()),
        ];
        assert_eq!(found, expected);
        for bad in ["", "zone in a", "a b", "()"] {
            assert!(read_selector(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_become_a_specification() {
        let args = ResourceArgs {
            cpu: Some("2".into()),
            gpu: Some("h100:2".into()),
            gpu_mem: Some("60Gi".into()),
            members: Some("2-4".into()),
            bandwidth: Some("100Mbps".into()),
            prefer: vec!["10:zone=a".into()],
            ..ResourceArgs::default()
        };
        let spec = args.spec().unwrap();
        let requirements = spec.requirements.unwrap();
        let gpu = requirements.gpu.unwrap();
        assert_eq!(
            (gpu.count, gpu.milli, gpu.min_device_memory_bytes, gpu.memory_bytes),
            (2, 1000, 60 << 30, 0)
        );
        assert_eq!(requirements.amounts.unwrap().other["network/in"], 100_000_000);
        assert_eq!(spec.gang.map(|gang| (gang.min_members, gang.max_members)), Some((2, 4)));
        assert_eq!(requirements.preferred[0].weight, 10);
        let share = ResourceArgs { gpu_mem: Some("20Gi".into()), ..ResourceArgs::default() };
        assert_eq!(share.spec().unwrap().requirements.unwrap().gpu.unwrap().memory_bytes, 20 << 30);
        let mig = |gpu: Option<&str>| ResourceArgs {
            gpu: gpu.map(str::to_owned),
            gpu_mig: Some("1G.10gb".into()),
            ..ResourceArgs::default()
        };
        let gpu = mig(Some("h100")).spec().unwrap().requirements.unwrap().gpu.unwrap();
        assert_eq!(
            (gpu.count, gpu.milli, gpu.mig_profile.as_str(), gpu.models),
            (1, 0, "1g.10gb", vec!["h100".into()])
        );
        assert_eq!(mig(None).spec().unwrap().requirements.unwrap().gpu.unwrap().mig_profile, "1g.10gb");
        assert!(mig(Some("0.5")).spec().is_err() && mig(Some("2")).spec().is_err());
        for bad in ["0", "3-2", "x"] {
            let args = ResourceArgs { members: Some(bad.into()), ..ResourceArgs::default() };
            assert!(args.spec().is_err(), "{bad}");
        }
    }
}
