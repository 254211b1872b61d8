//! Validators as rows.

use plimsoll_client::v1::Validator;
use serde_json::Value;

use super::document;
use crate::output::{Column, Shown};

impl Shown for Validator {
    const COLUMNS: &'static [Column<Validator>] = &[
        Column::new("VALIDATOR", |v, _| v.name.clone()),
        Column::new("FOR", |v, _| v.subject.clone()),
        Column::new("MATCH", |v, _| {
            let pools = v.pools.iter().map(|name| format!("pool {name}"));
            let queues = v.queues.iter().map(|name| format!("queue {name}"));
            let all: Vec<String> = pools.chain(queues).collect();
            if all.is_empty() { "all".to_owned() } else { all.join(", ") }
        }),
        Column::new("RULES", |v, _| v.rules.len().to_string()),
        Column::wide("EXPRESSIONS", |v, _| {
            v.rules.iter().map(|rule| rule.expression.clone()).collect::<Vec<_>>().join("; ")
        }),
        Column::wide("REVISION", |v, _| v.revision.to_string()),
    ];

    fn id(&self) -> String {
        self.name.clone()
    }

    fn json(&self) -> Value {
        document(self)
    }
}
