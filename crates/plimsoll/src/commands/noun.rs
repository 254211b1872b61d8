//! Nouns: singular, plural and short names of the kinds of things.

use std::str::FromStr;

use plimsoll_client::v1::ObjectKind;

/// A kind of thing that can be shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Noun {
    Node,
    Device,
    Pool,
    Reservation,
    Class,
    Limits,
    Queue,
    Quota,
    Validator,
    Schedule,
    Service,
    Scaling,
    Contention,
    Endpoint,
    Member,
    Event,
}

/// Names of each kind: first the plural, as lists are called.
const NAMES: [(Noun, &[&str]); 16] = [
    (Noun::Node, &["nodes", "node", "no"]),
    (Noun::Device, &["devices", "device", "gpus", "gpu"]),
    (Noun::Pool, &["pools", "pool", "po"]),
    (Noun::Reservation, &["reservations", "reservation", "rsv", "r", "requests", "request", "req"]),
    (Noun::Class, &["classes", "class"]),
    (Noun::Limits, &["limits", "limit", "nodelimits", "nodelimit", "node-limits"]),
    (Noun::Queue, &["queues", "queue", "qu"]),
    (Noun::Quota, &["quotas", "quota", "budgets", "budget"]),
    (Noun::Validator, &["validators", "validator", "rules"]),
    (Noun::Schedule, &["schedules", "schedule", "sched"]),
    (Noun::Service, &["services", "service", "svc"]),
    (Noun::Scaling, &["scaling", "scalingpolicy", "scalingpolicies", "autoscaler"]),
    (Noun::Contention, &["contentions", "contention", "con"]),
    (Noun::Endpoint, &["endpoints", "endpoint", "ep"]),
    (Noun::Member, &["members", "member", "coordinators", "coordinator"]),
    (Noun::Event, &["events", "event", "ev"]),
];

impl Noun {
    /// The plural.
    pub(crate) fn plural(self) -> &'static str {
        NAMES.iter().find(|(noun, _)| *noun == self).map_or("", |(_, names)| names[0])
    }

    /// The kind in events; `None` where events are not about it.
    pub(crate) fn kind(self) -> Option<ObjectKind> {
        match self {
            Noun::Node | Noun::Device => Some(ObjectKind::Node),
            Noun::Pool => Some(ObjectKind::Pool),
            Noun::Reservation => Some(ObjectKind::Reservation),
            Noun::Class => Some(ObjectKind::Class),
            Noun::Limits => Some(ObjectKind::NodeLimits),
            Noun::Queue => Some(ObjectKind::Queue),
            Noun::Quota => Some(ObjectKind::Quota),
            Noun::Validator => Some(ObjectKind::Validator),
            Noun::Schedule => Some(ObjectKind::Schedule),
            Noun::Service => Some(ObjectKind::Service),
            Noun::Scaling => Some(ObjectKind::Scaling),
            Noun::Contention => Some(ObjectKind::Contention),
            // What changes of an endpoint is its reservation.
            Noun::Endpoint => None,
            Noun::Member => Some(ObjectKind::Cluster),
            Noun::Event => None,
        }
    }
}

impl FromStr for Noun {
    type Err = String;

    fn from_str(text: &str) -> Result<Noun, String> {
        let word = text.to_lowercase();
        let found = NAMES.iter().find(|(_, names)| names.contains(&word.as_str()));
        found.map(|(noun, _)| *noun).ok_or_else(|| {
            let plurals: Vec<&str> = NAMES.iter().map(|(_, names)| names[0]).collect();
            let all: Vec<&str> = NAMES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
            let near = plimsoll_policy::nearest(&word, &all).and_then(|name| name.parse::<Noun>().ok());
            let meant =
                near.map(Noun::plural).map_or_else(String::new, |noun| format!(" (did you mean {noun}?)"));
            format!("there is no kind of thing of that name{meant}; there are: {}", plurals.join(", "))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn singular_plural_and_short_names_are_one() {
        for text in ["node", "nodes", "no", "Nodes"] {
            assert_eq!(text.parse(), Ok(Noun::Node));
        }
        assert_eq!("r".parse(), Ok(Noun::Reservation));
        assert!("nod".parse::<Noun>().unwrap_err().contains("did you mean nodes?"));
        assert!(!"colour".parse::<Noun>().unwrap_err().contains("did you mean"));
        let mut all: Vec<&str> = NAMES.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let count = all.len();
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), count, "no name means two things");
    }
}
