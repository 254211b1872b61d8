//! Schedules: what the calendar keeps, when, and for whom.

use plimsoll_expr::{Unit, Value};
use plimsoll_ledger::{GPU, Schedule};

use super::{Field, amount, cpu, flag, labels, list, memory, number, numbers, other, text, texts, words};

pub(super) fn fields() -> Vec<Field<Schedule>> {
    vec![
        text("name", |of| Value::text(&of.name)),
        words("labels", |of| labels(&of.labels)),
        text("pool", |of| Value::text(&of.pool)),
        text("rule", |of| Value::text(&of.rule)),
        flag("always", |of| Value::Bool(of.rule == "always")),
        number("cpu", Unit::Cores, |of| cpu(&of.resources)),
        number("memory", Unit::Bytes, |of| memory(&of.resources)),
        number("gpu", Unit::Plain, |of| Value::milli(amount(&of.resources, GPU))),
        numbers("other", |of| other(&of.resources)),
        flag("shorten", |of| Value::Bool(of.shorten)),
        list("pipelines", |of| texts(&of.users.pipelines)),
        list("queues", |of| texts(&of.users.queues)),
        list("tenants", |of| texts(&of.users.tenants)),
        list("classes", |of| texts(&of.users.classes)),
    ]
}
