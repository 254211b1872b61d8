//! The wall clock of one member jumps or runs wrongly (T1, T2).

use std::path::{Path, PathBuf};
use std::time::Duration;

use rand::Rng;

use super::{Failed, Nemesis, Strike, Struck, Who};
use crate::chaos::setup::Setup;
use crate::chaos::stage::Stage;

/// How long it is wrong, in milliseconds.
const LENGTH_MS: (u64, u64) = (3_000, 6_000);

#[derive(Clone, Copy)]
enum Kind {
    Jump,
    Drift,
}

struct Clock(Kind, &'static str);

/// Jump and drift.
pub(super) fn all() -> Vec<Box<dyn Nemesis>> {
    vec![Box::new(Clock(Kind::Jump, "clock-jump")), Box::new(Clock(Kind::Drift, "clock-drift"))]
}

/// Environment under which a process has the clock that `file` says.
///
/// # Errors
/// Where the library that does it is not there.
pub fn environment(file: &Path) -> Result<Vec<(String, String)>, String> {
    let library = library().ok_or("libfaketime is not installed")?;
    std::fs::write(file, "+0").map_err(|error| error.to_string())?;
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    Ok(vec![
        pair("LD_PRELOAD", &library.to_string_lossy()),
        pair("FAKETIME_TIMESTAMP_FILE", &file.to_string_lossy()),
        pair("FAKETIME_CACHE_DURATION", "1"),
        // Only the wall clock: a monotonic clock that jumps is broken beyond what a program can mend.
        pair("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
    ])
}

fn library() -> Option<PathBuf> {
    let folders =
        ["/usr/lib/x86_64-linux-gnu/faketime", "/usr/lib/aarch64-linux-gnu/faketime", "/usr/lib64/faketime"];
    folders.iter().map(|folder| Path::new(folder).join("libfaketimeMT.so.1")).find(|path| path.exists())
}

impl Nemesis for Clock {
    fn name(&self) -> &'static str {
        self.1
    }

    fn forbidden(&self, _setup: &Setup) -> Option<String> {
        library().is_none().then(|| "libfaketime is not installed".to_owned())
    }

    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a> {
        Box::pin(async move {
            let who = if stage.random.random_bool(0.6) { Who::Leader } else { Who::Follower };
            let id = who.pick(stage).await?;
            let Some(file) = stage.clocks.get(&id).cloned() else {
                return Ok(Struck {
                    target: format!("nobody: c{id} was started later, with an honest clock"),
                });
            };
            let wrong = match self.0 {
                Kind::Jump => {
                    ["+3600", "-3600", "+86400", "-86400", "+30", "-5"][stage.random.random_range(0..6)]
                }
                Kind::Drift => ["+0 x1.1", "+0 x0.9", "+0 x1.5"][stage.random.random_range(0..3)],
            };
            let write =
                |what: &str| std::fs::write(&file, what).map_err(|error| Failed::Harness(error.to_string()));
            write(wrong)?;
            let length: Duration = stage.between_ms(LENGTH_MS.0, LENGTH_MS.1);
            tokio::time::sleep(length).await;
            write("+0")?;
            Ok(Struck { target: format!("c{id} {wrong} for {} ms", length.as_millis()) })
        })
    }
}
