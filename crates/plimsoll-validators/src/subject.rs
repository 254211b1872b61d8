//! What validators look at.

use plimsoll_expr::{Names, Type};
use plimsoll_ledger::PolicyObject;

use crate::fields;

/// A kind of things that validators look at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Subject {
    /// A request for a reservation: `request.*`.
    Reservation,
    /// A pool: `pool.*`.
    Pool,
    /// A priority class: `class.*`.
    Class,
    /// Node limits: `limits.*`.
    NodeLimits,
    /// A queue: `queue.*`.
    Queue,
    /// Limits, budgets and rates of users: `quota.*`.
    Quota,
    /// A schedule: `schedule.*`.
    Schedule,
    /// A service: `service.*`.
    Service,
    /// A scaling policy: `scaling.*`.
    ScalingPolicy,
}

impl Subject {
    /// Every kind with the word that files have for it.
    pub const WORDS: [(&'static str, Subject); 9] = [
        ("Reservation", Subject::Reservation),
        ("Pool", Subject::Pool),
        ("Class", Subject::Class),
        ("NodeLimits", Subject::NodeLimits),
        ("Queue", Subject::Queue),
        ("Quota", Subject::Quota),
        ("Schedule", Subject::Schedule),
        ("Service", Subject::Service),
        ("ScalingPolicy", Subject::ScalingPolicy),
    ];

    /// The kind of a word.
    pub fn of_word(word: &str) -> Option<Subject> {
        Subject::WORDS.iter().find(|(known, _)| *known == word).map(|(_, subject)| *subject)
    }

    /// The kind of a policy object; `None` for validators, at which no rule looks.
    pub fn of_object(object: &PolicyObject) -> Option<Subject> {
        match object {
            PolicyObject::Pool(_) => Some(Subject::Pool),
            PolicyObject::Class(_) => Some(Subject::Class),
            PolicyObject::NodeLimits(_) => Some(Subject::NodeLimits),
            PolicyObject::Queue(_) => Some(Subject::Queue),
            PolicyObject::Quota(_) => Some(Subject::Quota),
            PolicyObject::Schedule(_) => Some(Subject::Schedule),
            PolicyObject::Service(_) => Some(Subject::Service),
            PolicyObject::ScalingPolicy(_) => Some(Subject::ScalingPolicy),
            PolicyObject::Validator(_) => None,
        }
    }

    /// True where things of this kind belong to pools or queues, so that a validator may name some.
    pub fn has_places(self) -> bool {
        !matches!(self, Subject::Class | Subject::NodeLimits)
    }

    /// What rules call a thing of this kind.
    pub fn variable(self) -> &'static str {
        match self {
            Subject::Reservation => "request",
            Subject::Pool => "pool",
            Subject::Class => "class",
            Subject::NodeLimits => "limits",
            Subject::Queue => "queue",
            Subject::Quota => "quota",
            Subject::Schedule => "schedule",
            Subject::Service => "service",
            Subject::ScalingPolicy => "scaling",
        }
    }

    /// The names that rules on this kind may use.
    pub fn names(self) -> Names {
        Names::new([(self.variable(), Type::Object(fields::names(self)))])
    }
}
