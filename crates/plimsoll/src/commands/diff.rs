//! `plimsoll diff`: what applying files would change, field by field.

use clap::Args;
use plimsoll_ledger::PolicyObject;
use plimsoll_policy::{label, to_yaml};
use similar::TextDiff;

use super::apply_files::{FileArgs, Row, live, show};
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::Format;

/// Shows how files differ from what the cluster has.
#[derive(Args, Debug)]
pub(crate) struct Diff {
    #[command(flatten)]
    files: FileArgs,
    /// End with 10 where there are differences
    #[arg(long, visible_alias = "detailed-exitcode")]
    exit_code: bool,
}

impl Diff {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let parsed = self.files.load("cannot compare")?;
        let names: Vec<_> = parsed.iter().map(|parsed| parsed.object.name()).collect();
        let live = live(&globals.client()?, globals.consistency(), &names).await?;
        let rows: Vec<Row> = parsed
            .iter()
            .map(|parsed| Row::of_change(live.get(&parsed.object.name()), &parsed.object, true))
            .collect();
        let out = globals.out();
        if out.format == Format::Table {
            for (parsed, row) in parsed.iter().zip(&rows).filter(|(_, row)| row.is_change()) {
                let there = live.get(&parsed.object.name());
                out.emit(&unified(there, &parsed.object, &parsed.place.to_string(), row.result()))?;
            }
        } else {
            show(&out, &rows)?;
        }
        let differ = rows.iter().filter(|row| row.is_change()).count();
        out.say(&match differ {
            0 => format!("no difference in {} objects", rows.len()),
            _ => format!("{differ} of {} objects differ", rows.len()),
        });
        Ok(if differ > 0 && self.exit_code { Exit::Changes } else { Exit::Done })
    }
}

/// The difference in the form of `diff -u`, between both canonical forms.
fn unified(old: Option<&PolicyObject>, new: &PolicyObject, place: &str, result: &str) -> String {
    let name = label(&new.name());
    let (before, after) = (old.map(|old| to_yaml([old])).unwrap_or_default(), to_yaml([new]));
    let from = if result == "created" { "/dev/null".to_owned() } else { format!("cluster/{name}") };
    TextDiff::from_lines(before.as_str(), after.as_str())
        .unified_diff()
        .context_radius(3)
        .header(&from, &format!("{name}\t{place}"))
        .to_string()
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{Class, Pool, Strategy};

    use super::*;

    #[test]
    fn differences_are_those_of_the_canonical_form() {
        let old = PolicyObject::Pool(Pool { name: "gpu".into(), ..Pool::default() });
        let new =
            PolicyObject::Pool(Pool { name: "gpu".into(), strategy: Strategy::WorstFit, ..Pool::default() });
        let text = unified(Some(&old), &new, "p.yaml:1:1", "configured");
        assert!(text.starts_with("--- cluster/pool/gpu\n+++ pool/gpu\tp.yaml:1:1\n@@ "), "{text}");
        assert!(text.contains("-  strategy: best_fit\n+  strategy: worst_fit\n"), "{text}");
        let class = PolicyObject::Class(Class { name: "c".into(), ..Class::default() });
        let text = unified(None, &class, "p.yaml:1:1", "created");
        assert!(text.starts_with("--- /dev/null\n") && text.contains("+kind: Class\n"), "{text}");
    }
}
