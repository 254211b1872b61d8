//! Rows and columns: what a thing shows of itself, and tables and CSV made of it.

use serde_json::Value;

use crate::error::CliError;

/// Something that can be shown in every form.
pub(crate) trait Shown: Sized + 'static {
    /// Columns, in their order.
    const COLUMNS: &'static [Column<Self>];

    /// What other commands take for it: a name or an id.
    fn id(&self) -> String;

    /// The document, in proto3 JSON.
    fn json(&self) -> Value;
}

/// One column.
pub(crate) struct Column<T: 'static> {
    /// Header, upper case.
    pub(crate) name: &'static str,
    /// Only with `-o wide`, CSV or by name.
    pub(crate) wide: bool,
    /// The cell.
    pub(crate) cell: fn(&T, &View) -> String,
}

/// What cells depend on beside their object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View {
    /// The present, in milliseconds since the Unix epoch.
    pub(crate) now_ms: u64,
    /// Times in UTC.
    pub(crate) utc: bool,
}

impl<T> Column<T> {
    /// A column of every table.
    pub(crate) const fn new(name: &'static str, cell: fn(&T, &View) -> String) -> Column<T> {
        Column { name, wide: false, cell }
    }

    /// A column of wide tables.
    pub(crate) const fn wide(name: &'static str, cell: fn(&T, &View) -> String) -> Column<T> {
        Column { name, wide: true, cell }
    }
}

/// The columns that were asked for, or those of the form.
pub(crate) fn choose<T: Shown>(names: &[String], wide: bool) -> Result<Vec<&'static Column<T>>, CliError> {
    if names.is_empty() {
        return Ok(T::COLUMNS.iter().filter(|column| wide || !column.wide).collect());
    }
    let plain = |name: &str| name.trim().to_lowercase().replace([' ', '_'], "-");
    let find = |name: &String| T::COLUMNS.iter().find(|column| plain(column.name) == plain(name));
    names
        .iter()
        .map(|name| {
            find(name).ok_or_else(|| {
                let known: Vec<String> = T::COLUMNS.iter().map(|column| plain(column.name)).collect();
                CliError::usage(format!("there is no column {name:?}"))
                    .help(format!("there are: {}", known.join(", ")))
            })
        })
        .collect()
}

/// Cells of all rows.
pub(crate) fn cells<T: Shown>(items: &[T], columns: &[&Column<T>], view: &View) -> Vec<Vec<String>> {
    items.iter().map(|item| columns.iter().map(|column| (column.cell)(item, view)).collect()).collect()
}

/// An aligned table; an empty cell is a dash, so that columns can be counted.
pub(crate) fn aligned(header: Option<Vec<String>>, rows: Vec<Vec<String>>) -> String {
    let dashed = |cell: String| if cell.is_empty() { "-".to_owned() } else { cell };
    let lines: Vec<Vec<String>> =
        header.into_iter().chain(rows.into_iter().map(|row| row.into_iter().map(dashed).collect())).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let width =
        |column: usize| lines.iter().filter_map(|line| line.get(column)).map(|c| c.chars().count()).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let mut text = String::new();
    for line in &lines {
        let padded: Vec<String> = line
            .iter()
            .zip(&widths)
            .map(|(cell, width)| format!("{cell}{}", " ".repeat(width - cell.chars().count())))
            .collect();
        text.push_str(padded.join("  ").trim_end());
        text.push('\n');
    }
    text
}

/// Every value of a document with its path, as in `spec.wait.queue` and `blockers.0.asked`.
pub(crate) fn flatten(value: &Value, path: &str, cells: &mut Vec<(String, String)>) {
    let inner = |key: &str| if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
    match value {
        Value::Object(fields) => fields.iter().for_each(|(key, field)| flatten(field, &inner(key), cells)),
        Value::Array(items) => {
            items
                .iter()
                .enumerate()
                .for_each(|(index, item)| flatten(item, &inner(&index.to_string()), cells));
        }
        Value::String(text) => cells.push((path.to_owned(), text.clone())),
        Value::Null => cells.push((path.to_owned(), String::new())),
        other => cells.push((path.to_owned(), other.to_string())),
    }
}

/// Comma-separated values.
pub(crate) fn csv(header: Option<Vec<String>>, rows: Vec<Vec<String>>) -> Result<String, CliError> {
    let failed = |error: &dyn std::fmt::Display| CliError::local("cannot write CSV", error);
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in header.into_iter().chain(rows) {
        writer.write_record(&record).map_err(|error| failed(&error))?;
    }
    let bytes = writer.into_inner().map_err(|error| failed(&error))?;
    String::from_utf8(bytes).map_err(|error| failed(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn documents_become_paths_with_values() {
        let mut cells = Vec::new();
        flatten(&serde_json::json!({ "a": { "b": [1, "x"] }, "c": null }), "", &mut cells);
        let cells: Vec<String> = cells.iter().map(|(path, text)| format!("{path}={text}")).collect();
        assert_eq!(cells, ["a.b.0=1", "a.b.1=x", "c="]);
    }

    #[test]
    fn tables_are_aligned_without_trailing_blanks() {
        let header = vec!["NODE".to_owned(), "STATE".to_owned()];
        let rows = vec![vec!["node-01".to_owned(), String::new()], vec!["n".to_owned(), "ready".to_owned()]];
        assert_eq!(aligned(Some(header), rows), "NODE     STATE\nnode-01  -\nn        ready\n");
        assert_eq!(aligned(None, Vec::new()), "");
    }
}
