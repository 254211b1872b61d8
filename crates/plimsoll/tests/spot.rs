//! Spot nodes from the outside: a node says how it is paid for, its agent hears that the provider takes it back, and what runs there saves its work and
//! goes on later.

mod common;

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Dev, Killed, command, json, run};

const PATIENCE: Duration = Duration::from_secs(40);
/// Saves when it is told to, and ends at once where something is saved already.
const SCRIPT: &str = "if [ -f saved ]; then echo $PLIMSOLL_ATTEMPT > resumed; exit 0; fi
trap 'echo half > saved; exit 0' USR1
echo up > started
while :; do sleep 0.05; done";

fn until(what: &str, is_so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !is_so() {
        assert!(begun.elapsed() < PATIENCE, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn said(home: &Path, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(home, arguments);
    assert_eq!(code, 0, "{arguments:?}: {stderr}");
    stdout
}

#[test]
fn work_on_a_node_that_is_taken_back_saves_first_and_goes_on_with_its_next_grant() {
    let dev = Dev::start(&["--nodes", "1"]);
    let home = dev.home.path();
    let agent = [
        "agent",
        "--name",
        "spot-01",
        "--capacity-type",
        "spot",
        "--price",
        "0.35",
        "--spot-pool",
        "west",
        "--interruption-notice",
        "file:notice",
        "--heartbeat",
        "200ms",
        "--socket",
        "spot.sock",
    ];
    let _agent = Killed(command(home, &agent).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap());
    let shows = |word: &str| run(home, &["get", "nodes", "spot-01"]).1.contains(word);
    until("the node registers", || shows("available"));
    assert!(shows("spot"), "{}", said(home, &["get", "nodes"]));
    let node = json(home, &["get", "nodes", "spot-01"])[0].clone();
    assert_eq!(
        (node["labels"]["price_permille"].as_str(), node["labels"]["spot_pool"].as_str()),
        (Some("350"), Some("west"))
    );

    let asked = [
        "run",
        "--cpu",
        "1",
        "--require",
        "capacity_type=spot",
        "--anywhere",
        "--on-interruption",
        "checkpoint_and_retry",
        "--",
        "sh",
        "-c",
        SCRIPT,
    ];
    let mut holder = command(home, &asked).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    until("the command starts", || home.join("started").exists());
    std::fs::write(home.join("notice"), "30s").unwrap();
    until("the command saves its work", || home.join("saved").exists());
    until("the node is closed", || shows("interrupted"));
    assert!(shows("taken back in"), "{}", said(home, &["get", "nodes"]));
    until("the reservation waits again", || run(home, &["get", "reservations"]).1.contains("pending"));
    let told = said(home, &["events", "--limit", "50"]);
    assert!(told.contains("interrupt/notice") && told.contains("node/interrupted"), "{told}");
    assert!(!home.join("resumed").exists());

    // A false alarm: the operator opens it again.
    said(home, &["uncordon", "spot-01"]);
    until("the command goes on", || home.join("resumed").exists());
    let ended = holder.wait().unwrap();
    let mut words = String::new();
    std::io::Read::read_to_string(&mut holder.stderr.take().unwrap(), &mut words).unwrap();
    assert!(ended.success(), "{words}");
    assert!(words.contains("the provider takes its node back"), "{words}");
    assert_eq!(std::fs::read_to_string(home.join("resumed")).unwrap().trim(), "2");
}

#[test]
fn a_share_of_the_work_is_on_spot_nodes_and_who_waits_for_it_is_told() {
    let dev = Dev::start(&["--nodes", "2", "--node-label", "capacity_type=on_demand,spot"]);
    let home = dev.home.path();
    let policy = "
apiVersion: plimsoll/v1
kind: Pool
metadata: { name: default }
spec:
  spot: { share: 50%, maxPriceIncrease: 2.0, suitableFor: [batch, preprocessing], onInterruption: fail }
";
    std::fs::write(home.join("spot.yaml"), policy).unwrap();
    said(home, &["apply", "-f", "spot.yaml"]);
    let (code, differs, _) = run(home, &["diff", "-f", "spot.yaml", "--exit-code"]);
    assert_eq!(code, 0, "it is what was written: {differs}");
    let asks = ["reserve", "--cpu", "100m", "--confirm", "--ttl", "5m"];
    let place = |class: &str| {
        let made = json(home, &[&asks[..], &["--class", class]].concat());
        let node = made["allocations"][0]["node"].as_str().unwrap().to_owned();
        json(home, &["get", "nodes", &node])[0]["labels"]["capacity_type"].as_str().unwrap().to_owned()
    };
    assert_eq!(["batch"; 4].map(place), ["on_demand", "spot", "on_demand", "spot"]);
    assert_eq!(place("standard"), "on_demand", "it is not suitable");
    let (code, _, refused) = run(
        home,
        &[&asks[..], &["--now", "--require", "capacity_type=spot", "--members", "4", "--class", "batch"]]
            .concat(),
    );
    assert_eq!(code, 1, "{refused}");
    assert!(
        refused.contains("pool default: 4 members asked on spot nodes, 2 more may be there"),
        "{refused}"
    );
}
