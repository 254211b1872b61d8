//! Processes that die at every place where it could matter, power cuts, and bits that turn. What was acknowledged is there
//! afterwards, or the directory is refused: never less without a word.
//!
//! The quick form runs with the other tests. For the long one set the counts: `PLIMSOLL_CRASHES=5000
//! PLIMSOLL_POWER_CUTS=500 PLIMSOLL_BIT_FLIPS=2000 PLIMSOLL_SEED=7 cargo nextest run --workspace -E 'test(rocks::crash)'`.

mod power;
mod work;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use work::{Told, copy, look, run};

use crate::sim::Rng;

/// Steps of one process.
const STEPS: u64 = 30;

/// A count that the environment may raise.
fn count(variable: &str, default: u64) -> u64 {
    std::env::var(variable).map_or(default, |text| text.parse().expect("a number"))
}

fn seed() -> u64 {
    count("PLIMSOLL_SEED", 1)
}

#[test]
#[ignore = "started as a child by the tests beside it"]
fn child_works() {
    work::work();
}

/// Puts the beginning of a write that never finished behind the log, as a power cut may.
fn tear(dir: &Path) {
    let Ok(files) = fs::read_dir(dir.join("log")) else { return };
    let files = files.map(|file| file.unwrap().path());
    let newest = files.filter(|path| path.extension().is_some_and(|extension| extension == "log")).max();
    if let Some(newest) = newest {
        // A whole record with a wrong checksum, in a page that was written before the one in front of it.
        let mut record = vec![1, 2, 3, 4, 60, 0, 1];
        record.extend_from_slice(&[9; 60]);
        fs::File::options().append(true).open(newest).unwrap().write_all(&record).unwrap();
    }
}

/// Every place at which a process can die here, with how often a run comes there: on an empty directory, on one that was
/// used, and on one with a torn tail.
fn places(seed: u64) -> BTreeMap<(u8, String), u64> {
    let mut places = BTreeMap::new();
    let dir = tempfile::tempdir().unwrap();
    for kind in 0..3 {
        if kind == 2 {
            tear(dir.path());
        }
        let told = run(&[], dir.path(), seed, STEPS, Some(crate::failpoint::LIST));
        assert!(told.ended, "{told:?}");
        places.extend(told.places.into_iter().map(|(name, hits)| ((kind, name), hits)));
    }
    places
}

#[test]
fn a_process_may_die_at_any_place() {
    let (seed, crashes) = (seed(), count("PLIMSOLL_CRASHES", 160));
    let places = places(seed);
    let names: BTreeSet<&String> = places.keys().map(|(_, name)| name).collect();
    assert!(names.len() >= 20, "{} places: {names:?}", names.len());
    let mut rng = Rng::new(seed);
    let mut died = 0;
    let mut dir = tempfile::tempdir().unwrap();
    let mut before = Told::default();
    let mut died_at = BTreeSet::new();
    for ((kind, name), hits) in places.iter().cycle() {
        if died >= crashes {
            break;
        }
        // Directories with a life behind them, of many deaths, and new ones.
        if *kind == 0 || before.begun > 400 {
            dir = tempfile::tempdir().unwrap();
            before = Told::default();
        }
        if *kind == 2 {
            tear(dir.path());
        }
        let hit = rng.between(1, *hits);
        let mut told = run(&[], dir.path(), seed, STEPS, Some(&format!("{name}:{hit}")));
        if !told.ended {
            died += 1;
            died_at.insert(name);
        }
        told.begun = told.begun.max(before.begun);
        told.durable = told.durable.max(before.durable);
        told.synced = told.synced.max(before.synced);
        let at =
            look(dir.path(), seed, &told).unwrap_or_else(|error| panic!("{name}:{hit} refused: {error}"));
        before = Told { begun: at, durable: at, ..told };
    }
    let missed: Vec<_> = names.iter().filter(|name| !died_at.contains(*name)).collect();
    assert!(missed.is_empty(), "nobody died at {missed:?}");
    println!("{died} deaths at {} places", died_at.len());
}

/// True where a tracer can be attached; says so by name where not.
fn can_trace(test: &str) -> bool {
    let traced = Command::new("strace")
        .args(["-o", "/dev/null", "-e", "inject=fsync:error=EIO:when=999", "true"])
        .output();
    let can = traced.is_ok_and(|output| output.status.success());
    if !can {
        println!("{test}: skipped, strace cannot trace here");
    }
    can
}

#[test]
fn a_process_may_die_at_any_sync() {
    if !can_trace("a_process_may_die_at_any_sync") {
        return;
    }
    let seed = seed();
    let mut died = 0;
    for nth in 1..=count("PLIMSOLL_SYNC_KILLS", 40) {
        let dir = tempfile::tempdir().unwrap();
        // On the way in: nothing of this sync has happened. A thread counts its own.
        let call = ["fdatasync", "fsync"][(nth % 2) as usize];
        let inject = format!("inject={call}:signal=KILL:when={}", 1 + nth / 2);
        let told = run(&["strace", "-f", "-o", "/dev/null", "-e", &inject], dir.path(), seed, STEPS, None);
        died += u64::from(!told.ended);
        look(dir.path(), seed, &told).unwrap_or_else(|error| panic!("{inject} refused: {error}"));
    }
    assert!(died >= 10, "{died} died");
    println!("{died} deaths at a sync");
}

#[test]
fn a_failed_sync_ends_the_process_and_loses_nothing_acknowledged() {
    if !can_trace("a_failed_sync_ends_the_process_and_loses_nothing_acknowledged") {
        return;
    }
    let seed = seed();
    let mut ended = 0;
    for (nth, error) in (1..=count("PLIMSOLL_SYNC_ERRORS", 10)).zip(["EIO", "ENOSPC"].into_iter().cycle()) {
        let dir = tempfile::tempdir().unwrap();
        let inject = format!("inject=fdatasync:error={error}:when={}", 2 + nth);
        let told = run(&["strace", "-f", "-o", "/dev/null", "-e", &inject], dir.path(), seed, STEPS, None);
        ended += u64::from(!told.ended);
        look(dir.path(), seed, &told).unwrap_or_else(|error| panic!("{inject} refused: {error}"));
    }
    assert!(ended >= 8, "{ended} ended: the others went on after a failed sync");
}

/// What may turn bad: all that is needed of a database.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for name in ["log", "rows"] {
        files.extend(fs::read_dir(dir.join(name)).unwrap().map(|file| file.unwrap().path()));
    }
    files.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let is_text =
            name.starts_with("LOG") || name.starts_with("OPTIONS") || name == "LOCK" || name == "IDENTITY";
        !is_text && fs::metadata(path).is_ok_and(|data| data.len() > 0)
    });
    files.sort();
    files
}

#[test]
fn a_bit_that_turned_is_found_or_does_not_matter() {
    let (seed, flips) = (seed(), count("PLIMSOLL_BIT_FLIPS", 60));
    let whole = tempfile::tempdir().unwrap();
    let mut told = run(&[], whole.path(), seed, 4 * STEPS, None);
    assert!(told.ended, "{told:?}");
    // The newest part is in log files still.
    let killed = run(&[], whole.path(), seed, STEPS, Some("log-after-floor:25"));
    (told.begun, told.durable, told.synced) = (killed.begun, killed.durable, killed.synced.max(told.synced));
    let mut rng = Rng::new(seed);
    let (mut found, mut kinds) = (0, BTreeMap::<String, u64>::new());
    for _ in 0..flips {
        let harmed = tempfile::tempdir().unwrap();
        copy(whole.path(), harmed.path());
        let files = files(harmed.path());
        let path = &files[rng.between(0, files.len() as u64 - 1) as usize];
        let mut bytes = fs::read(path).unwrap();
        let bit = rng.between(0, bytes.len() as u64 * 8 - 1) as usize;
        bytes[bit / 8] ^= 1 << (bit % 8);
        fs::write(path, bytes).unwrap();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let kind = name.trim_matches(|c: char| c.is_ascii_digit()).to_owned();
        *kinds.entry(kind).or_default() += 1;
        match look(harmed.path(), seed, &told) {
            Ok(_) => {}
            Err(error) => {
                assert!(!matches!(error, crate::Error::Locked { .. }), "{error}");
                found += 1;
            }
        }
    }
    assert!(found * 3 >= flips, "only {found} of {flips} were found; the others cannot all have hit nothing");
    println!("{found} of {flips} refused, the others changed nothing that is read: {kinds:?}");
}
