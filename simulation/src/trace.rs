//! The canonical trace: one line for each thing that happened, in order, and a hash over all of them.

use std::fmt::{self, Write as _};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::path::Path;

use parking_lot::Mutex;

/// What happened in a run. The same seed gives the same bytes.
pub struct Trace {
    inner: Mutex<Inner>,
}

struct Inner {
    hasher: blake3::Hasher,
    file: Option<BufWriter<File>>,
    lines: u64,
    line: String,
}

impl Trace {
    /// An empty trace, also written to `path` where one is given.
    ///
    /// # Errors
    /// Where the file cannot be made.
    pub fn new(path: Option<&Path>) -> io::Result<Trace> {
        let file = path.map(File::create).transpose()?.map(BufWriter::new);
        let inner = Inner { hasher: blake3::Hasher::new(), file, lines: 0, line: String::new() };
        Ok(Trace { inner: Mutex::new(inner) })
    }

    /// Adds a line: simulated milliseconds, and what happened then.
    pub fn add(&self, at_ms: u64, what: fmt::Arguments<'_>) {
        let mut inner = self.inner.lock();
        let Inner { hasher, file, lines, line } = &mut *inner;
        line.clear();
        writeln!(line, "{at_ms:>8} {what}").expect("a string takes everything");
        hasher.update(line.as_bytes());
        *lines += 1;
        if let Some(file) = file {
            // A full disk must not change the run; the hash still tells.
            let _ = file.write_all(line.as_bytes()).and_then(|()| file.flush());
        }
    }

    /// Hash over all lines so far, in hexadecimal, and how many there are.
    pub fn finish(&self) -> (String, u64) {
        let mut inner = self.inner.lock();
        if let Some(file) = &mut inner.file {
            let _ = file.flush();
        }
        (inner.hasher.finalize().to_hex().to_string(), inner.lines)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_lines_hash_equally_and_others_do_not() {
        let of = |what: &str| {
            let trace = Trace::new(None).expect("no file");
            trace.add(7, format_args!("{what}"));
            trace.finish()
        };
        assert_eq!(of("a"), of("a"));
        assert_ne!(of("a").0, of("b").0);
    }
}
