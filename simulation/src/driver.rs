//! The client side of a run: form the cluster, put load on it, and when the faults are over ask that it is well.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use plimsoll_client::{Client, v1};

use crate::board::{Board, Phase};
use crate::collect::{collect, follow};
use crate::evidence::Evidence;
use crate::history::{Answer, Call};
use crate::net::PORT;
use crate::request::Request;
use crate::upgrade;
use crate::watcher::{Interest, watch};
use crate::workload::{NODES, Operator, Worker, client, rearrange, settle, spend};

/// Clients at the same time.
const WORKERS: usize = 4;
/// The faults being over, everything must be well in this time.
const HEAL_MS: u64 = 60_000;
/// Longest time to form the cluster.
const SETUP_MS: u64 = 30_000;
const PAUSE: Duration = Duration::from_millis(50);
/// All being well, watchers must have been given everything in this time.
const WATCHERS_GO: Duration = Duration::from_secs(20);

/// Runs from the first call to the last; `members` are the coordinators of the beginning, `spares` those that may join.
///
/// # Errors
/// Where the cluster is not formed, or is not well in time after the faults.
pub async fn drive(board: Arc<Board>, members: Vec<u64>, spares: Vec<u64>) -> Result<(), String> {
    let client = client(board.seed, "driver", &members).map_err(text)?;
    setup(&client, &members).await?;
    let mut watchers = Vec::new();
    for (watcher, from, reservations_only) in
        [("watcher", 1, false), ("latecomer", 0, false), ("reservations", 1, true)]
    {
        let interest = Interest { watcher, from, reservations_only };
        let client = crate::workload::client(board.seed, watcher, &members).map_err(text)?;
        watchers.push(tokio::spawn(watch(client, Arc::clone(&board), interest)));
    }
    board.enter(Board::now_ms(), Phase::Chaos);
    let workers: Result<Vec<Worker>, _> =
        (0..WORKERS).map(|index| Worker::new(index, Arc::clone(&board), &members)).collect();
    let work = join_all(workers.map_err(text)?.into_iter().map(Worker::run));
    let operator = Operator::new(WORKERS, Arc::clone(&board), &members, &spares).map_err(text)?;
    let everybody: Vec<u64> = members.iter().chain(&spares).copied().collect();
    let auditors = auditors(&board, &everybody)?;
    let copies = auditors.into_iter().map(|(id, client)| follow(id, client, Arc::clone(&board)));
    let upgrader = crate::workload::client(board.seed, "upgrader", &members).map_err(text)?;
    let insist = upgrade::insist(upgrader, Arc::clone(&board), WORKERS);
    let rearranger = crate::workload::client(board.seed, "scaler", &members).map_err(text)?;
    let rearrange = rearrange(rearranger, Arc::clone(&board), WORKERS);
    let spend = spend(Arc::clone(&board), &members);
    let (.., spent) = tokio::join!(work, operator.run(), insist, rearrange, join_all(copies), spend);
    spent.map_err(text)?;
    let evidence = liveness(&board, &client, &members).await?;
    board.let_watchers_go(evidence.replicas.first().map_or(0, |replica| replica.revision.0));
    if tokio::time::timeout(WATCHERS_GO, join_all(watchers)).await.is_err() {
        board.found("I23: a watcher was not given everything in time".to_owned());
    }
    board.finish(Board::now_ms(), evidence);
    Ok(())
}

/// One voter becomes three, and the agents register.
async fn setup(client: &Client, members: &[u64]) -> Result<(), String> {
    for id in members.iter().skip(1) {
        let add = v1::AddMemberRequest { id: *id, address: format!("c{id}:{PORT}"), ..Default::default() };
        while let Err(error) = client.add_member(add.clone()).await {
            if Board::now_ms() > SETUP_MS {
                return Err(format!("c{id} was not added: {error}"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
    loop {
        let nodes = client.list_nodes(v1::ListNodesRequest::default()).await.map_err(text)?;
        if nodes.nodes.len() == NODES.len() {
            return Ok(());
        }
        if Board::now_ms() > SETUP_MS {
            return Err("the nodes did not register".to_owned());
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// I22: with the faults over there is a leader, nodes are back, a new grant is served and the replicas agree.
async fn liveness(board: &Board, client: &Client, members: &[u64]) -> Result<Evidence, String> {
    let until_ms = Board::now_ms() + HEAL_MS;
    let late = |what: &str, last: String| match Board::now_ms() > until_ms {
        true => Err(format!("I22: {what} within {HEAL_MS} ms after the faults: {last}")),
        false => Ok(()),
    };
    settle(board, client, WORKERS, until_ms).await?;
    loop {
        let nodes = client.list_nodes(v1::ListNodesRequest::default()).await.map_err(text)?.nodes;
        let back = |name: &&str| nodes.iter().any(|node| node.schedulable && node.name.ends_with(*name));
        let away: Vec<&str> = NODES.into_iter().filter(|name| !back(name)).collect();
        if away.is_empty() {
            break;
        }
        late("not all nodes are back", away.join(" "))?;
        tokio::time::sleep(PAUSE).await;
    }
    let mut tries = 0;
    loop {
        tries += 1;
        let called_ms = Board::now_ms();
        let request = last_wish(board.seed, tries);
        let sent = request.clone().send(client).await;
        let said = sent.as_ref().err().map(ToString::to_string).unwrap_or_default();
        let answer = Answer::of(sent);
        let answered_ms = Board::now_ms();
        board.trace.add(answered_ms, format_args!("last wish {tries}: {}", answer.word()));
        let done = answer.done().is_some();
        board.history.add(Call { worker: WORKERS, request, called_ms, answered_ms, answer });
        if done {
            break;
        }
        if Board::now_ms() > until_ms {
            late("no new grant is served", format!("{said}; {}", holders(client).await))?;
        }
        tokio::time::sleep(PAUSE).await;
    }
    // M4: whatever was interrupted, there is one set of voters in the end.
    while client.list_members(v1::ListMembersRequest::default()).await.map_err(text)?.joint {
        late("a change of members is not finished", String::new())?;
        tokio::time::sleep(PAUSE).await;
    }
    upgrade::raise_at_last(client, board, WORKERS, until_ms).await?;
    loop {
        let voters = voters(board, client, members).await.map_err(text)?;
        let before = board.cloud.running();
        let last = match collect(&auditors(board, &voters)?).await {
            Ok(Some(mut evidence)) => {
                evidence.machines = board.cloud.running();
                evidence.machines.retain(|machine| before.contains(machine));
                return Ok(evidence);
            }
            Ok(None) => "they are at different revisions".to_owned(),
            Err(error) => error,
        };
        late("the replicas do not converge", last)?;
        tokio::time::sleep(PAUSE).await;
    }
}

/// The coordinators that have a vote now.
async fn voters(board: &Board, client: &Client, members: &[u64]) -> Result<Vec<u64>, plimsoll_client::Error> {
    let listed = client.list_members(v1::ListMembersRequest::default()).await?.members;
    let mut voters: Vec<u64> = listed.iter().filter(|member| member.voter).map(|member| member.id).collect();
    voters.sort_unstable();
    if voters != members {
        board.trace.add(Board::now_ms(), format_args!("voters {voters:?}"));
    }
    Ok(voters)
}

/// A client for each member alone: audits are never forwarded.
fn auditors(board: &Board, members: &[u64]) -> Result<Vec<(u64, Client)>, String> {
    let one = |id: &u64| client(board.seed, &format!("auditor-{id}"), &[*id]).map(|client| (*id, client));
    members.iter().map(one).collect::<Result<_, _>>().map_err(text)
}

/// A small grant, to be served once all is well.
fn last_wish(seed: u64, tries: u64) -> Request {
    let amounts = v1::Quantities { cpu_millis: 100, memory_bytes: 1 << 20, ..Default::default() };
    let requirements = Some(v1::Requirements { amounts: Some(amounts), ..Default::default() });
    let spec = v1::ReservationSpec { requirements, ttl_ms: 60_000, auto_confirm: true, ..Default::default() };
    let request_id = format!("sim-{seed}-last-wish-{tries:05}");
    Request::Create(v1::CreateReservationRequest { request_id, spec: Some(spec), validate_only: false })
}

/// What lives in the ledger, for whoever asks why there is no room: each reservation with what it asked for, where it is and what it waits for.
async fn holders(client: &Client) -> String {
    let live = v1::ListReservationsRequest { live_only: true, ..Default::default() };
    match client.list_reservations(live).await {
        Ok(live) => {
            let one = |one: &v1::Reservation| {
                let spec = one.spec.clone().unwrap_or_default();
                let amounts = spec.requirements.and_then(|required| required.amounts).unwrap_or_default();
                let nodes: Vec<_> = one.allocations.iter().map(|allocation| &allocation.node).collect();
                let blockers: Vec<_> = one.blockers.iter().map(|blocker| &blocker.message).collect();
                format!(
                    "{} {:?} queue {:?} {}m on {nodes:?} waits for {blockers:?}",
                    one.id,
                    one.state(),
                    spec.queue,
                    amounts.cpu_millis
                )
            };
            live.reservations.iter().map(one).collect::<Vec<_>>().join("; ")
        }
        Err(error) => error.to_string(),
    }
}

fn text(error: impl Display) -> String {
    error.to_string()
}
