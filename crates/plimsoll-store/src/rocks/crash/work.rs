//! A writer whose every step follows from a seed, so that whoever looks afterwards knows what has to be there.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc;

use bytes::Bytes;

use crate::log_state::LogState;
use crate::rocks::{RocksEngine, RocksWal, RocksWalOptions};
use crate::sim::Rng;
use crate::{Engine as _, Error, Loaded, Op, Wal as _, WriteBatch, failpoint};

pub(super) const DIR: &str = "PLIMSOLL_CRASH_DIR";
pub(super) const PLAN: &str = "PLIMSOLL_CRASH_PLAN";

/// The steps of one seed. Step `n` ends with a vote for `n`, so that a log says itself how far it is.
pub(super) struct Steps {
    seed: u64,
    pub(super) next: u64,
    last: u64,
    purged: u64,
    pub(super) log: LogState,
    pub(super) rows: BTreeMap<Bytes, Bytes>,
}

/// What one step does.
pub(super) struct Step {
    pub(super) ops: Vec<Op>,
    pub(super) rows: WriteBatch,
    pub(super) replace: bool,
    pub(super) sync: bool,
}

impl Steps {
    pub(super) fn new(seed: u64) -> Steps {
        let (log, rows) = (LogState::default(), BTreeMap::new());
        Steps { seed, next: 1, last: 0, purged: 0, log, rows }
    }

    /// The models after step `number`.
    pub(super) fn after(seed: u64, number: u64) -> Steps {
        let mut steps = Steps::new(seed);
        while steps.next <= number {
            steps.step();
        }
        steps
    }

    /// The next step, which the models have made then.
    pub(super) fn step(&mut self) -> Step {
        let number = self.next;
        self.next += 1;
        let mut rng = Rng::new(self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ number);
        let mut ops = Vec::new();
        match rng.between(0, 9) {
            0 if self.last > self.purged => {
                let from = rng.between(self.purged + 1, self.last);
                ops.push(Op::TruncateFrom { index: from });
                self.last = from - 1;
                self.put(&mut ops, &mut rng);
            }
            1 if self.last > self.purged => {
                self.purged = rng.between(self.purged + 1, self.last);
                ops.push(Op::PurgeTo { index: self.purged, marker: vec![7; 5].into() });
            }
            2 => ops.push(Op::Committed { bytes: number.to_be_bytes().to_vec().into() }),
            _ => self.put(&mut ops, &mut rng),
        }
        ops.push(Op::Vote { bytes: number.to_be_bytes().to_vec().into() });
        ops.iter().for_each(|op| self.log.apply(op));

        let replace = number.is_multiple_of(23);
        let mut rows = WriteBatch::new();
        for _ in 0..rng.between(1, 6) {
            let key = format!("row-{}", rng.between(0, 40));
            match rng.between(0, 5) {
                0 => rows.delete(key),
                _ => rows.put(key, noise(&mut rng, 1_500)),
            }
        }
        rows.put("step", number.to_be_bytes().to_vec());
        if replace {
            self.rows.clear();
        }
        for (key, value) in &rows.ops {
            match value {
                Some(value) => drop(self.rows.insert(key.clone(), value.clone())),
                None => drop(self.rows.remove(key)),
            }
        }
        Step { ops, rows, replace, sync: number.is_multiple_of(7) }
    }

    fn put(&mut self, ops: &mut Vec<Op>, rng: &mut Rng) {
        for _ in 0..rng.between(1, 5) {
            self.last += 1;
            ops.push(Op::Put { index: self.last, bytes: noise(rng, 4_000) });
        }
    }

    pub(super) fn loaded(&self) -> Loaded {
        self.log.load(Path::new("model")).expect("a model is whole")
    }
}

/// Bytes that do not compress, or files would be too small to be hit.
fn noise(rng: &mut Rng, most: u64) -> Bytes {
    (0..rng.between(1, most)).map(|_| rng.between(0, 255) as u8).collect()
}

pub(super) fn open_wal(dir: &Path) -> Result<RocksWal, Error> {
    // Small, so that entries often move from the log file into tables.
    RocksWal::open_with(
        dir.join("log"),
        RocksWalOptions { write_buffer_bytes: 64 << 10, ..Default::default() },
    )
}

/// What the process does that dies: `PLAN` is `SEED STEPS`. It goes on where the files end.
pub(super) fn work() {
    let (Some(dir), Ok(plan)) = (std::env::var_os(DIR), std::env::var(PLAN)) else { return };
    let dir = Path::new(&dir);
    let (seed, count) = plan.split_once(' ').expect("SEED STEPS");
    let (seed, count): (u64, u64) = (seed.parse().unwrap(), count.parse().unwrap());
    let wal = open_wal(dir).unwrap();
    let engine = RocksEngine::open_repeatable(dir.join("rows")).unwrap();
    let begun = step_of(wal.load().unwrap().vote.as_ref());
    let mut steps = Steps::after(seed, begun);
    // What the rows lack is in the log, and made again.
    let behind = step_of(engine.get(b"step").unwrap().as_ref());
    let mut again = Steps::after(seed, behind.min(begun));
    while again.next <= begun {
        write_rows(&engine, again.step());
    }
    let mut waiting = Vec::new();
    println!();
    for number in begun + 1..=begun + count {
        let step = steps.step();
        println!("begun {number}");
        let (done, outcome) = mpsc::channel::<()>();
        let told = move |outcome: std::io::Result<()>| {
            outcome.unwrap();
            println!("durable {number}");
            let _ = done.send(());
        };
        wal.submit(step.ops.clone(), Box::new(told));
        waiting.push((number, outcome, step));
        // Up to four are in flight together. Rows follow what is durable.
        if waiting.len() >= 4 || number.is_multiple_of(3) || number == begun + count {
            for (number, outcome, step) in waiting.drain(..) {
                outcome.recv().unwrap();
                let synced = step.sync || step.replace;
                write_rows(&engine, step);
                if synced {
                    println!("synced {number}");
                }
            }
        }
    }
    drop((wal, engine));
    println!("ended");
}

fn write_rows(engine: &RocksEngine, step: Step) {
    match step.replace {
        true => engine.replace_all(step.rows).unwrap(),
        false => engine.write(step.rows).unwrap(),
    }
    if step.sync {
        engine.sync().unwrap();
    }
}

/// The number that a step left.
fn step_of(bytes: Option<&Bytes>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_be_bytes(bytes.as_ref().try_into().expect("eight bytes")))
}

/// What a process told before it died.
#[derive(Debug, Default)]
pub(super) struct Told {
    pub(super) begun: u64,
    pub(super) durable: u64,
    pub(super) synced: u64,
    pub(super) ended: bool,
    /// How often it came to which place.
    pub(super) places: BTreeMap<String, u64>,
}

impl Told {
    pub(super) fn hear(&mut self, line: &str) {
        let number = || line.rsplit(' ').next().and_then(|number| number.parse().ok());
        match line.split(' ').next() {
            Some("begun") => self.begun = number().unwrap_or(self.begun),
            Some("durable") => self.durable = number().unwrap_or(self.durable).max(self.durable),
            Some("synced") => self.synced = number().unwrap_or(self.synced),
            Some("ended") => self.ended = true,
            Some("failpoint") => *self.places.entry(line[10..].to_owned()).or_default() += 1,
            _ => {}
        }
    }
}

/// The process that works in `dir`, run by `prefix` (a tracer) where there is one.
pub(super) fn start(prefix: &[&str], dir: &Path, seed: u64, count: u64, failpoint: Option<&str>) -> Child {
    let own = std::env::current_exe().unwrap();
    let mut words: Vec<&std::ffi::OsStr> = prefix.iter().map(std::ffi::OsStr::new).collect();
    words.push(own.as_os_str());
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).args(["--exact", "rocks::crash::child_works", "--ignored", "--nocapture"]);
    command.env(DIR, dir).env(PLAN, format!("{seed} {count}")).env_remove(failpoint::VARIABLE);
    if let Some(failpoint) = failpoint {
        command.env(failpoint::VARIABLE, failpoint);
    }
    // Aborting is what is wanted here: nobody needs its message.
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap()
}

/// Runs it to its end.
pub(super) fn run(prefix: &[&str], dir: &Path, seed: u64, count: u64, failpoint: Option<&str>) -> Told {
    let mut child = start(prefix, dir, seed, count, failpoint);
    let mut told = Told::default();
    for line in BufReader::new(child.stdout.take().unwrap()).lines() {
        told.hear(&line.unwrap());
    }
    child.wait().unwrap();
    told
}

/// Opens what is left in `dir`. Either it is what steps up to one no earlier than `least` leave, and then that step; or it is
/// refused.
pub(super) fn look(dir: &Path, seed: u64, least: &Told) -> Result<u64, Error> {
    let wal = open_wal(dir)?;
    let loaded = wal.load()?;
    let at = step_of(loaded.vote.as_ref());
    assert!(at >= least.durable, "step {} was acknowledged, the log ends with {at}", least.durable);
    assert!(at <= least.begun.max(least.durable), "step {at} was never begun: {least:?}");
    assert!(loaded == Steps::after(seed, at).loaded(), "the log is not what step {at} leaves");
    let engine = RocksEngine::open_repeatable(dir.join("rows"))?;
    let view = engine.view();
    let mut rows = BTreeMap::new();
    for row in view.scan(b"", b"") {
        let (key, value) = row?;
        rows.insert(key, value);
    }
    let rows_at = step_of(rows.get(&b"step"[..]));
    assert!(
        rows_at >= least.synced,
        "rows of step {} were synced, those of {rows_at} are there",
        least.synced
    );
    assert!(rows == Steps::after(seed, rows_at).rows, "the rows are not what step {rows_at} leaves");
    Ok(at)
}

/// A copy of both databases.
pub(super) fn copy(from: &Path, to: &Path) {
    for name in ["log", "rows"] {
        fs::create_dir_all(to.join(name)).unwrap();
        for file in fs::read_dir(from.join(name)).unwrap().map(|file| file.unwrap()) {
            fs::copy(file.path(), to.join(name).join(file.file_name())).unwrap();
        }
    }
}
