//! Power cuts: the databases lie on a file system of their own in a file. A copy of that file at any moment has what was
//! synced and nothing that only the system's memory has.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::work::{Told, look, start};
use super::{count, seed};
use crate::sim::Rng;

const IMAGE_BYTES: u64 = 96 << 20;

/// A mounted image; unmounted when it goes.
struct Mounted {
    at: PathBuf,
}

impl Mounted {
    fn mount(image: &Path, at: PathBuf) -> Option<Mounted> {
        fs::create_dir_all(&at).unwrap();
        // The system writes back by itself as seldom as it can be told to.
        let done = shell("mount", &["-o", "loop,commit=300", text(image), text(&at)]);
        done.then_some(Mounted { at })
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !shell("umount", &[text(&self.at)]) {
            shell("umount", &["-l", text(&self.at)]);
        }
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn shell(program: &str, arguments: &[&str]) -> bool {
    Command::new(program).args(arguments).output().is_ok_and(|output| output.status.success())
}

/// Waits until each thread has stopped: one in the middle of a sync ends that first.
fn until_still(process: &str) {
    let is_still = |task: fs::DirEntry| {
        let stat = fs::read_to_string(task.path().join("stat")).unwrap_or_default();
        stat.rsplit(") ").next().is_none_or(|rest| !rest.starts_with(['R', 'S', 'D']))
    };
    while !fs::read_dir(format!("/proc/{process}/task")).is_ok_and(|tasks| tasks.flatten().all(is_still)) {
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_power_cut_at_any_moment_keeps_what_was_acknowledged() {
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    fs::File::create(&image).unwrap().set_len(IMAGE_BYTES).unwrap();
    let made = shell("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0", text(&image)]);
    let mounted = if made { Mounted::mount(&image, place.path().join("live")) } else { None };
    let Some(mounted) = mounted else {
        println!(
            "a_power_cut_at_any_moment_keeps_what_was_acknowledged: skipped, no file system can be mounted here"
        );
        return;
    };
    let (seed, cuts) = (seed(), count("PLIMSOLL_POWER_CUTS", 20));
    let mut rng = Rng::new(seed);
    let mut least = Told::default();
    let mut done = 0;
    while done < cuts {
        let mut child = start(&[], &mounted.at, seed, 400, None);
        let told = Arc::new(Mutex::new(Told { synced: least.synced, ..Told::default() }));
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let hearer = {
            let told = Arc::clone(&told);
            std::thread::spawn(move || {
                lines.for_each(|line| told.lock().unwrap().hear(&line.unwrap_or_default()))
            })
        };
        let process = child.id().to_string();
        while done < cuts {
            std::thread::sleep(Duration::from_micros(rng.between(500, 60_000)));
            if told.lock().unwrap().ended || !shell("kill", &["-STOP", &process]) {
                break;
            }
            until_still(&process);
            let seen = {
                let told = told.lock().unwrap();
                Told {
                    begun: u64::MAX,
                    durable: told.durable.max(least.durable),
                    synced: told.synced,
                    ..Told::default()
                }
            };
            // A file of its own each time: where anybody still holds the device of the last one (another test's namespace has a
            // copy of every mount), the system would mount that device again, with what it remembers of the old contents.
            let cut = place.path().join(format!("cut-{done}"));
            // The copy takes a while and a power cut does not: once more where something was written meanwhile.
            loop {
                let before = fs::metadata(&image).unwrap().modified().unwrap();
                assert!(shell("cp", &["--sparse=always", text(&image), text(&cut)]));
                if fs::metadata(&image).unwrap().modified().unwrap() == before {
                    break;
                }
            }
            assert!(shell("kill", &["-CONT", &process]));
            let after =
                Mounted::mount(&cut, place.path().join("after")).expect("the first one could be mounted");
            if after.at.join("log/CURRENT").exists() || seen.durable > 0 {
                look(&after.at, seed, &seen).unwrap_or_else(|error| {
                    // For whoever wants to look.
                    let kept = std::env::temp_dir().join("plimsoll-power-cut.image");
                    let kept = fs::copy(&cut, &kept).map(|_| kept);
                    panic!("cut {done} after {seen:?}: {error:?}, image kept: {kept:?}")
                });
            }
            drop(after);
            fs::remove_file(&cut).unwrap();
            done += 1;
        }
        drop(child.kill());
        child.wait().unwrap();
        hearer.join().unwrap();
        let told = told.lock().unwrap();
        least.durable = told.durable.max(least.durable);
        least.synced = told.synced;
    }
    println!("{done} power cuts");
}
