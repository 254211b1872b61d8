//! `plimsoll run` and cgroups: against a folder that has the files of one, and on the real thing where this machine has it.

mod common;

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Output, Stdio};
use std::time::{Duration, Instant};

use common::{Dev, command, run};

/// A folder that may be divided, as far as files go.
fn host(dev: &Dev) -> PathBuf {
    let host = dev.home.path().join("cgroup");
    std::fs::create_dir(&host).unwrap();
    std::fs::write(host.join("cgroup.controllers"), "cpu io memory pids\n").unwrap();
    std::fs::write(host.join("cgroup.procs"), "").unwrap();
    host
}

fn run_in(dev: &Dev, host: &Path, options: &[&str], script: &str) -> Output {
    let arguments = [&["run", "--cgroup", "require"], options, &["--", "sh", "-c", script]].concat();
    command(dev.home.path(), &arguments).env("PLIMSOLL_CGROUP_PARENT", host).output().unwrap()
}

/// The cgroups of workloads in a folder.
fn groups(host: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(host).unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_command_starts_in_a_cgroup_of_its_own_with_the_limits_of_its_grant() {
    let dev = Dev::start(&[]);
    let host = host(&dev);
    let asked = [
        "--cpu",
        "500m",
        "--mem",
        "64Mi",
        "--qos",
        "burstable",
        "--burst",
        "cpu=1",
        "--burst",
        "memory=128Mi",
    ];
    let output = run_in(&dev, &host, &asked, "echo $$");
    assert!(output.status.success(), "{}", said(&output));
    let [group] = groups(&host).try_into().unwrap();
    let read = |file: &str| std::fs::read_to_string(group.join(file)).unwrap();
    assert_eq!(read("cgroup.procs"), String::from_utf8_lossy(&output.stdout).trim(), "it stepped in itself");
    assert_eq!((read("cpu.max"), read("cpu.weight")), ("100000 100000".into(), "50".into()));
    assert_eq!((read("memory.max"), read("memory.high")), ("134217728".into(), "127506841".into()));
    assert_eq!(read("cgroup.kill"), "1", "what it left behind ends with its grant");
}

#[test]
fn what_the_kernel_counted_is_what_was_used_and_a_kill_for_memory_is_told() {
    let dev = Dev::start(&[]);
    let host = host(&dev);
    // A folder counts nothing, so the command says what the kernel would.
    let script = "cd $PLIMSOLL_CGROUP_PARENT/plimsoll-*; echo 67108864 > memory.peak; echo 'oom_kill 2' > memory.events
        printf 'user_usec 90000000\\nsystem_usec 0\\n' > cpu.stat; kill -9 $$";
    let output = run_in(&dev, &host, &["--cpu", "1", "--mem", "64Mi"], script);
    assert_eq!(output.status.code(), Some(137), "{}", said(&output));
    let told = "killed the command for want of memory (2 processes): its peak is 64Mi, its limit is 64Mi";
    assert!(said(&output).contains(told), "{}", said(&output));
    assert!(said(&output).contains("peak 64Mi of 64Mi"), "{}", said(&output));
    assert!(!said(&output).contains(", 0.0 of 1 cpu"), "{}", said(&output));
}

#[test]
fn a_resize_changes_the_limits_of_a_command_that_runs() {
    let dev = Dev::start(&[]);
    let host = host(&dev);
    let asked = ["run", "--cgroup-parent", host.to_str().unwrap(), "--cgroup", "require", "--ttl", "1s"];
    let asked = [&asked[..], &["--name", "grows", "--cpu", "500m", "--", "sleep", "60"]].concat();
    let child = command(dev.home.path(), &asked).stderr(Stdio::null()).spawn().unwrap();
    let mut child = common::Killed(child);
    let cpu_max = || {
        let group = groups(&host).pop()?;
        std::fs::read_to_string(group.join("cpu.max")).ok()
    };
    let wait_for = |wanted: &str| {
        let begun = Instant::now();
        while cpu_max().as_deref() != Some(wanted) {
            assert!(begun.elapsed() < Duration::from_secs(20), "cpu.max is {:?}, not {wanted}", cpu_max());
            std::thread::sleep(Duration::from_millis(20));
        }
    };
    wait_for("50000 100000");
    let list = common::json(dev.home.path(), &["get", "reservations"]);
    let id = list[0]["id"].as_str().unwrap().to_owned();
    let (code, _, stderr) = run(dev.home.path(), &["resize", &id, "--cpu", "250m"]);
    assert_eq!(code, 0, "{stderr}");
    wait_for("25000 100000");
    let pid = nix::unistd::Pid::from_raw(child.0.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).unwrap();
    child.0.wait().unwrap();
}

#[test]
fn a_host_without_is_told_once_and_only_who_requires_limits_is_refused() {
    let dev = Dev::start(&[]);
    let none = dev.home.path().join("none");
    let with = |mode: &str, rest: &[&str]| {
        let asked = ["run", "--cgroup", mode, "--cgroup-parent", none.to_str().unwrap(), "--"];
        let output = command(dev.home.path(), &[&asked, rest].concat()).output().unwrap();
        (output.status.code().unwrap_or(-1), said(&output))
    };
    let (code, stderr) = with("require", &["true"]);
    assert_eq!(code, 125, "{stderr}");
    assert!(stderr.contains("cgroup v2 is not mounted at") && !stderr.contains("granted"), "{stderr}");
    let (code, stderr) = with("auto", &["true"]);
    assert_eq!((code, stderr.matches("does not keep the command to its grant").count()), (0, 1), "{stderr}");
    let (code, stderr) = with("off", &["true"]);
    assert!(code == 0 && !stderr.contains("cgroup"), "{stderr}");
    // The codes of a command that cannot be started are the same inside a cgroup.
    let host = host(&dev);
    let text = dev.home.path().join("text");
    std::fs::write(&text, "no program").unwrap();
    std::fs::set_permissions(&text, std::fs::Permissions::from_mode(0o644)).unwrap();
    for (code, program) in [(127, "/no/such/command"), (126, text.to_str().unwrap())] {
        let asked = ["run", "--cgroup-parent", host.to_str().unwrap(), "--cgroup", "require", "--", program];
        let (ended, _, stderr) = run(dev.home.path(), &asked);
        assert_eq!(ended, code, "{stderr}");
        assert!(stderr.contains(&format!("cannot start {program}")), "{stderr}");
    }
}

/// The real thing: skipped, with the reason, where this machine has no cgroup that may be divided.
#[test]
fn a_command_that_takes_more_memory_than_it_was_granted_is_killed_where_the_host_has_cgroups() {
    if let Err(error) = plimsoll_agent::cgroup::CgroupTree::open() {
        return eprintln!("skipped: {error}");
    }
    let dev = Dev::start(&[]);
    let arguments = [
        "run",
        "--cgroup",
        "require",
        "--mem",
        "32Mi",
        "--",
        "sh",
        "-c",
        "head -c 200000000 /dev/zero | tail",
    ];
    let output = command(dev.home.path(), &arguments).output().unwrap();
    assert_eq!(output.status.code(), Some(137), "{}", said(&output));
    assert!(said(&output).contains("for want of memory"), "{}", said(&output));
    // Who goes on in the background ends with the lease.
    let script = "setsid sleep 600 & echo $!";
    let arguments = ["run", "--cgroup", "require", "--cpu", "100m", "--", "sh", "-c", script];
    let output = command(dev.home.path(), &arguments).output().unwrap();
    let pid = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(!Path::new("/proc").join(pid).exists(), "{}", said(&output));
}

/// What the machine's own agent measures, from the command line.
#[test]
fn what_a_node_measures_is_shown_beside_what_was_granted() {
    let dev = Dev::start(&[]);
    let begun = Instant::now();
    let measured = loop {
        let (code, stdout, stderr) = run(dev.home.path(), &["get", "nodes", "-o", "wide"]);
        assert_eq!(code, 0, "{stderr}");
        assert!(stdout.contains("MEASURED MEM") && stdout.contains("PRESSURE"), "{stdout}");
        let name = common::json(dev.home.path(), &["get", "nodes"])[0]["id"].as_str().unwrap().to_owned();
        let told = common::json(dev.home.path(), &["describe", "node", &name]);
        let measured = &told["object"]["measured"];
        if measured.is_object() {
            break measured.clone();
        }
        assert!(begun.elapsed() < Duration::from_secs(20), "nothing is measured: {told}");
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(measured["stale"], false, "{measured}");
    let bytes = |field: &str| measured[field].as_str().and_then(|text| text.parse::<u64>().ok());
    assert!(bytes("memoryUsedBytes") > Some(0) && bytes("memoryAvailableBytes") > Some(0), "{measured}");
    assert!(measured.get("swapUsedBytes") != Some(&serde_json::Value::Null), "{measured}");
}
