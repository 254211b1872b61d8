//! Places in files, and problems that name them.

use std::fmt;

/// A file's name and text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// What to call it in messages: a path, or `stdin`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// Name of the source.
    pub file: String,
    /// Line, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
}

/// Something that is wrong with a file. Displayed in two or three lines: place and message, the line, a marker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// What is wrong, and what would be right.
    pub message: String,
    /// The line, as it is written; empty where the file has no such line.
    line: String,
    /// Characters that are meant, at least 1.
    width: usize,
}

/// A stretch of one line.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Line, from 1.
    pub(crate) line: u32,
    /// Column in characters, from 1.
    pub(crate) column: u32,
    /// Characters from there.
    pub(crate) width: u32,
}

/// Longest line that is shown whole, in characters.
const MAX_LINE: usize = 160;

impl Problem {
    pub(crate) fn new(source: &Source, mark: Mark, message: impl Into<String>) -> Problem {
        let line = source.text.lines().nth((mark.line as usize).saturating_sub(1)).unwrap_or_default();
        Problem {
            place: mark.place(source),
            message: message.into(),
            line: line.trim_end().to_owned(),
            width: (mark.width as usize).max(1),
        }
    }
}

impl Mark {
    pub(crate) fn place(self, source: &Source) -> Place {
        Place { file: source.name.clone(), line: self.line, column: self.column }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}:{}", self.file, self.line, self.column)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)?;
        let (number, before) = (self.place.line.to_string(), (self.place.column as usize).saturating_sub(1));
        if self.line.trim().is_empty() || before >= MAX_LINE {
            return Ok(());
        }
        let shown: String = self.line.chars().take(MAX_LINE).collect();
        // A tab is as wide as the reader's terminal has it: the marker's line begins with the same tabs.
        let indent: String = shown.chars().take(before).map(|c| if c == '\t' { '\t' } else { ' ' }).collect();
        let width = self.width.min(shown.chars().count().saturating_sub(before)).max(1);
        write!(f, "\n  {number} | {shown}")?;
        write!(f, "\n  {} | {indent}{}", " ".repeat(number.len()), "^".repeat(width))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_shows_its_line_with_a_marker() {
        let source = Source { name: "a.yaml".into(), text: "kind: Pool\n  \tspec: élan  \n".into() };
        let show =
            |line, column, width| Problem::new(&source, Mark { line, column, width }, "no").to_string();
        assert_eq!(show(2, 10, 4), "a.yaml:2:10: no\n  2 |   \tspec: élan\n    |   \t      ^^^^");
        assert_eq!(show(2, 10, 99), show(2, 10, 4), "not past the end of the line");
        assert_eq!(show(9, 1, 1), "a.yaml:9:1: no", "no such line");
    }
}
