//! What listeners do to clients of a real coordinator: connections end at their age, and the SDK does not let it show;
//! `--peers` keeps a wiped member from beginning a second cluster.

mod common;

use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_client::v1::{ApplyPolicyRequest, ObjectKind, PolicyObject, Pool, WatchRequest, policy_object};
use plimsoll_client::{Client, ClientOptions};

use common::{Killed, PLIMSOLL, start};

fn coordinator(home: &Path, arguments: &[&str]) -> (Killed, String) {
    start(home, &[&["coordinator", "--listen", "127.0.0.1:0", "-q"], arguments].concat())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sdk_goes_on_while_its_connections_end_at_their_age() {
    let home = tempfile::tempdir().unwrap();
    let config = home.path().join("coordinator.toml");
    std::fs::write(&config, "[limits]\nconnection_age_ms = 300\nconnection_idle_ms = 250\n").unwrap();
    let config = config.display().to_string();
    let (_running, address) = coordinator(home.path(), &["--ephemeral", "--bootstrap", "--config", &config]);
    let client = Client::new([address], ClientOptions::default()).unwrap();
    let kinds = vec![ObjectKind::Pool.into()];
    let mut watch = client.watch(WatchRequest { kinds, ..WatchRequest::default() }).await.unwrap();

    let (mut made, began) = (0u32, Instant::now());
    while began.elapsed() < Duration::from_secs(3) {
        made += 1;
        let pool = Pool { name: "changing".to_owned(), max_pending: made, ..Pool::default() };
        let objects = vec![PolicyObject { object: Some(policy_object::Object::Pool(pool)) }];
        client
            .apply_policy(ApplyPolicyRequest { objects, ..ApplyPolicyRequest::default() })
            .await
            .expect("applied");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let mut seen = 0;
    while seen < made {
        let message = tokio::time::timeout(Duration::from_secs(20), watch.next()).await.expect("in time");
        seen += u32::try_from(message.expect("the watch goes on").events.len()).unwrap();
    }
    assert_eq!(seen, made, "every change is seen once");
}

#[test]
fn a_second_bootstrap_is_refused_where_a_peer_is_in_a_cluster() {
    let home = tempfile::tempdir().unwrap();
    let (_running, address) = coordinator(home.path(), &["--ephemeral", "--bootstrap"]);
    let refused = Command::new(PLIMSOLL)
        .args(["coordinator", "--listen", "127.0.0.1:0", "--ephemeral", "--node-id", "3", "--bootstrap"])
        .args(["--peers", &address])
        .env("PLIMSOLL_HOME", home.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&refused.stderr);
    assert_eq!(refused.status.code(), Some(6), "{said}");
    assert!(said.contains("cluster replace 3") && said.contains("without --bootstrap"), "{said}");
}
