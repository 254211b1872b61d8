//! Clients that limit themselves: they spend tokens of a rate of the cluster out of slices that they take ahead, through changes of leader and lost answers.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use plimsoll_client::v1::policy_object::Object;
use plimsoll_client::{Client, Error, v1};

use crate::board::{Board, Phase};
use crate::rng::Rng;

/// The quota that their rate is of; nobody else changes it or takes of it.
pub const QUOTA: &str = "slices";
/// The rate.
pub const RATE: &str = "calls";
/// How many of them there are.
const SPENDERS: usize = 3;
/// Tokens a second, and at once.
const TOKENS: u64 = 20;
const BURST: u64 = 10;
/// Between tries where there is nothing to be had.
const PAUSE: Duration = Duration::from_millis(700);

/// Spends until the chaos is over.
///
/// # Errors
/// Where a client cannot be made.
pub async fn spend(board: Arc<Board>, members: &[u64]) -> Result<(), Error> {
    let clients: Result<Vec<Client>, Error> =
        (0..SPENDERS).map(|index| super::client(board.seed, &format!("spender-{index}"), members)).collect();
    let one = |(index, client)| spender(Arc::clone(&board), client, index);
    join_all(clients?.into_iter().enumerate().map(one)).await;
    Ok(())
}

async fn spender(board: Arc<Board>, client: Client, index: usize) {
    let mut rng = Rng::of(board.seed, &format!("spender-{index}-choices"));
    let rate = client.rate(QUOTA, RATE, "");
    while board.phase() == Phase::Chaos {
        let tokens = rng.weighted(&[(6, 1), (2, 3), (1, BURST)]).unwrap_or(1);
        match rate.spend(tokens, Duration::from_secs(2)).await {
            Ok(()) => board.spent(tokens),
            // In an old version of the ledger there are no rates; it is put until there are.
            Err(error) if index == 0 && error.reason_name() == "NOT_FOUND" => {
                let _ = client.apply_policy(the_rate(board.seed)).await;
                tokio::time::sleep(PAUSE).await;
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
        tokio::time::sleep(Duration::from_millis(rng.between(0, 120))).await;
    }
}

fn the_rate(seed: u64) -> v1::ApplyPolicyRequest {
    let rate = v1::UsageRate { tokens: TOKENS, period_ms: 1_000, burst: BURST };
    let rates = [(RATE.to_owned(), rate)].into();
    let quota = v1::UsageQuota { name: QUOTA.to_owned(), rates, ..Default::default() };
    let objects = vec![v1::PolicyObject { object: Some(Object::Quota(quota)) }];
    v1::ApplyPolicyRequest { request_id: format!("sim-{seed}-slices"), objects, ..Default::default() }
}
