//! Every scenario of `scenarios/` comes to the report beside it. `PLIMSOLL_UPDATE_SCENARIOS=1` writes the reports anew.

mod fixture;
mod scenario;

use std::path::{Path, PathBuf};

use scenario::{clock, file, play};

/// Scenarios that there are at least.
const FEWEST: usize = 12;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/scenarios")
}

fn played(path: &Path) -> String {
    let name = path.file_name().and_then(|name| name.to_str()).expect("it is a name").to_owned();
    let text = std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{name}: {error}"));
    let read = file::read(&name, &text).unwrap_or_else(|error| panic!("{error}"));
    play::play(read).unwrap_or_else(|error| panic!("{name}: {error}"))
}

#[test]
fn every_scenario_comes_to_the_report_beside_it() {
    let update = std::env::var("PLIMSOLL_UPDATE_SCENARIOS").is_ok_and(|value| value == "1");
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("it is there")
        .map(|entry| entry.expect("a file").path())
        .collect();
    paths.sort();
    let (scenarios, reports): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    assert!(scenarios.len() >= FEWEST, "{} scenarios", scenarios.len());
    let mut other = Vec::new();
    for path in &scenarios {
        let (stored, report) = (path.with_extension("txt"), played(path));
        assert_eq!(report, played(path), "{} comes out otherwise each time", path.display());
        if update {
            std::fs::write(&stored, &report).expect("it can be written");
        } else if std::fs::read_to_string(&stored).unwrap_or_default() != report {
            other.push(format!("{}: it comes to\n{report}", stored.display()));
        }
    }
    for report in reports {
        assert!(report.with_extension("yaml").exists(), "{} has no scenario", report.display());
    }
    assert!(other.is_empty(), "{}\nPLIMSOLL_UPDATE_SCENARIOS=1 writes them anew", other.join("\n"));
}

#[test]
fn a_wrong_file_is_told_with_what_is_wrong() {
    let scenario = |steps: &str| {
        format!("kind: Scenario\ntitle: x\nabout: x\nuntil: '09:00'\nnodes: []\nsteps:\n{steps}\n")
    };
    let told = |text: &str| file::read("x.yaml", text).err().unwrap_or_default();
    assert!(told("kind: Pool\n").contains("one document of kind Scenario is expected, 0 are there"));
    assert!(told(&scenario("  - { at: '08:00' }")).contains("one of note, submit"));
    assert!(told(&scenario("  - { at: '8 am', look: true }")).contains("\"8 am\" is no time of day"));
    assert!(told(&scenario("  - { at: '08:00', lok: true }")).contains("lok"));
    let pool =
        "---\napiVersion: plimsoll/v1\nkind: Pool\nmetadata: { name: x }\nspec: { stratgy: best_fit }\n";
    assert!(
        told(&format!("{}{pool}", scenario("  - { at: '08:00', look: true }")))
            .contains("did you mean \"strategy\"?")
    );
    let unknown = file::read("x.yaml", &scenario("  - { at: '08:00', submit: nobody }"))
        .unwrap_or_else(|error| panic!("{error}"));
    assert_eq!(play::play(unknown), Err("there is no request \"nobody\"".to_owned()));
}

#[test]
fn times_are_times_of_day() {
    for (text, shown) in [
        ("00:00", "00:00:00"),
        ("08:30", "08:30:00"),
        ("23:59:59", "23:59:59"),
        ("+1d 02:00", "+1d 02:00:00"),
    ] {
        assert_eq!(clock::parse(text).map(clock::show), Ok(shown.to_owned()));
    }
    assert_eq!(clock::show(clock::MIDNIGHT_MS + 1), "00:00:01", "nothing is said to happen before it does");
    for text in ["", "8", "24:00", "08:60", "d 08:00", "08:00:00:00"] {
        assert!(clock::parse(text).is_err(), "{text:?}");
    }
}
