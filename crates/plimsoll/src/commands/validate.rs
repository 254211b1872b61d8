//! `plimsoll validate`: checks policy files without a cluster.

use std::collections::BTreeSet;

use clap::Args;
use plimsoll_ledger::PolicyObject;
use plimsoll_policy::{Parsed, label};
use plimsoll_validators::Validators;

use super::apply_files::{FileArgs, Row, show};
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Checks policy files: syntax, kinds, fields, quantities, conditions, duplicates, and the validators that are in them.
#[derive(Args, Debug)]
pub(crate) struct Validate {
    #[command(flatten)]
    files: FileArgs,
}

impl Validate {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let parsed = self.files.load("not valid")?;
        check_rules(&parsed)?;
        let files: BTreeSet<&str> = parsed.iter().map(|parsed| parsed.place.file.as_str()).collect();
        let rows: Vec<Row> =
            parsed.iter().map(|parsed| Row::plain(parsed.object.name(), "valid", false)).collect();
        let out = globals.out();
        show(&out, &rows)?;
        out.done(&format!("Valid: objects {}, files {}", rows.len(), files.len()));
        Ok(Exit::Done)
    }
}

/// Every rule of the files' validators that an object of the files breaks.
fn check_rules(parsed: &[Parsed]) -> Result<(), CliError> {
    let rules = Validators::new(parsed.iter().filter_map(|parsed| match &parsed.object {
        PolicyObject::Validator(validator) => Some(validator),
        _ => None,
    }));
    let mut broken = Vec::new();
    for one in parsed {
        for rule in rules.of_object(&one.object) {
            let path = if rule.path.is_empty() { String::new() } else { format!("{}: ", rule.path) };
            let object = label(&one.object.name());
            broken.push((
                one.place.to_string(),
                format!("{object}: {path}{} (validator {})", rule.message, rule.validator),
            ));
        }
    }
    if broken.is_empty() {
        return Ok(());
    }
    let count = broken.len();
    let what =
        if count == 1 { "one rule does not hold".to_owned() } else { format!("{count} rules do not hold") };
    Err(CliError::new(Exit::Invalid, "VALIDATION_FAILED", what).asked("not valid").at(broken))
}
