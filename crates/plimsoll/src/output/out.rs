//! `Out`: where results go, and in which form.

use std::io::{IsTerminal as _, Write as _};

use clap::ValueEnum;
use serde_json::Value;

use super::table::{self, Shown, View};
use super::{Paint, now_ms};
use crate::args::Globals;
use crate::error::CliError;

/// Form of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns
    #[default]
    Table,
    /// Aligned columns, all of them
    Wide,
    /// One JSON document
    Json,
    /// One JSON document a line
    Jsonl,
    /// YAML
    Yaml,
    /// Names alone, one a line
    Name,
    /// Comma-separated values with a header
    Csv,
}

/// What names a document, the first that it has.
const NAMING: [&str; 8] = [
    "id",
    "name",
    "object.id",
    "object.name",
    "object.metadata.name",
    "reservation.id",
    "address",
    "version",
];

/// When to use colour.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorChoice {
    /// On terminals
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// What stands below a list on a terminal.
#[derive(Clone, Debug, Default)]
pub(crate) struct Footer {
    /// What was listed, in the plural.
    pub(crate) noun: String,
    /// What was left out, in words; may be empty.
    pub(crate) filter: String,
    /// Revision that the list shows.
    pub(crate) revision: u64,
    /// Age of a stale read in milliseconds.
    pub(crate) age_ms: u64,
    /// What to try next; may be empty.
    pub(crate) hint: String,
}

/// Where results go, and in which form.
#[derive(Clone, Debug)]
pub(crate) struct Out {
    /// Form of the output.
    pub(crate) format: Format,
    /// stdout is a terminal.
    pub(crate) stdout_tty: bool,
    /// stderr is a terminal.
    pub(crate) stderr_tty: bool,
    /// Colours and signs for stderr.
    pub(crate) paint: Paint,
    columns: Vec<String>,
    no_headers: bool,
    quiet: bool,
    utc: bool,
}

impl Out {
    /// As the options say.
    pub(crate) fn new(globals: &Globals) -> Out {
        let stderr_tty = std::io::stderr().is_terminal();
        Out {
            format: globals.output,
            stdout_tty: std::io::stdout().is_terminal(),
            stderr_tty,
            paint: Paint { color: use_color(globals.color, stderr_tty), unicode: Paint::unicode_locale() },
            columns: globals.columns.clone(),
            no_headers: globals.no_headers,
            quiet: globals.quiet,
            utc: globals.utc,
        }
    }

    /// What cells depend on.
    pub(crate) fn view(&self) -> View {
        View { now_ms: now_ms(), utc: self.utc }
    }

    /// True for the forms that people read.
    pub(crate) fn is_human(&self) -> bool {
        matches!(self.format, Format::Table | Format::Wide)
    }

    /// Says something on stderr.
    pub(crate) fn say(&self, line: &str) {
        if !self.quiet {
            eprintln!("{line}");
        }
    }

    /// Says on stderr that something was done.
    pub(crate) fn done(&self, line: &str) {
        self.say(&format!("{} {line}", self.paint.done()));
    }

    /// Says on stderr what must not be missed, with `--quiet` too.
    pub(crate) fn remark(&self, line: &str) {
        eprintln!("{line}");
    }

    /// Writes a list.
    pub(crate) fn list<T: Shown>(&self, items: &[T], footer: Option<&Footer>) -> Result<(), CliError> {
        let text = self.render(items)?;
        if let Some(footer) = footer.filter(|_| items.is_empty() && self.is_human()) {
            self.say(&format!("no {}", footer.noun));
        }
        self.emit(&text)?;
        if let Some(footer) = footer.filter(|_| self.stdout_tty && self.is_human() && !items.is_empty()) {
            self.say(&self.paint.faint(&self.footer(items.len(), footer)));
        }
        Ok(())
    }

    /// Writes one thing.
    pub(crate) fn one<T: Shown>(&self, item: &T) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(&item.json()),
            Format::Jsonl => self.emit(&format!("{}\n", item.json())),
            Format::Yaml => self.yaml(&item.json()),
            Format::Table | Format::Wide | Format::Name | Format::Csv => {
                let text = self.render(std::slice::from_ref(item))?;
                self.emit(&text)
            }
        }
    }

    /// Writes a document that has no columns: tables show it as YAML, CSV as one row with a column for each value, named by its
    /// path.
    pub(crate) fn document(&self, value: &Value) -> Result<(), CliError> {
        match self.format {
            Format::Json => self.json(value),
            Format::Jsonl => self.emit(&format!("{value}\n")),
            Format::Table | Format::Wide | Format::Yaml => self.yaml(value),
            Format::Name | Format::Csv => {
                let mut cells = Vec::new();
                table::flatten(value, "", &mut cells);
                if self.format == Format::Name {
                    let named = NAMING.iter().find_map(|name| cells.iter().find(|(key, _)| key == name));
                    let text = named.or_else(|| cells.first()).map(|(_, text)| format!("{text}\n"));
                    return self.emit(&text.unwrap_or_default());
                }
                let (header, row): (Vec<String>, Vec<String>) = cells.into_iter().unzip();
                self.emit(&table::csv(Some(header).filter(|_| !self.no_headers), vec![row])?)
            }
        }
    }

    /// The text of a list.
    pub(crate) fn render<T: Shown>(&self, items: &[T]) -> Result<String, CliError> {
        // A column that does not exist is a slip in every form, used or not.
        let columns = table::choose::<T>(&self.columns, self.format != Format::Table)?;
        let documents = || Value::Array(items.iter().map(Shown::json).collect());
        match self.format {
            Format::Json => pretty(&documents()),
            Format::Jsonl => Ok(items.iter().map(|item| format!("{}\n", item.json())).collect()),
            Format::Yaml => as_yaml(&documents()),
            Format::Name => Ok(items.iter().map(|item| format!("{}\n", item.id())).collect()),
            Format::Table | Format::Wide | Format::Csv => {
                let is_csv = self.format == Format::Csv;
                let name = |name: &str| {
                    if is_csv { name.to_lowercase().replace([' ', '-'], "_") } else { name.to_owned() }
                };
                let header = columns.iter().map(|column| name(column.name)).collect();
                let header = Some(header).filter(|_| !self.no_headers && (is_csv || !items.is_empty()));
                let rows = table::cells(items, &columns, &self.view());
                if is_csv { table::csv(header, rows) } else { Ok(table::aligned(header, rows)) }
            }
        }
    }

    /// Writes a JSON document.
    pub(crate) fn json(&self, value: &Value) -> Result<(), CliError> {
        self.emit(&pretty(value)?)
    }

    fn yaml(&self, value: &Value) -> Result<(), CliError> {
        self.emit(&as_yaml(value)?)
    }

    /// Writes to stdout. A reader that went away ends the process quietly, as it does for other tools.
    pub(crate) fn emit(&self, text: &str) -> Result<(), CliError> {
        let mut stdout = std::io::stdout().lock();
        match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
            Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => std::process::exit(0),
            outcome => outcome.map_err(|error| CliError::local("cannot write to stdout", error)),
        }
    }

    fn footer(&self, count: usize, footer: &Footer) -> String {
        let freshness = if footer.age_ms > 0 {
            format!("up to {}ms old", footer.age_ms)
        } else {
            "linearizable".to_owned()
        };
        let mut parts = vec![format!("{count} {}", footer.noun)];
        parts.extend(Some(footer.filter.clone()).filter(|filter| !filter.is_empty()));
        parts.extend([format!("revision {}", footer.revision), freshness]);
        parts.extend(Some(footer.hint.clone()).filter(|hint| !hint.is_empty()));
        parts.join(&format!(" {} ", self.paint.dot()))
    }
}

fn pretty(value: &Value) -> Result<String, CliError> {
    let text =
        serde_json::to_string_pretty(value).map_err(|error| CliError::local("cannot write JSON", error))?;
    Ok(text + "\n")
}

fn as_yaml(value: &Value) -> Result<String, CliError> {
    let mut text =
        serde_saphyr::to_string(value).map_err(|error| CliError::local("cannot write YAML", error))?;
    if !text.ends_with('\n') {
        text.push('\n');
    }
    Ok(text)
}

fn use_color(choice: ColorChoice, tty: bool) -> bool {
    let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty() && value != "0");
    match choice {
        ColorChoice::Always => true,
        ColorChoice::Never => false,
        ColorChoice::Auto if set("NO_COLOR") => false,
        ColorChoice::Auto if set("CLICOLOR_FORCE") => true,
        ColorChoice::Auto => {
            let dumb = std::env::var_os("TERM").is_some_and(|term| term == "dumb");
            let off = std::env::var_os("CLICOLOR").is_some_and(|value| value == "0");
            tty && !dumb && !off
        }
    }
}
