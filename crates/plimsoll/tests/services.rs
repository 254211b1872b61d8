//! Services from the outside: replicas announced, picked, drained and gone, on a real `dev`.

mod common;

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::process::Stdio;
use std::time::{Duration, Instant};

use common::{Dev, Killed, command, json, run};
use serde_json::Value;

const SERVICES: &str = "
apiVersion: plimsoll/v1
kind: Service
metadata: { name: web }
spec: { class: batch, balancing: round_robin }
---
apiVersion: plimsoll/v1
kind: Service
metadata: { name: chat }
spec: { balancing: affinity, loadBound: 1.5, slowStart: 30s }
";

fn dev() -> Dev {
    let dev = Dev::start(&["--http-port", "0"]);
    std::fs::write(dev.home.path().join("services.yaml"), SERVICES).unwrap();
    let (code, applied, stderr) = run(dev.home.path(), &["apply", "-f", "services.yaml"]);
    assert_eq!((code, applied.as_str()), (0, "service/web created\nservice/chat created\n"), "{stderr}");
    dev
}

fn good(dev: &Dev, arguments: &[&str]) -> String {
    let (code, stdout, stderr) = run(dev.home.path(), arguments);
    assert_eq!(code, 0, "{arguments:?}: {stdout}{stderr}");
    stdout
}

/// What a model server would be: somebody who listens.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    (listener, address)
}

/// Addresses of a service and their states.
fn endpoints(dev: &Dev, service: &str) -> Vec<(String, String)> {
    let listed = json(dev.home.path(), &["get", "endpoints", service]);
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let one = |of: &Value| (text(&of["endpoint"]["address"]), text(&of["state"]));
    listed.as_array().unwrap_or_else(|| panic!("{listed}")).iter().map(one).collect()
}

fn wait_for(dev: &Dev, service: &str, wanted: &[(&str, &str)]) {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let found = endpoints(dev, service);
        let same = found
            .iter()
            .map(|(address, state)| (address.as_str(), state.as_str()))
            .eq(wanted.iter().copied());
        if same {
            return;
        }
        assert!(Instant::now() < until, "{found:?}, not {wanted:?}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

const SERVING: &str = "ENDPOINT_STATE_SERVING";
const DRAINING: &str = "ENDPOINT_STATE_DRAINING";

#[test]
fn a_command_is_an_endpoint_from_when_it_listens_until_it_is_to_stop() {
    let dev = dev();
    let address = {
        let (_unused, address) = listener();
        address
    };
    let asked = ["run", "--service", "web", "--cpu", "500m", "--listen", &address, "--drain-for", "30s"];
    let arguments = [&asked[..], &["--", "sleep", "60"]].concat();
    let mut child = Killed(command(dev.home.path(), &arguments).stderr(Stdio::piped()).spawn().unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while !good(&dev, &["get", "reservations"]).contains("active") {
        assert!(Instant::now() < until, "it is granted");
        std::thread::sleep(Duration::from_millis(50));
    }
    // It does not listen yet.
    assert_eq!(endpoints(&dev, "web"), []);
    let (code, _, refused) = run(dev.home.path(), &["pick", "web"]);
    assert_eq!(code, 1, "{refused}");
    assert!(refused.contains("NO_ENDPOINT") && refused.contains("0 serving"), "{refused}");
    let listening = TcpListener::bind(&address).unwrap();
    wait_for(&dev, "web", &[(&address, SERVING)]);
    assert_eq!(good(&dev, &["pick", "web"]).trim(), address);
    // The class is the service's.
    assert!(good(&dev, &["get", "reservations", "--class", "batch", "-o", "name"]).starts_with("r-"));
    let pid = child.0.id().to_string();
    let stop =
        || assert!(std::process::Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    stop();
    // Its clients hear of it first; who asks twice means it.
    wait_for(&dev, "web", &[(&address, DRAINING)]);
    assert!(child.0.try_wait().unwrap().is_none());
    stop();
    child.0.wait().unwrap();
    assert_eq!(endpoints(&dev, "web"), [], "it left with its lease");
    drop(listening);
}

#[test]
fn a_command_tells_the_agent_its_load_and_every_coordinator_shows_it() {
    let dev = dev();
    let (_listening, address) = listener();
    let arguments = ["run", "--service", "web", "--cpu", "500m", "--listen", &address, "--", "sh", "-c"];
    let script = "echo $PLIMSOLL_AGENT_SOCKET $PLIMSOLL_TOKEN; exec sleep 60";
    let mut child = Killed(
        command(dev.home.path(), &[&arguments[..], &[script]].concat())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap(),
    );
    wait_for(&dev, "web", &[(&address, SERVING)]);
    let mut line = String::new();
    BufReader::new(child.0.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let (socket, token) = line.trim().split_once(' ').expect("a socket and a token");
    let say = |token: &str| {
        let load = r#"{"in_flight":3,"utilization_permille":744,"metrics_milli":{"tokens_per_s":12500}}"#;
        let body = format!(r#"{{"token":{token},"load":{load}}}"#);
        let head =
            "POST /v1/load HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\nconnection: close";
        let mut stream = UnixStream::connect(socket).unwrap();
        write!(stream, "{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    };
    // The announcement may be younger than the first heartbeat with the load: a replica says it every second.
    let until = Instant::now() + Duration::from_secs(20);
    let load = loop {
        let answer = say(token);
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        let load = json(dev.home.path(), &["get", "endpoints", "web"])[0]["load"].clone();
        // Its node may have been first to say something.
        if load["inFlight"] == 3 {
            break load;
        }
        assert!(Instant::now() < until, "no load is shown: {load}");
        std::thread::sleep(Duration::from_millis(200));
    };
    assert_eq!(load["utilizationPermille"], Value::from(740));
    assert_eq!(load["metrics"]["tokens_per_s"], Value::from("12000"), "two digits are kept");
    let answer = say("1");
    assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("no lease"), "{answer}");
}

const BUSY: &str = "
apiVersion: plimsoll/v1
kind: ScalingPolicy
metadata: { name: busy }
spec: { target: service/web, min: 1, max: 4, targets: [{ metric: cpu, target: 10% }] }
";

#[test]
fn what_a_command_uses_is_measured_by_its_node_and_a_policy_goes_by_it() {
    let dev = dev();
    let (_listening, address) = listener();
    // It ends with whoever started it: nothing of it is left where the test is killed.
    let busy = "while kill -0 $PPID 2>/dev/null; do :; done";
    let asked = ["--cpu", "500m", "--mem", "64Mi", "--listen", &address];
    let arguments = [&["run", "--service", "web"][..], &asked, &["--", "sh", "-c", busy]].concat();
    let silent = || Stdio::null();
    let _child =
        Killed(command(dev.home.path(), &arguments).stdout(silent()).stderr(silent()).spawn().unwrap());
    wait_for(&dev, "web", &[(&address, SERVING)]);
    std::fs::write(dev.home.path().join("busy.yaml"), BUSY).unwrap();
    good(&dev, &["apply", "-f", "busy.yaml"]);
    let until = Instant::now() + Duration::from_secs(60);
    let measured = |load: &Value, name: &str| {
        load["metrics"][name].as_str().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
    };
    loop {
        let load = json(dev.home.path(), &["get", "endpoints", "web"])[0]["load"].clone();
        let scaled = json(dev.home.path(), &["describe", "scaling", "busy"])["object"].clone();
        let desired =
            scaled["status"]["decision"]["desired"].as_str().and_then(|text| text.parse::<u64>().ok());
        // A loop takes a whole core where it gets one: at least a tenth of the half that it was granted.
        if measured(&load, "cpu") > 10_000 && measured(&load, "memory") > 0 && desired > Some(1) {
            assert_eq!(load["measuredOnly"], true, "it says nothing of itself: {load}");
            return;
        }
        assert!(Instant::now() < until, "{load} {}", scaled["status"]);
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[test]
fn replicas_are_announced_drained_and_withdrawn_by_hand() {
    let dev = dev();
    let reserve = ["reserve", "--service", "web", "--cpu", "100m", "--confirm", "--ttl", "1h", "-o", "name"];
    let [a, b] = [(); 2].map(|()| good(&dev, &reserve).trim().to_owned());
    good(&dev, &["announce", &a, "--listen", "127.0.0.1:8001", "--zone", "west"]);
    good(&dev, &["announce", &b, "--listen", "127.0.0.1:8002", "--weight", "0.5", "--concurrency", "4"]);
    wait_for(&dev, "web", &[("127.0.0.1:8001", SERVING), ("127.0.0.1:8002", SERVING)]);
    let picked: Vec<String> = (0..6).map(|_| good(&dev, &["pick", "web"]).trim().to_owned()).collect();
    // In turns, by weight: two to one.
    assert_eq!(picked.iter().filter(|address| *address == "127.0.0.1:8001").count(), 4, "{picked:?}");
    good(&dev, &["announce", &a, "--drain"]);
    wait_for(&dev, "web", &[("127.0.0.1:8001", DRAINING), ("127.0.0.1:8002", SERVING)]);
    for _ in 0..3 {
        assert_eq!(good(&dev, &["pick", "web"]).trim(), "127.0.0.1:8002");
    }
    // It says the rest as before.
    let listed = json(dev.home.path(), &["get", "endpoints", "web"]);
    assert_eq!(listed[0]["endpoint"]["zone"], "west");
    good(&dev, &["announce", &a, "--withdraw"]);
    wait_for(&dev, "web", &[("127.0.0.1:8002", SERVING)]);
    let (code, _, refused) = run(dev.home.path(), &["announce", &b, "--listen", "nowhere"]);
    assert_eq!(code, 2, "{refused}");
    assert!(refused.contains("is not host:port"), "{refused}");
    let (code, _, refused) =
        run(dev.home.path(), &["announce", &b, "--listen", "127.0.0.1:1", "--token", "1"]);
    assert_eq!(code, 6, "{refused}");
    assert!(refused.contains("FENCED"), "{refused}");
    let shown = good(&dev, &["describe", "service", "web"]);
    assert!(shown.contains("Serving:") && shown.contains("round robin"), "{shown}");
    let (code, _, refused) = run(dev.home.path(), &["delete", "service", "web"]);
    assert_eq!(code, 1, "{refused}");
    good(&dev, &["release", &a]);
    good(&dev, &["release", &b]);
    good(&dev, &["delete", "service", "web"]);
}

#[test]
fn a_key_stays_with_its_endpoint_and_files_come_back_as_they_were() {
    let dev = dev();
    let reserve = ["reserve", "--service", "chat", "--cpu", "100m", "--confirm", "--ttl", "1h", "-o", "name"];
    for port in 8001..8005 {
        let id = good(&dev, &reserve).trim().to_owned();
        good(&dev, &["announce", &id, "--listen", &format!("127.0.0.1:{port}")]);
    }
    let pick = |key: &str| {
        json(dev.home.path(), &["pick", "chat", "--affinity", key])["endpoint"]["address"].clone()
    };
    let home = pick("session-7");
    for _ in 0..5 {
        assert_eq!(pick("session-7"), home, "what was picked by a command is not outstanding");
    }
    let others: std::collections::BTreeSet<String> =
        (0..20).map(|key| pick(&format!("session-{key}")).to_string()).collect();
    assert!(others.len() > 1, "{others:?}");
    let yaml = good(&dev, &["get", "services", "-o", "yaml"]);
    assert!(yaml.contains("loadBound: 1.5\n"), "{yaml}");
    std::fs::write(dev.home.path().join("again.yaml"), &yaml).unwrap();
    let (code, diff, stderr) = run(dev.home.path(), &["diff", "-f", "again.yaml"]);
    assert_eq!((code, diff.as_str()), (0, ""), "{stderr}");
    let (code, _, refused) = run(dev.home.path(), &["reserve", "--service", "nosuch", "--cpu", "1", "--now"]);
    assert_eq!(code, 5, "{refused}");
    assert!(refused.contains("SERVICE_NOT_FOUND"), "{refused}");
    let (code, _, refused) =
        run(dev.home.path(), &["reserve", "--service", "chat", "--class", "high", "--cpu", "1", "--now"]);
    assert_eq!(code, 2, "{refused}");
    assert!(refused.contains("service chat is of class standard"), "{refused}");
}

#[test]
fn prometheus_finds_the_endpoints() {
    let home = tempfile::tempdir().unwrap();
    let (_dev, http) = start_with_http(&home);
    std::fs::write(home.path().join("services.yaml"), SERVICES).unwrap();
    let done = |arguments: &[&str]| {
        let (code, stdout, stderr) = run(home.path(), arguments);
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        stdout
    };
    done(&["apply", "-f", "services.yaml"]);
    let reserve = ["reserve", "--service", "web", "--cpu", "100m", "--confirm", "--ttl", "1h", "-o", "name"];
    let id = done(&reserve).trim().to_owned();
    assert_eq!(get(&http, "/sd/prometheus/web"), (200, serde_json::json!([])));
    done(&["announce", &id, "--listen", "127.0.0.1:8001"]);
    let (_, targets) = get(&http, "/sd/prometheus/web");
    assert_eq!(targets[0]["targets"], serde_json::json!(["127.0.0.1:8001"]));
    assert_eq!(targets[0]["labels"]["__meta_plimsoll_state"], "serving");
    assert_eq!(targets[0]["labels"]["__meta_plimsoll_reservation"], id.as_str());
    assert_eq!(get(&http, "/sd/prometheus"), (200, targets));
    assert_eq!(get(&http, "/sd/prometheus/nosuch").0, 404);
    done(&["release", &id]);
    assert_eq!(get(&http, "/sd/prometheus/web"), (200, serde_json::json!([])));
}

fn start_with_http(home: &tempfile::TempDir) -> (Killed, String) {
    use std::io::{BufRead as _, BufReader};
    let arguments = ["dev", "--port", "0", "--http-port", "0", "-o", "jsonl"];
    let mut child = command(home.path(), &arguments).stdout(Stdio::piped()).spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let told: Value = serde_json::from_str(&line).unwrap();
    (Killed(child), told["httpAddress"].as_str().unwrap().to_owned())
}

/// Status and JSON body of a page; null where the body is none.
fn get(address: &str, path: &str) -> (u16, Value) {
    let mut stream = TcpStream::connect(address).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap_or(0);
    let body = text.split_once("\r\n\r\n").map(|(_, body)| body).unwrap_or_default();
    (status, serde_json::from_str(body).unwrap_or(Value::Null))
}
