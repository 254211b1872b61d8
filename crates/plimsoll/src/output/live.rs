//! A line on a terminal that is written over as things move.

use std::io::Write as _;

use super::Out;

/// A line on stderr that is written over; on anything but a terminal each new text is a line of its own.
#[derive(Debug)]
pub(crate) struct StatusLine {
    out: Out,
    shown: String,
}

impl StatusLine {
    /// Nothing is shown yet.
    pub(crate) fn new(out: &Out) -> StatusLine {
        StatusLine { out: out.clone(), shown: String::new() }
    }

    /// Shows this; `stable` is the part of it that is worth a new line where lines cannot be written over.
    pub(crate) fn show(&mut self, text: &str, stable: &str) {
        if self.out.stderr_tty {
            let mut stderr = std::io::stderr().lock();
            // A terminal that is gone is no reason to stop.
            let _ = write!(stderr, "\r\u{1b}[2K{text}").and_then(|()| stderr.flush());
            self.shown = text.to_owned();
        } else if self.shown != stable {
            self.out.say(text);
            self.shown = stable.to_owned();
        }
    }

    /// Takes it away.
    pub(crate) fn clear(&mut self) {
        if self.out.stderr_tty && !self.shown.is_empty() {
            let mut stderr = std::io::stderr().lock();
            let _ = write!(stderr, "\r\u{1b}[2K").and_then(|()| stderr.flush());
        }
        self.shown.clear();
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.clear();
    }
}
