//! What validators look at, and the names that their rules may use for it.

use plimsoll_expr::{Names, Type, Unit};
use plimsoll_ledger::PolicyObject;

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
}

impl Subject {
    /// Every kind with the word that files have for it.
    pub const WORDS: [(&'static str, Subject); 5] = [
        ("Reservation", Subject::Reservation),
        ("Pool", Subject::Pool),
        ("Class", Subject::Class),
        ("NodeLimits", Subject::NodeLimits),
        ("Queue", Subject::Queue),
    ];

    /// The kind of a word.
    pub fn of_word(word: &str) -> Option<Subject> {
        Subject::WORDS.iter().find(|(known, _)| *known == word).map(|(_, subject)| *subject)
    }

    /// The kind of a policy object; `None` where no rule looks at it.
    pub fn of_object(object: &PolicyObject) -> Option<Subject> {
        match object {
            PolicyObject::Pool(_) => Some(Subject::Pool),
            PolicyObject::Class(_) => Some(Subject::Class),
            PolicyObject::NodeLimits(_) => Some(Subject::NodeLimits),
            PolicyObject::Queue(_) => Some(Subject::Queue),
            _ => None,
        }
    }

    /// True where things of this kind belong to pools and queues, so that a validator may name some.
    pub fn has_places(self) -> bool {
        matches!(self, Subject::Reservation | Subject::Pool | Subject::Queue)
    }

    /// What rules call a thing of this kind.
    pub fn variable(self) -> &'static str {
        match self {
            Subject::Reservation => "request",
            Subject::Pool => "pool",
            Subject::Class => "class",
            Subject::NodeLimits => "limits",
            Subject::Queue => "queue",
        }
    }

    /// The names that rules on this kind may use.
    pub fn names(self) -> Names {
        Names::new([(self.variable(), Type::Object(Names::new(self.fields())))])
    }

    fn fields(self) -> Vec<(&'static str, Type)> {
        let number = Type::Number;
        let texts = || Type::Map(Box::new(Type::Text));
        let amounts = || Type::Map(Box::new(number(Unit::Plain)));
        let list = || Type::List(Box::new(Type::Text));
        match self {
            Subject::Reservation => vec![
                ("name", Type::Text),
                ("pool", Type::Text),
                ("class", Type::Text),
                ("queue", Type::Text),
                ("tenant", Type::Text),
                ("labels", texts()),
                ("cpu", number(Unit::Cores)),
                ("memory", number(Unit::Bytes)),
                ("gpu", number(Unit::Plain)),
                ("gpu_memory", number(Unit::Bytes)),
                ("gpu_models", list()),
                ("other", amounts()),
                ("members", number(Unit::Plain)),
                ("min_members", number(Unit::Plain)),
                ("spread", Type::Bool),
                ("ttl", number(Unit::Seconds)),
                ("hold", number(Unit::Seconds)),
                ("max_duration", number(Unit::Seconds)),
                ("waits", Type::Bool),
                ("wait", number(Unit::Seconds)),
            ],
            Subject::Pool => vec![
                ("name", Type::Text),
                ("labels", texts()),
                ("strategy", Type::Text),
                ("queue_order", Type::Text),
                ("fairness", Type::Text),
                ("price", number(Unit::Plain)),
                ("max_pending", number(Unit::Plain)),
                ("countables", amounts()),
            ],
            Subject::Class => vec![
                ("name", Type::Text),
                ("priority", number(Unit::Plain)),
                ("preemptible", Type::Bool),
                ("default_ttl", number(Unit::Seconds)),
            ],
            Subject::NodeLimits => vec![
                ("name", Type::Text),
                ("cpu", number(Unit::Cores)),
                ("memory", number(Unit::Bytes)),
                ("other", amounts()),
            ],
            Subject::Queue => vec![
                ("name", Type::Text),
                ("labels", texts()),
                ("parent", Type::Text),
                ("weight", number(Unit::Plain)),
                ("max_pending", number(Unit::Plain)),
                ("pools", list()),
                ("cpu", number(Unit::Cores)),
                ("memory", number(Unit::Bytes)),
                ("gpu", number(Unit::Plain)),
            ],
        }
    }
}
