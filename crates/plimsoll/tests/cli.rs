//! The command line against a real `plimsoll dev`: what it prints, in every form, and how it ends.

mod common;

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Output, Stdio};
use std::time::{Duration, Instant};

use common::{Dev, command};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

impl Dev {
    fn run(&self, arguments: &[&str]) -> Output {
        command(self.home.path(), arguments).output().unwrap()
    }

    /// Runs it and returns stdout; it must end with `code`.
    fn text(&self, code: i32, arguments: &[&str]) -> String {
        let output = self.run(arguments);
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn json(&self, arguments: &[&str]) -> Value {
        let text = self.text(0, &[arguments, &["-o", "json"]].concat());
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{arguments:?}: {error}: {text}"))
    }

    fn contexts(&self) -> String {
        std::fs::read_to_string(self.home.path().join("config/config.yaml")).unwrap_or_default()
    }
}

fn stop(child: &mut Child, signal: Signal) -> i32 {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code().unwrap_or(-1);
        }
        assert!(Instant::now() < deadline, "it did not end");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn dev_is_ready_writes_its_context_and_leaves_nothing_behind() {
    let mut dev = Dev::start(&["--nodes", "3", "--fake-gpu", "a100:2"]);
    assert!(dev.contexts().contains(&dev.address));
    let nodes = dev.json(&["get", "nodes"]);
    assert_eq!(nodes.as_array().unwrap().len(), 3);
    let gpus = dev.text(0, &["get", "gpus", "--columns", "model", "--no-headers"]);
    assert_eq!(gpus.lines().collect::<Vec<_>>(), ["a100"; 6]);
    assert_eq!(stop(&mut dev.process.0, Signal::SIGTERM), 0);
    assert!(!dev.contexts().contains("dev"), "{}", dev.contexts());
    assert!(!dev.home.path().join("run/agent.sock").exists());
    let gone = dev.run(&["--addr", &dev.address, "get", "nodes"]);
    assert_eq!(gone.status.code(), Some(8));
}

#[test]
fn run_passes_environment_output_and_exit_code_through() {
    let dev = Dev::start(&["--fake-gpu", "a100:1"]);
    let script = "echo $PLIMSOLL_RESERVATION $CUDA_VISIBLE_DEVICES $OMP_NUM_THREADS; exit 7";
    let output = dev.run(&["run", "--cpu", "1", "--gpu", "1", "--mem", "64Mi", "--", "sh", "-c", script]);
    assert_eq!(output.status.code(), Some(7));
    let stdout = String::from_utf8(output.stdout).unwrap();
    let words: Vec<&str> = stdout.split_whitespace().collect();
    assert!(words[0].starts_with("r-") && words[1].starts_with("GPU-fake") && words[2] == "1", "{stdout}");
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(
        stderr.contains("granted in") && stderr.contains("released after") && stderr.contains("of 64Mi"),
        "{stderr}"
    );
    let ended = dev.json(&["get", "r", words[0]]);
    assert_eq!(ended[0]["state"], "RESERVATION_STATE_RELEASED");

    let output = dev.run(&["run", "--gpu", "9", "--", "true"]);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.contains("can ever hold this") && stderr.contains("gpu: 9 asked on one node"), "{stderr}");
    assert!(stderr.contains("is 1 (1 node)"), "{stderr}");

    for (code, arguments) in [
        (127, &["run", "--", "/no/such/command"][..]),
        (126, &["run", "--", "/etc/hostname"]),
        (137, &["run", "--", "sh", "-c", "kill -9 $$"]),
        (7, &["run", "--gpu", "9", "--", "true"]),
        (2, &["run", "--mem", "400m", "--", "true"]),
        (2, &["run"]),
    ] {
        assert_eq!(dev.run(arguments).status.code(), Some(code), "{arguments:?}");
    }
    assert_eq!(dev.json(&["get", "r"]), Value::Array(Vec::new()), "all was given back");
}

#[test]
fn run_starts_a_command_that_fails_as_often_as_it_may() {
    let dev = Dev::start(&[]);
    let run = |retries: &str, succeeds_at: &str| {
        let script = format!(
            "echo start $PLIMSOLL_ATTEMPT of $PLIMSOLL_TOKEN; [ $PLIMSOLL_ATTEMPT = {succeeds_at} ] || exit 9"
        );
        let output = dev.run(&["run", "--retries", retries, "--", "sh", "-c", &script]);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, stdout) = run("4", "3");
    assert_eq!((code, stdout.lines().count()), (Some(0), 3), "{stdout}");
    let tokens: std::collections::BTreeSet<&str> =
        stdout.lines().filter_map(|line| line.split(" of ").nth(1)).collect();
    assert_eq!(tokens.len(), 1, "one grant: {stdout}");
    let (code, stdout) = run("1", "3");
    assert_eq!((code, stdout.lines().count()), (Some(9), 2), "{stdout}");
}

#[test]
fn run_forwards_signals_and_gives_a_place_in_the_queue_back() {
    let dev = Dev::start(&["--fake-gpu", "a100:1", "--nodes", "2"]);
    let script = "trap 'exit 42' USR1; echo ready; while :; do sleep 0.05; done";
    let mut holder = command(dev.home.path(), &["run", "--gpu", "1", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(holder.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");

    let mut waiter = command(dev.home.path(), &["run", "--gpu", "1", "--", "true"])
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut stderr = BufReader::new(waiter.stderr.take().unwrap());
    stderr.read_line(&mut line).unwrap();
    assert!(line.contains("waiting") && line.contains("rank 1 of 1"), "{line}");
    assert!(line.contains("gpu: 1 asked, 0 free") && !line.contains("label"), "{line}");
    let pending = dev.json(&["get", "r", "--state", "pending"]);
    let id = pending[0]["id"].as_str().unwrap().to_owned();
    let why = dev.text(0, &["explain", &id]);
    assert!(why.contains("PENDING") && why.contains("stands in the way"), "{why}");
    assert_eq!(stop(&mut waiter, Signal::SIGINT), 130);
    assert_eq!(dev.json(&["get", "r", &id])[0]["state"], "RESERVATION_STATE_REJECTED");
    for (code, says, option) in
        [(3, "left the queue after", &["--wait", "300ms"][..]), (1, "with --anywhere all do", &["--now"])]
    {
        let output = dev.run(&[&["run", "--gpu", "1"], option, &["--", "true"]].concat());
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{stderr}");
        assert!(stderr.contains(says) && stderr.contains("gpu: 1 asked, 0 free"), "{stderr}");
        assert!(!stderr.contains("label") && !stderr.contains("somebody else"), "{stderr}");
    }

    assert_eq!(stop(&mut holder, Signal::SIGUSR1), 42);
    assert_eq!(dev.json(&["get", "r"]), Value::Array(Vec::new()));
}

#[test]
fn a_lease_that_is_lost_stops_the_command() {
    let dev = Dev::start(&[]);
    let script = "echo ready; exec sleep 60";
    let mut holder = command(dev.home.path(), &["run", "--ttl", "10s", "--", "sh", "-c", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(holder.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let id = dev.text(0, &["get", "r", "-o", "name"]);
    dev.text(0, &["cancel", id.trim(), "-q"]);
    let deadline = Instant::now() + Duration::from_secs(15);
    let status = loop {
        if let Some(status) = holder.try_wait().unwrap() {
            break status;
        }
        assert!(Instant::now() < deadline, "the command still runs");
        std::thread::sleep(Duration::from_millis(50));
    };
    assert_eq!(status.code(), Some(125));
}

#[test]
fn a_reservation_goes_through_its_life() {
    let dev = Dev::start(&["--fake-gpu", "h100:1"]);
    let held = dev.json(&["reserve", "--gpu", "0.5", "--name", "half", "--hold", "1m"]);
    assert_eq!(held["state"], "RESERVATION_STATE_HELD");
    let id = held["id"].as_str().unwrap();
    let token = held["token"].as_str().unwrap();
    assert_eq!(
        dev.run(&["confirm", id, "--token", "1"]).status.code(),
        Some(6),
        "another token is fenced off"
    );
    assert_eq!(dev.json(&["confirm", id, "--token", token])["state"], "RESERVATION_STATE_ACTIVE");
    // A unique prefix does.
    assert_eq!(dev.json(&["renew", &id[..id.len() - 1], "--ttl", "5m"])["ttlMs"], "300000");
    assert_eq!(dev.json(&["resize", id, "--mem", "1Gi"])["amounts"]["memoryBytes"], "1073741824");
    let described = dev.text(0, &["describe", id]);
    assert!(described.contains("half") && described.contains("held to active"), "{described}");
    assert_eq!(dev.json(&["release", id])["state"], "RESERVATION_STATE_RELEASED");
    assert_eq!(dev.run(&["release", id]).status.code(), Some(1));

    dev.text(0, &["reserve", "--gpu", "1", "--confirm", "-q"]);
    assert_eq!(dev.run(&["reserve", "--gpu", "1", "--now"]).status.code(), Some(1));
    assert_eq!(dev.run(&["reserve", "--gpu", "1"]).status.code(), Some(3));
    let pending = dev.text(0, &["get", "r", "--state", "pending", "-o", "name"]);
    assert_eq!(dev.run(&["wait", pending.trim(), "--timeout", "200ms"]).status.code(), Some(124));
}

#[test]
fn every_list_reads_back_in_every_form() {
    let dev = Dev::start(&["--fake-gpu", "a100:1"]);
    dev.text(0, &["reserve", "--gpu", "1", "--confirm", "-q"]);
    for noun in ["nodes", "devices", "pools", "reservations", "classes", "limits", "members", "events"] {
        let rows = dev.json(&["get", noun]).as_array().unwrap().len();
        let form = |form: &str| dev.text(0, &["get", noun, "-o", form]);
        for line in form("jsonl").lines() {
            serde_json::from_str::<Value>(line).unwrap();
        }
        assert_eq!(form("jsonl").lines().count(), rows, "{noun}");
        assert_eq!(form("name").lines().count(), rows, "{noun}");
        let yaml: Value = serde_saphyr::from_str(&form("yaml")).unwrap();
        assert_eq!(yaml.as_array().unwrap().len(), rows, "{noun}");
        let csv = form("csv");
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        assert!(reader.headers().unwrap().len() > 2, "{noun}");
        assert_eq!(reader.records().map(Result::unwrap).count(), rows, "{noun}");
        let headers = usize::from(rows > 0);
        assert_eq!(form("table").lines().count(), rows + headers, "{noun}");
        assert_eq!(form("wide").lines().count(), rows + headers, "{noun}");
    }
    for arguments in
        [&["cluster", "status"][..], &["audit", "digest"], &["version"], &["explain", "--gpu", "1"]]
    {
        dev.json(arguments);
    }
    let id = dev.text(0, &["get", "r", "-o", "name"]);
    let node = dev.text(0, &["get", "nodes", "-o", "name"]);
    for (arguments, name) in [
        (&["describe", "r", id.trim()][..], id.as_str()),
        (&["describe", "node", node.trim()], &node),
        (&["explain", id.trim()], &id),
    ] {
        assert_eq!(dev.text(0, &[arguments, &["-o", "name"]].concat()), name, "{arguments:?}");
        let csv = dev.text(0, &[arguments, &["-o", "csv"]].concat());
        let mut reader = csv::Reader::from_reader(csv.as_bytes());
        assert!(reader.headers().unwrap().len() > 3, "{csv}");
        assert_eq!(reader.records().map(Result::unwrap).count(), 1, "{csv}");
    }
    assert_eq!(dev.json(&["get", "limits"]), Value::Array(Vec::new()));
}

#[test]
fn errors_have_one_shape_and_their_own_codes() {
    let dev = Dev::start(&[]);
    for (code, reason, arguments) in [
        (5, "NOT_FOUND", &["get", "r", "r-zzzz"][..]),
        (5, "POOL_NOT_FOUND", &["reserve", "--cpu", "1", "--pool", "none"]),
        (7, "INFEASIBLE", &["reserve", "--cpu", "100000"]),
        (2, "USAGE", &["get", "nodes", "--columns", "none"]),
        (2, "USAGE", &["simulate", "--fleet", "1x1", "--workload", "/dev/null"]),
        (5, "NOT_FOUND", &["context", "use", "none"]),
    ] {
        let output = dev.run(&[arguments, &["-o", "json"]].concat());
        assert_eq!(output.status.code(), Some(code), "{arguments:?}");
        assert!(output.stdout.is_empty(), "{arguments:?}: nothing but the document goes to stdout");
        let status: Value = serde_json::from_slice(&output.stderr).unwrap();
        assert_eq!(status["details"][0]["reason"], reason, "{arguments:?}: {status}");
        let text = String::from_utf8(dev.run(arguments).stderr).unwrap();
        assert!(text.starts_with("error: ") && text.contains(&format!("({reason}, exit {code})")), "{text}");
    }
}

#[test]
fn a_watch_tells_each_change_as_a_line() {
    let dev = Dev::start(&[]);
    let mut watch = command(dev.home.path(), &["get", "r", "-w"]).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    std::thread::sleep(Duration::from_millis(300));
    dev.text(0, &["run", "--name", "seen", "--", "true"]);
    let first: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
    assert_eq!(first["reservation"]["spec"]["name"], "seen", "{first}");
    assert!(first["revision"].as_str().unwrap().parse::<u64>().unwrap() > 0);
    watch.kill().unwrap();
    watch.wait().unwrap();
}

#[test]
fn nodes_are_cordoned_and_drained() {
    let dev = Dev::start(&[]);
    let node = dev.text(0, &["get", "nodes", "-o", "name"]);
    let node = node.trim();
    assert_eq!(dev.json(&["cordon", node, "--reason", "kernel"])[0]["state"], "NODE_STATE_CORDONED");
    assert!(dev.text(0, &["get", "nodes"]).contains("kernel"));
    assert_eq!(dev.run(&["reserve", "--cpu", "1", "--now"]).status.code(), Some(1));
    assert_eq!(dev.json(&["uncordon", node])[0]["state"], "NODE_STATE_AVAILABLE");
    assert_eq!(dev.json(&["drain", node, "--deadline", "1h"])[0]["state"], "NODE_STATE_DRAINING");
}

#[test]
fn completions_and_pages_are_written() {
    let home = tempfile::tempdir().unwrap();
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let output = command(home.path(), &["completion", shell]).output().unwrap();
        assert!(output.status.success() && output.stdout.len() > 1_000, "{shell}");
    }
    let pages = home.path().join("man");
    let output = command(home.path(), &["man", "--dir", pages.to_str().unwrap()]).output().unwrap();
    assert!(output.status.success());
    for page in ["plimsoll.1", "plimsoll-run.1", "plimsoll-cluster-join.1", "plimsoll-exit-codes.7"] {
        assert!(pages.join(page).exists(), "{page}");
    }
    let alone = command(home.path(), &[]).output().unwrap();
    assert_eq!((alone.status.code(), alone.stdout.len()), (Some(2), 0));
    assert_eq!(String::from_utf8(alone.stderr).unwrap().lines().count(), 8);
    assert_eq!(command(home.path(), &["frobnicate"]).output().unwrap().status.code(), Some(2));
}
