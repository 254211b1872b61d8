//! Programs and processes that really run.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

use plimsoll_ledger::{ProviderKind, ScalingTarget};
use plimsoll_provider::{Ask, ProviderSettings, Providers, RealProviders, end_all};

fn script(folder: &Path, name: &str, text: &str) {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("a file");
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).expect("a mode");
}

fn ask(scope: &str, machine: u64) -> Ask {
    Ask {
        scope: scope.to_owned(),
        machine,
        policy: "grow".to_owned(),
        target: ScalingTarget::Pool("default".to_owned()),
        node: format!("grow-i{machine}"),
        addresses: vec!["127.0.0.1:1".to_owned()],
        wanted: 1,
        ..Ask::default()
    }
}

fn exec(folder: &Path, command: &str) -> ProviderKind {
    assert!(folder.join(command).exists());
    ProviderKind::Exec { command: command.to_owned(), args: vec!["--zone=a".to_owned()] }
}

#[tokio::test]
async fn a_program_is_told_what_is_asked_and_its_answer_is_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let text = "#!/bin/sh\necho \"$@\" $PLIMSOLL_SCALING_KEY > $0.log; cat >> $0.log\necho '{\"handle\": \"vm-7\", \"node\": \"named-by-cloud\"}'\n";
    script(folder.path(), "cloud", text);
    let settings =
        ProviderSettings { exec_dir: Some(folder.path().to_owned()), ..ProviderSettings::default() };
    let providers = RealProviders::new(settings);
    let machines = providers.machines(&exec(folder.path(), "cloud")).expect("it may");
    let started = machines.start(&ask("test", 7)).await.expect("it starts");
    assert_eq!((started.handle.as_str(), started.node.as_str()), ("vm-7", "named-by-cloud"));
    let log = std::fs::read_to_string(folder.path().join("cloud.log")).expect("it ran");
    assert!(log.starts_with("--zone=a start test/7\n{\"action\":\"start\",\"key\":\"test/7\""), "{log}");
    machines.stop(&ask("test", 7)).await.expect("it stops");
}

#[tokio::test]
async fn a_program_says_whether_it_may_be_tried_again() {
    let folder = tempfile::tempdir().expect("a folder");
    script(folder.path(), "busy", "#!/bin/sh\necho 'no room in zone a' >&2; exit 1\n");
    script(folder.path(), "never", "#!/bin/sh\necho 'no such account' >&2; exit 78\n");
    let settings =
        ProviderSettings { exec_dir: Some(folder.path().to_owned()), ..ProviderSettings::default() };
    let providers = RealProviders::new(settings);
    for (name, said, again) in [("busy", "no room in zone a", true), ("never", "no such account", false)] {
        let machines = providers.machines(&exec(folder.path(), name)).expect("it may");
        let error = machines.start(&ask("test", 1)).await.expect_err("it fails");
        assert!(error.message.ends_with(said), "{error}");
        assert_eq!(error.again, again, "{name}");
    }
}

#[test]
fn only_what_a_coordinator_was_started_with_is_done() {
    let providers = RealProviders::new(ProviderSettings::default());
    for kind in [
        ProviderKind::Process,
        ProviderKind::Exec { command: "sh".to_owned(), args: Vec::new() },
        ProviderKind::Webhook { url: "http://127.0.0.1:1/".to_owned() },
        ProviderKind::ExternalGrpc { address: "127.0.0.1:1".to_owned(), group: "g".to_owned() },
    ] {
        let error = providers.machines(&kind).err().expect("closed");
        assert!(error.message.contains("--scaling-provider"), "{error}");
        assert!(!error.again);
    }
    let folder = tempfile::tempdir().expect("a folder");
    let settings =
        ProviderSettings { exec_dir: Some(folder.path().to_owned()), ..ProviderSettings::default() };
    for command in ["../sh", "/bin/sh", ".hidden", ""] {
        let kind = ProviderKind::Exec { command: command.to_owned(), args: Vec::new() };
        assert!(RealProviders::new(settings.clone()).machines(&kind).is_err(), "{command:?}");
    }
}

#[tokio::test]
async fn a_process_is_found_again_by_whoever_leads_and_ends_when_told() {
    let folder = tempfile::tempdir().expect("a folder");
    // Stands for the agent: what counts is that it runs with the arguments that it was given.
    script(folder.path(), "agent", "#!/bin/sh\nwhile :; do sleep 0.1; done\n");
    let scope = format!("programs-{}", std::process::id());
    let settings =
        ProviderSettings { process: Some(folder.path().join("agent")), ..ProviderSettings::default() };
    let first = RealProviders::new(settings.clone()).machines(&ProviderKind::Process).expect("it may");
    let started = first.start(&ask(&scope, 3)).await.expect("it starts");
    let next_leader = RealProviders::new(settings).machines(&ProviderKind::Process).expect("it may");
    // Its arguments are there once it is the program.
    tokio::time::sleep(Duration::from_millis(300)).await;
    let again = next_leader.start(&ask(&scope, 3)).await.expect("it is there");
    assert_eq!(again, started, "one key, one process");
    let other = next_leader.start(&ask(&scope, 4)).await.expect("it starts");
    assert_ne!(other, started);
    next_leader.stop(&ask(&scope, 3)).await.expect("it ends");
    assert!(!Path::new(&format!("/proc/{}/cmdline", started.handle)).exists() || is_gone(&started.handle));
    next_leader.stop(&ask(&scope, 3)).await.expect("what is not there is stopped");
    assert_eq!(end_all(&scope).await, Ok(1), "the other one");
}

/// Ended, and not waited for yet.
fn is_gone(pid: &str) -> bool {
    std::fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.is_empty())
}
