//! What is wrong with an expression, and where.

use std::fmt;

/// Something that is wrong with an expression. Displayed as one line: place, message, help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Line in the expression, from 1.
    pub line: u32,
    /// Column in characters, from 1.
    pub column: u32,
    /// Characters that are meant, at least 1.
    pub width: u32,
    /// What is wrong.
    pub message: String,
    /// What would be right; may be empty.
    pub help: String,
}

impl Problem {
    /// Something wrong with the characters from `start` to before `end` of `text`.
    pub(crate) fn at(
        text: &[char],
        start: usize,
        end: usize,
        message: impl Into<String>,
        help: impl Into<String>,
    ) -> Problem {
        let start = start.min(text.len());
        let line = text[..start].iter().filter(|c| **c == '\n').count() + 1;
        let column = text[..start].iter().rev().take_while(|c| **c != '\n').count() + 1;
        let meant = text[start..end.clamp(start, text.len())].iter().take_while(|c| **c != '\n').count();
        let number = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
        Problem {
            line: number(line),
            column: number(column),
            width: number(meant.max(1)),
            message: message.into(),
            help: help.into(),
        }
    }

    /// Message and help in one sentence.
    pub fn sentence(&self) -> String {
        if self.help.is_empty() { self.message.clone() } else { format!("{}; {}", self.message, self.help) }
    }

    /// The problem below the line of `text` that it is in: the line, a marker, the help.
    pub fn show(&self, text: &str) -> String {
        let line = text.lines().nth(self.line as usize - 1).unwrap_or_default();
        let indent = " ".repeat(self.column as usize - 1);
        let marker = "^".repeat(self.width as usize);
        let mut shown = format!("{line}\n{indent}{marker} {}", self.message);
        if !self.help.is_empty() {
            shown.push_str(&format!("\nhelp: {}", self.help));
        }
        shown
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.line, self.column, self.sentence())
    }
}

impl std::error::Error for Problem {}
