//! `simulate` and `replay` on files as users have them: one document on stdout, errors that name the place, and no 0 for half a run.

mod common;

use std::path::Path;
use std::process::{Child, Output, Stdio};
use std::time::Duration;

use common::{Dev, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

fn simulate(home: &Path, work: &str, options: &[&str]) -> Output {
    std::fs::write(home.join("work"), work).unwrap();
    let arguments = [&["simulate", "--fleet", "2x8", "--workload", "work", "-o", "json"], options].concat();
    command(home, &arguments).output().unwrap()
}

#[test]
fn a_simulation_is_one_document_with_the_rows_in_their_order() {
    let home = tempfile::tempdir().unwrap();
    let work = "gpus,name,run_s,submit_s\r\n8,\"a, \"\"b\"\"\",10,5\r\n16,gang,10,0\r\n1,late,1,6\r\n99,never,1,0\r\n";
    let output = simulate(home.path(), work, &["--strategy", "best-fit"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    let keys: Vec<&String> = document.as_object().unwrap().keys().collect();
    assert_eq!(keys, ["requests", "summary"]);
    let requests = document["requests"].as_array().unwrap();
    let mut fields: Vec<&String> = requests[0].as_object().unwrap().keys().collect();
    fields.sort();
    assert_eq!(fields, ["devices", "end_s", "name", "node", "outcome", "reasons", "start_s", "submit_s"]);
    let fate = |index: usize| {
        let row = &requests[index];
        format!("{} {} {}-{}", row["name"], row["outcome"], row["start_s"], row["end_s"])
    };
    assert_eq!(fate(0), r#""a, \"b\"" "granted" 10-20"#);
    assert_eq!(fate(1), r#""gang" "granted" 0-10"#);
    assert_eq!(fate(2), r#""late" "granted" 10-11"#);
    assert_eq!(fate(3), r#""never" "refused" null-null"#);
    assert_eq!(document["summary"]["refused"], 1);
    assert!(document["summary"].get("incomplete").is_none());
    let none = simulate(home.path(), work, &["--limit", "0"]);
    let document: Value = serde_json::from_slice(&none.stdout).unwrap();
    assert_eq!((none.status.code(), &document["requests"]), (Some(0), &Value::Array(Vec::new())));
}

#[test]
fn a_discipline_decides_who_goes_first_and_the_summary_says_how_it_went() {
    let home = tempfile::tempdir().unwrap();
    // Two nodes of eight: a wide row waits, and one behind it would fit.
    let work = "submit_s,run_s,gpus,vc\n0,100,8,a\n0,400,4,a\n1,50,16,b\n2,1000,4,c\n3,1,99,c\n";
    let run = |name: &str| -> Value {
        let output = simulate(home.path(), work, &["--queueing", name, "--limit", "4"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let starts = |name: &str| {
        let document = run(name);
        let rows = document["requests"].as_array().unwrap();
        rows.iter().map(|row| row["start_s"].to_string()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(starts("fcfs"), "0 0 400 450");
    assert_eq!(starts("skip"), "0 0 1002 2");
    assert_eq!(starts("backfill-1"), "0 0 400 450", "the fourth would delay the third");
    let summary = &run("las")["summary"];
    assert_eq!(
        (&summary["queueing"], summary["preemptions"].as_u64() > Some(0)),
        (&Value::from("las"), true)
    );
    for figure in
        ["mean_wait_s", "mean_completion_s", "mean_bounded_slowdown", "p95_bounded_slowdown", "max_wait_s"]
    {
        assert!(summary[figure].as_f64().is_some(), "{figure}: {summary}");
    }
    assert_eq!(simulate(home.path(), work, &["--queueing", "learned"]).status.code(), Some(0));
    let output = simulate(home.path(), work, &["--queueing", "learnt"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean learned?"));
    let output = simulate(home.path(), work, &["--queueing", "las", "--no-departures"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn extreme_rows_are_refused_and_break_nothing() {
    let home = tempfile::tempdir().unwrap();
    let work = "submit_s,run_s,gpus\n0,1e11,16\n1e11,1e11,16\n1,1,4294967295\n0,0,0\n";
    let output = simulate(home.path(), work, &[]);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(document["summary"]["granted"], 3, "{document}");
    let wrong = [("0,1e300,1", "column run_s"), ("NaN,1,1", "column submit_s"), ("0,1,x", "column gpus")];
    for (row, says) in wrong {
        let output = simulate(home.path(), &format!("submit_s,run_s,gpus\n{row}\n"), &[]);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(2), "{said}");
        assert!(output.stdout.is_empty() && said.contains("work:2") && said.contains(says), "{said}");
    }
    let output = simulate(home.path(), work, &["--strategy", "bestfit"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&output.stderr).contains("did you mean best_fit?"));
}

#[test]
fn names_of_nodes_are_those_of_the_file() {
    let home = tempfile::tempdir().unwrap();
    std::fs::write(home.path().join("fleet"), "gpu,sn,memory_mib,cpu_milli\n1,Rack-A,1024,1000\n").unwrap();
    std::fs::write(home.path().join("work"), "submit_s,run_s,gpus\n0,1,1\n").unwrap();
    let arguments = ["simulate", "--nodes", "fleet", "--workload", "work"];
    let output = command(home.path(), &arguments).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(document["requests"][0]["node"], "Rack-A", "{document}");
    assert_eq!(document["requests"][0]["devices"][0], "Rack-A/gpu0");
}

/// Starts a replay that takes minutes, and comes back once some of its rows run.
fn long_replay(dev: &Dev) -> Child {
    let mut work = "submit_s,run_s,gpus\n".to_owned();
    (0..600).for_each(|row| work += &format!("{row},10000,1\n"));
    std::fs::write(dev.home.path().join("work"), work).unwrap();
    let arguments = ["replay", "--fleet", "4x8", "--workload", "work", "--duration", "5m"];
    let replay =
        command(dev.home.path(), &arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let are_running = || {
        let arguments = ["get", "r", "--pool", "replay-0", "-o", "name"];
        let told = command(dev.home.path(), &arguments).output().unwrap().stdout;
        told.split(|byte| *byte == b'\n').count() > 3
    };
    for _ in 0..300 {
        if are_running() {
            break;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    replay
}

#[test]
fn a_replay_that_is_stopped_says_so_gives_everything_back_and_does_not_end_with_0() {
    let dev = Dev::start(&[]);
    let replay = long_replay(&dev);
    kill(Pid::from_raw(i32::try_from(replay.id()).unwrap()), Signal::SIGINT).unwrap();
    let output = replay.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(130), "{said}");
    let document: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{said}"));
    assert_eq!(document["requests"].as_array().unwrap().len(), 600);
    assert!(document["summary"]["incomplete"].as_str().unwrap().contains("SIGINT"), "{said}");
    assert!(document["summary"]["pending"].as_u64().unwrap() > 0);
    let left = command(dev.home.path(), &["get", "pools", "-o", "name"]).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&left.stdout), "default\n", "pool, nodes and reservations are gone");
}
