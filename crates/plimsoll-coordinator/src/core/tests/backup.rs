//! A saved ledger, and the cluster that is made of it.

use std::fs;
use std::sync::Arc;

use plimsoll_ledger::{Outcome, State};
use plimsoll_proto::codec;
use plimsoll_types::Revision;

use super::harness::*;
use crate::clock::SystemClock;
use crate::core::backup::{BackupError, BackupHead, RestoreError, Target, restore, save, verify};
use crate::core::doctor::{Start, examine};
use crate::core::{Core, CoreConfig, Data};

async fn start(data: Data, cluster: &str, bootstrap: bool) -> Core {
    let config = CoreConfig { bootstrap, ..CoreConfig::new(1, cluster, "127.0.0.1:1", data) };
    let core =
        Core::start(config, Arc::new(PlainDialer), Arc::new(SystemClock::new())).await.expect("starts");
    serving(&core).await;
    core
}

#[tokio::test(flavor = "multi_thread")]
async fn every_grant_is_in_the_restored_cluster_and_tokens_only_grow() {
    let place = tempfile::tempdir().expect("a directory");
    let (file, directory) = (place.path().join("ledger.plim"), place.path().join("data"));
    let old = start(Data::Memory, "lab", true).await;
    register(&old, "node-01", 64_000, 0).await;
    let mut grants = Vec::new();
    for _ in 0..30 {
        grants.push(reserve(&old, request(1_000)).await);
    }
    release(&old, &grants[0]).await;
    let dump = old.dump(Revision(0)).await.expect("read");
    let head = BackupHead::new("lab", 1, dump.revision.0, dump.log_time.0, &dump.chain);
    let rows = || dump.rows.iter().map(|(key, row)| Ok((codec::encode_key(key), codec::encode_row(row))));
    save(&file, &head, rows()).expect("saved");
    assert!(matches!(save(&file, &head, rows()), Err(BackupError::Exists(_))));
    old.shutdown().await;

    let verified = verify(&file).expect("whole");
    assert_eq!(verified.digest, plimsoll_proto::digest::hex(&dump.digest().digest));
    assert_eq!((verified.reservations, verified.nodes), (30, 1));
    let target = |cluster: &str| Target {
        directory: directory.clone(),
        cluster: cluster.to_owned(),
        node_id: 1,
        address: "127.0.0.1:1".to_owned(),
        skip_revisions: 1_000_000,
    };
    assert!(matches!(restore(&file, &target("lab")), Err(RestoreError::SameName(_))));
    let made = restore(&file, &target("lab-2")).expect("made");
    assert_eq!(made.revision.0, dump.revision.0 + 1_000_000);
    assert!(matches!(restore(&file, &target("lab-3")), Err(RestoreError::NotEmpty(_))));
    let diagnosis = examine(&directory, |_| ()).expect("looked at");
    assert_eq!((diagnosis.start, diagnosis.is_sound()), (Start::Normal, true), "{:#?}", diagnosis.checks);
    assert_eq!(diagnosis.facts.incarnation, made.incarnation);

    // Twice: what is found at the second start is not what the restoring wrote.
    for round in 0..2 {
        let new = start(Data::Directory(directory.clone()), "lab-2", false).await;
        assert!(new.local().revision() > made.revision);
        for grant in &grants[1 + round..] {
            let held = new.local().reservation(grant.id).cloned().expect("it is there");
            assert_eq!((held.token, held.state, &held.members), (grant.token, State::Active, &grant.members));
        }
        let gone = release(&new, &grants[1 + round]).await;
        assert!(
            matches!(gone, Outcome::Reservation(_)),
            "the token of the old cluster still holds: {gone:?}"
        );
        let next = reserve(&new, request(1_000)).await;
        assert!(next.token > made.revision, "{:?}", next.token);
        assert!(new.local().check_invariants().is_empty());
        new.shutdown().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_saved_file_that_is_cut_or_changed_is_refused() {
    let place = tempfile::tempdir().expect("a directory");
    let file = place.path().join("ledger.plim");
    let core = start(Data::Memory, "lab", true).await;
    register(&core, "node-01", 64_000, 0).await;
    let dump = core.dump(Revision(0)).await.expect("read");
    core.shutdown().await;
    let head = BackupHead::new("lab", 1, dump.revision.0, dump.log_time.0, &dump.chain);
    let rows = dump.rows.iter().map(|(key, row)| Ok((codec::encode_key(key), codec::encode_row(row))));
    save(&file, &head, rows).expect("saved");
    let whole = fs::read(&file).expect("readable");
    for at in (0..whole.len()).step_by(7) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(&file, &changed).expect("written");
        assert!(verify(&file).is_err(), "byte {at}");
        fs::write(&file, &whole[..at]).expect("written");
        assert!(verify(&file).is_err(), "cut at {at}");
    }
    // A head that promises another revision than the rows have.
    fs::remove_file(&file).expect("there");
    let head = BackupHead { revision: head.revision + 1, ..head };
    let rows = dump.rows.iter().map(|(key, row)| Ok((codec::encode_key(key), codec::encode_row(row))));
    save(&file, &head, rows).expect("saved");
    assert!(matches!(verify(&file), Err(BackupError::Unsound { .. })));
    // A save that fails leaves nothing.
    fs::remove_file(&file).expect("there");
    let rows = std::iter::once(Err(std::io::Error::other("the coordinator went away")));
    assert!(save(&file, &head, rows).is_err());
    assert_eq!(fs::read_dir(place.path()).expect("there").count(), 0);
}
