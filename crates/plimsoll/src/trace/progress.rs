//! How far a long run is: a bar on a terminal, a line now and then elsewhere. Always on stderr.

use std::io::IsTerminal as _;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Between two lines where stderr is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(5);

/// How far a run over rows is.
pub(crate) struct Progress {
    rows: usize,
    bar: Option<ProgressBar>,
    is_quiet: bool,
    told: Mutex<Instant>,
}

impl Progress {
    /// Nothing is done yet. With `is_quiet` nothing is said either.
    pub(crate) fn new(rows: usize, is_quiet: bool) -> Progress {
        let bar = (!is_quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::with_draw_target(Some(rows as u64), ProgressDrawTarget::stderr());
            match ProgressStyle::with_template("{bar:40} {pos}/{len} rows  {per_sec}  {eta} left") {
                Ok(style) => bar.with_style(style),
                Err(_) => bar,
            }
        });
        Progress { rows, bar, is_quiet, told: Mutex::new(Instant::now()) }
    }

    /// So many rows are done.
    pub(crate) fn at(&self, done: usize) {
        if let Some(bar) = &self.bar {
            bar.set_position(done as u64);
            return;
        }
        if self.is_quiet {
            return;
        }
        let mut told = self.told.lock().expect("nothing panics while it is held");
        if told.elapsed() >= LINE_EVERY {
            *told = Instant::now();
            eprintln!("{done} of {} rows", self.rows);
        }
    }

    /// The run is over.
    pub(crate) fn end(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
