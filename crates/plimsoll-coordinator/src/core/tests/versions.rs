//! Ledger versions across restarts: a build that does not know the version in force does not start, and says what to do.

use std::sync::Arc;

use plimsoll_ledger::{Command, LATEST_VERSION, Outcome};

use super::harness::*;
use crate::core::{Core, CoreConfig, Data, StartError};

#[tokio::test(start_paused = true)]
async fn a_new_ledger_is_of_the_newest_version_and_an_older_one_stays_as_it_is() {
    let clock = TokioClock::new();
    let new = single(&stores(), &clock).await;
    assert_eq!(new.status().ledger_version, LATEST_VERSION);
    new.shutdown().await;

    let kept = stores();
    let older = single_with(&kept, &clock, |config| config.newest_version = 1).await;
    assert_eq!(older.status().ledger_version, 1);
    register(&older, "node-01", 4_000, 0).await;
    older.shutdown().await;
    let newer = single(&kept, &clock).await;
    assert_eq!(newer.status().ledger_version, 1, "something was decided by the older rules");
    assert_eq!(do_it(&newer, Command::Upgrade { to: LATEST_VERSION }).await, Outcome::Done);
    assert_eq!(newer.status().ledger_version, LATEST_VERSION);
    newer.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_build_that_does_not_know_the_version_does_not_start() {
    let (kept, clock) = (stores(), TokioClock::new());
    let core = single(&kept, &clock).await;
    register(&core, "node-01", 4_000, 0).await;
    core.shutdown().await;
    let data = Data::Custom(kept.clone());
    let config = CoreConfig { newest_version: 1, ..CoreConfig::new(1, "test", "127.0.0.1:1", data) };
    let refused = Core::start(config, Arc::new(PlainDialer), Arc::clone(&clock) as _).await.err();
    let refused = refused.expect("it would apply by rules that it does not know");
    assert!(matches!(refused, StartError::TooOld { found: LATEST_VERSION, newest: 1 }), "{refused}");
    let told = format!("start a build that knows version {LATEST_VERSION}");
    assert!(refused.to_string().contains(&told), "{refused}");
    let again = single(&kept, &clock).await;
    assert_eq!(again.status().ledger_version, LATEST_VERSION, "nothing was changed");
    again.shutdown().await;
}
