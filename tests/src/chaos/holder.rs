//! A client in a process of its own, so that it can be stopped: it holds a lease by the SDK, and later does everything it can think of with
//! its token. It talks by lines on its standard streams.

use std::io::Write as _;
use std::time::Duration;

use plimsoll_client::{Client, Error, Lease, v1};
use tokio::io::{AsyncBufReadExt as _, BufReader};

use super::workload;
use crate::Access;

/// What it holds: a lease with a token. Line: `granted ID TOKEN`.
pub const GRANTED: &str = "granted";
/// The SDK says that the lease is lost. Line: `lost REASON`.
pub const LOST: &str = "lost";
/// One attempt. Line: `tried WHAT done|refused|unknown REASON`.
pub const TRIED: &str = "tried";
/// It has tried everything.
pub const OVER: &str = "over";
/// Cores of the lease, in thousandths.
const CPU_MILLIS: u64 = 50;

/// Takes a lease of so many milliseconds and keeps it; then, for each line `ID` that it is told, uses its token on its own reservation and on
/// that one. Ends with its standard input.
///
/// # Errors
/// Where it gets no lease.
pub async fn hold(addresses: Vec<String>, ttl_ms: u64) -> Result<(), String> {
    let options = Access::default().options(workload::options());
    let client = Client::new(addresses, options).map_err(|error| error.to_string())?;
    let amounts = v1::Quantities { cpu_millis: CPU_MILLIS, ..Default::default() };
    let spec = v1::ReservationSpec {
        name: "holder".to_owned(),
        requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
        ttl_ms,
        auto_confirm: true,
        ..Default::default()
    };
    let lease = Lease::acquire(&client, spec).await.map_err(|error| error.to_string())?;
    let (id, token) = (lease.id().to_owned(), lease.token());
    say(&format!("{GRANTED} {id} {token}"));
    let watched = tokio::spawn(async move {
        let lost = lease.lost().await;
        say(&format!("{LOST} {}", lost.reason_name()));
        lease
    });
    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    while let Ok(Some(other)) = lines.next_line().await {
        for name in [id.as_str(), other.trim()] {
            attempts(&client, name, token).await;
        }
        say(OVER);
    }
    watched.abort();
    Ok(())
}

/// Everything that a token allows.
async fn attempts(client: &Client, name: &str, token: u64) {
    let name = name.to_owned();
    let renew = v1::RenewReservationRequest { name: name.clone(), token, ..Default::default() };
    tried("renew", client.renew_reservation(renew).await.map(drop));
    let confirm = v1::ConfirmReservationRequest { name: name.clone(), token, ..Default::default() };
    tried("confirm", client.confirm_reservation(confirm).await.map(drop));
    let amounts = Some(v1::Quantities { cpu_millis: 2 * CPU_MILLIS, ..Default::default() });
    let resize = v1::ResizeReservationRequest { name: name.clone(), token, amounts, ..Default::default() };
    tried("resize", client.resize_reservation(resize).await.map(drop));
    let release = v1::ReleaseReservationRequest { name, token, ..Default::default() };
    tried("release", client.release_reservation(release).await.map(drop));
}

fn tried(what: &str, outcome: Result<(), Error>) {
    match outcome {
        Ok(()) => say(&format!("{TRIED} {what} done")),
        Err(error) if error.is_definite() => {
            say(&format!("{TRIED} {what} refused {}", error.reason_name()));
        }
        Err(error) => say(&format!("{TRIED} {what} unknown {}", error.reason_name())),
    }
}

/// Longest time between two attempts, for whoever listens.
pub const ATTEMPT: Duration = Duration::from_secs(12);

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Whoever no longer listens is not told.
    drop(writeln!(out, "{line}").and_then(|()| out.flush()));
}
