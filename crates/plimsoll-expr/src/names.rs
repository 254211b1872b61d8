//! The names that an expression may use, with their types and units.

use std::collections::BTreeMap;

/// What a number measures. Numbers of different units are not compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// Pieces, or no unit at all.
    Plain,
    /// Cores: `500m`, `0.5`, `4`.
    Cores,
    /// Bytes: `512Mi`, `4Gi`.
    Bytes,
    /// Bits per second: `100Mbps`.
    BitsPerSecond,
    /// Seconds: `300`, `5m`, `2h`.
    Seconds,
    /// A part of the whole, 0 to 1: `0.9`, `90%`.
    Ratio,
    /// Percent, 0 to 100: `90`, `90%`.
    Percent,
}

/// The type of a name or of a part of an expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Type {
    /// True or false.
    Bool,
    /// A number.
    Number(Unit),
    /// Text.
    Text,
    /// A list.
    List(Box<Type>),
    /// Values by any text.
    Map(Box<Type>),
    /// Values by names that are known.
    Object(Names),
    /// Not known: fits everything.
    Any,
}

/// Names with their types.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names(BTreeMap<&'static str, Type>);

impl Unit {
    /// What it is called in messages, with an example.
    pub(crate) fn describe(self) -> &'static str {
        match self {
            Unit::Plain => "a number without unit, as in 8",
            Unit::Cores => "an amount of cpu, as in 500m, 0.5 or 4",
            Unit::Bytes => "a size, as in 512Mi or 4Gi",
            Unit::BitsPerSecond => "a bandwidth, as in 100Mbps",
            Unit::Seconds => "a duration, as in 300, 5m or 2h",
            Unit::Ratio => "a part of the whole, as in 0.9 or 90%",
            Unit::Percent => "percent, as in 90 or 90%",
        }
    }
}

impl Type {
    /// What it is called in messages.
    pub(crate) fn describe(&self) -> &'static str {
        match self {
            Type::Bool => "true or false",
            Type::Number(Unit::Plain) => "a number",
            Type::Number(Unit::Cores) => "an amount of cpu",
            Type::Number(Unit::Bytes) => "a size",
            Type::Number(Unit::BitsPerSecond) => "a bandwidth",
            Type::Number(Unit::Seconds) => "a duration",
            Type::Number(Unit::Ratio) => "a part of the whole",
            Type::Number(Unit::Percent) => "percent",
            Type::Text => "text",
            Type::List(_) => "a list",
            Type::Map(_) | Type::Object(_) => "a block of values",
            Type::Any => "anything",
        }
    }
}

impl Names {
    /// These names.
    pub fn new(names: impl IntoIterator<Item = (&'static str, Type)>) -> Names {
        Names(names.into_iter().collect())
    }

    /// The type of a name.
    pub fn get(&self, name: &str) -> Option<&Type> {
        self.0.get(name)
    }

    /// Every name, ascending.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, &Type)> {
        self.0.iter().map(|(name, kind)| (*name, kind))
    }

    /// What is measured of a node, as conditions of alerts and evictions have it: `cpu`, `memory` and `gpu` are used parts of the whole,
    /// `*_utilization` the same in percent, `*_available` amounts.
    pub fn measurements() -> Names {
        let ratio = || Type::Number(Unit::Ratio);
        let percent = || Type::Number(Unit::Percent);
        Names::new([
            ("cpu", ratio()),
            ("memory", ratio()),
            ("gpu", ratio()),
            ("disk", ratio()),
            ("cpu_utilization", percent()),
            ("memory_utilization", percent()),
            ("gpu_utilization", percent()),
            ("disk_utilization", percent()),
            ("cpu_available", Type::Number(Unit::Cores)),
            ("memory_available", Type::Number(Unit::Bytes)),
            ("gpu_available", Type::Number(Unit::Plain)),
            ("disk_available", Type::Number(Unit::Bytes)),
            ("network_throughput", Type::Number(Unit::BitsPerSecond)),
            ("queue_depth", Type::Number(Unit::Plain)),
            ("wait", Type::Number(Unit::Seconds)),
            ("power_watts", Type::Number(Unit::Plain)),
            ("temperature_celsius", Type::Number(Unit::Plain)),
        ])
    }
}

/// `did you mean x?`, or the names that there are.
pub(crate) fn suggest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let plain = |word: &str| word.replace('_', "").to_lowercase();
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&plain(word), &plain(candidate)), *candidate))
        .min_by_key(|(distance, _)| *distance)
        .filter(|(distance, _)| *distance <= (word.chars().count() / 3).max(1));
    match near {
        Some((_, candidate)) => format!("did you mean `{candidate}`?"),
        None if known.is_empty() => String::new(),
        None => format!("there are: {}", known.join(", ")),
    }
}
