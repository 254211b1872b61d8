//! `docs/operations.md` lists the metrics that a running coordinator has: all of them, and no other.

use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use crate::page;
use crate::session::Session;

#[test]
fn the_list_of_metrics_is_that_of_a_running_coordinator() {
    let mut session = Session::new();
    let said = session.start_dev("--fake-gpu a100:2");
    let url = said.split_whitespace().find_map(|word| word.strip_prefix("http://")).expect("an address");
    let address = url.trim_end_matches("/metrics");
    let mut stream = TcpStream::connect(address).expect("the listener answers");
    write!(stream, "GET /metrics HTTP/1.0\r\nHost: {address}\r\n\r\n").expect("the request is sent");
    let mut answer = String::new();
    stream.read_to_string(&mut answer).expect("the answer is text");

    let served: BTreeMap<&str, &str> =
        answer.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ')).collect();
    assert!(served.len() > 20, "{answer}");
    let text = page::read("docs/operations.md");
    let listed: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| {
            let (name, rest) = line.strip_prefix("| `plimsoll_")?.split_once("` | ")?;
            let kind = rest.split(" |").next()?;
            if !["counter", "gauge", "histogram"].contains(&kind) {
                return None;
            }
            let start = line.find("plimsoll_")?;
            Some((&line[start..start + "plimsoll_".len() + name.len()], kind))
        })
        .collect();
    // What can be measured depends on the machine, and on whether its agent was heard by now.
    let is_measured = |name: &&str| {
        name.starts_with("plimsoll_node_measured_") || **name == *"plimsoll_node_sample_age_seconds"
    };
    let fixed = |all: &BTreeMap<&str, &str>| -> BTreeMap<String, String> {
        let kept = all.iter().filter(|(name, _)| !is_measured(name));
        kept.map(|(name, kind)| ((*name).to_owned(), (*kind).to_owned())).collect()
    };
    assert_eq!(fixed(&listed), fixed(&served));
    for (name, kind) in served.iter().filter(|(name, _)| is_measured(name)) {
        assert_eq!(listed.get(name), Some(kind), "{name}");
    }
}
