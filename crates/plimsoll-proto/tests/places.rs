//! Topology and affinity on the wire and in the log: nothing is lost, nothing is stored where nothing was asked, and what is wrong is listed.

use plimsoll_ledger::{
    Affinity, Blocker, Command, Entry, PolicyObject, Pool, Reason, Request, Topology, Verdict,
};
use plimsoll_proto::{codec, convert, v1};
use plimsoll_types::Revision;

fn request() -> Request {
    let rule = |value: &str, level: &str, weight, anti| Affinity {
        key: "app".into(),
        value: value.into(),
        level: level.into(),
        weight,
        anti,
    };
    let mut request = Request { pool: "default".into(), class: "standard".into(), ..Request::default() };
    (request.gang.min_members, request.gang.max_members) = (8, 16);
    request.topology = Topology {
        required: "block".into(),
        preferred: "rack".into(),
        slice_size: 4,
        slice_level: "rack".into(),
    };
    request.affinity = vec![rule("db", "node", 0, false), rule("web", "zone", 50, true)];
    request
}

fn submit(request: Request) -> Entry {
    Entry::system(Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) })
}

#[test]
fn a_request_comes_back_from_the_log_and_from_the_wire() {
    let entry = submit(request());
    assert_eq!(codec::decode_entry(&codec::encode_entry(&entry)), Ok(entry.clone()));
    assert_eq!(entry.command.since_version(), 4);
    let message = convert::request_to_v1(&request());
    assert_eq!(convert::request_from_v1(&message), Ok(request()));
    let plain = submit(Request { pool: "default".into(), class: "standard".into(), ..Request::default() });
    assert_eq!(plain.command.since_version(), 1);
    let (with, without) = (codec::encode_entry(&entry).len(), codec::encode_entry(&plain).len());
    assert!(with > without + 40, "{with} {without}");
}

#[test]
fn levels_of_a_pool_come_back_and_need_version_4() {
    let topology = vec!["zone".to_owned(), "rack".to_owned()];
    let pool = Pool { name: "default".into(), topology, ..Pool::default() };
    let put = vec![PolicyObject::Pool(pool.clone())];
    let entry = Entry::system(Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) });
    assert_eq!(codec::decode_entry(&codec::encode_entry(&entry)), Ok(entry.clone()));
    assert_eq!(entry.command.since_version(), 4);
    assert_eq!(convert::pool_from_v1(&convert::pool_to_v1(&pool)), Ok(pool));
}

#[test]
fn everything_that_is_wrong_is_listed_with_its_path() {
    let mut message = convert::request_to_v1(&request());
    message.topology = Some(v1::Topology { slice_size: 3, slice_level: "rack".into(), ..Default::default() });
    message.affinity[0].key.clear();
    message.affinity[1].weight = 101;
    let wrong = convert::request_from_v1(&message).expect_err("three things are wrong");
    let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["topology.slice_size", "affinity[0].key", "affinity[1].weight"]);
    let levels = ["node", "rack", "rack", ""].map(str::to_owned).to_vec();
    let wrong = convert::pool_from_v1(&v1::Pool { name: "p".into(), topology: levels, ..Default::default() });
    let wrong = wrong.expect_err("all but the first rack");
    let fields: Vec<&str> = wrong.iter().map(|violation| violation.field.as_str()).collect();
    assert_eq!(fields, ["topology[0]", "topology[2]", "topology[3]"]);
}

#[test]
fn blockers_are_sentences() {
    let sentence = |reason, subject: &str, asked, available| {
        convert::blocker_to_v1(&Blocker::new(reason, subject, asked, available)).message
    };
    let members = sentence(Reason::TopologyMismatch, "rack a/7", 4, 3);
    assert_eq!(members, "rack a/7: 4 members asked, 3 fit there at most");
    let level = sentence(Reason::InvalidArgument, "level row of pool p", 1, 0);
    assert_eq!(level, "level row of pool p: there is none");
    let apart = sentence(Reason::AffinityConflict, "apart from app=web@rack in a/7", 0, 2);
    assert_eq!(apart, "apart from app=web@rack in a/7: 2 there");
    let with = sentence(Reason::AffinityConflict, "with app=db@rack in a/7", 1, 0);
    assert_eq!(with, "with app=db@rack in a/7: nobody there carries it");
}
