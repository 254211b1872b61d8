//! `plimsoll cluster`: the coordinators.

use std::time::Duration;

use clap::{Args, Subcommand};
use plimsoll_client::Client;
use plimsoll_client::v1::{
    AddMemberRequest, BootstrapClusterRequest, CoordinatorStatus, GetStatusRequest, ListMembersRequest,
    Member, RemoveMemberRequest, ReplaceMemberRequest, TransferLeaderRequest, UpgradeRequest,
};

use super::cluster_snapshot::Snapshot;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::MemberRow;
use crate::settings::Settings;

/// Longest wait for one coordinator's own word.
const STATUS_WAIT: Duration = Duration::from_secs(2);
/// Longest wait for a membership change: a new member takes a snapshot first.
const CHANGE_WAIT: Duration = Duration::from_secs(120);

/// The coordinators.
#[derive(Args, Debug)]
pub(crate) struct Cluster {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Show how each coordinator is
    Status,
    /// Show the membership alone
    Members,
    /// Make the coordinator at --addr the first member of a new cluster
    Bootstrap,
    /// Make a running, empty coordinator a member: it is asked for its own id and address
    Join {
        /// Where the new coordinator answers, HOST:PORT
        #[arg(value_name = "NEW_ADDR")]
        address: String,
        /// Without a vote
        #[arg(long)]
        learner: bool,
    },
    /// Make a coordinator a member, by id and advertised address
    Add {
        /// Its id
        id: u64,
        /// Its advertised peer address, HOST:PORT
        address: String,
        /// Without a vote
        #[arg(long)]
        learner: bool,
    },
    /// Take a member out
    #[command(alias = "rm")]
    Remove {
        /// Its id
        id: u64,
    },
    /// Put a running, empty coordinator in the place of a member, in one change
    Replace {
        /// Id of the member that leaves
        old: u64,
        /// Where the new coordinator answers, HOST:PORT
        #[arg(value_name = "NEW_ADDR")]
        address: String,
    },
    /// Raise the ledger version: new rules are in force from then on, on all coordinators at once, and there is no way back.
    /// Refused unless every member answers and can apply it
    Upgrade {
        /// Ledger version to raise to [default: the newest that the leader knows]
        #[arg(long, value_name = "VERSION", value_parser = clap::value_parser!(u32).range(1..))]
        to: Option<u32>,
        /// Decide, but change nothing
        #[arg(long)]
        dry_run: bool,
    },
    /// Hand leadership on
    #[command(alias = "transfer")]
    TransferLeader {
        /// Id of the voter that shall lead; the leader chooses without
        to: Option<u64>,
    },
    /// The whole ledger in a file: save it, verify it, make a new cluster of it
    #[command(subcommand)]
    Snapshot(Snapshot),
}

impl Cluster {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        if let Verb::Snapshot(snapshot) = self.verb {
            return snapshot.run(globals).await;
        }
        let client = globals.client_with(CHANGE_WAIT)?;
        let out = globals.out();
        match self.verb {
            Verb::Status => {
                let rows = member_rows(&client, globals).await?;
                out.list(&rows, None)?;
                let has_leader =
                    rows.iter().any(|row| row.status.as_ref().is_some_and(|status| status.leader_id > 0));
                return Ok(if has_leader { Exit::Done } else { Exit::Unreachable });
            }
            Verb::Members => {
                let answer = client.list_members(ListMembersRequest::default()).await?;
                out.list(&rows(answer.members), None)?;
            }
            Verb::Bootstrap => {
                let asked = "cannot bootstrap";
                let answer = client.bootstrap_cluster(BootstrapClusterRequest::default()).await;
                let answer = answer.map_err(|error| CliError::from(error).asked(asked))?;
                out.done(&format!(
                    "Began cluster {:?} with this coordinator as its only voter",
                    answer.cluster_id
                ));
            }
            Verb::Join { address, learner } => {
                let new = own_status(globals, &address).await?;
                let asked = format!("cannot add coordinator {}", new.node_id);
                let request = AddMemberRequest {
                    id: new.node_id,
                    address: if new.address.is_empty() { address } else { new.address },
                    learner,
                    ..AddMemberRequest::default()
                };
                let answer =
                    client.add_member(request).await.map_err(|error| CliError::from(error).asked(asked))?;
                out.list(&rows(answer.members), None)?;
                out.done(&format!("Coordinator {} joined", new.node_id));
            }
            Verb::Add { id, address, learner } => {
                let request = AddMemberRequest { id, address, learner, ..AddMemberRequest::default() };
                let asked = format!("cannot add coordinator {id}");
                let answer =
                    client.add_member(request).await.map_err(|error| CliError::from(error).asked(asked))?;
                out.list(&rows(answer.members), None)?;
                out.done(&format!("Coordinator {id} is a member"));
            }
            Verb::Remove { id } => {
                let request = RemoveMemberRequest { id, ..RemoveMemberRequest::default() };
                let asked = format!("cannot remove coordinator {id}");
                let answer = client
                    .remove_member(request)
                    .await
                    .map_err(|error| CliError::from(error).asked(asked))?;
                out.list(&rows(answer.members), None)?;
                out.done(&format!("Coordinator {id} is no longer a member"));
            }
            Verb::Replace { old, address } => {
                let new = own_status(globals, &address).await?;
                let asked = format!("cannot replace coordinator {old}");
                let request = ReplaceMemberRequest {
                    old_id: old,
                    new_id: new.node_id,
                    address: if new.address.is_empty() { address } else { new.address },
                    ..ReplaceMemberRequest::default()
                };
                let answer = client
                    .replace_member(request)
                    .await
                    .map_err(|error| CliError::from(error).asked(asked))?;
                out.list(&rows(answer.members), None)?;
                out.done(&format!("Coordinator {} is in the place of {old}", new.node_id));
            }
            Verb::Upgrade { to, dry_run } => {
                let request = UpgradeRequest {
                    to: to.unwrap_or(0),
                    validate_only: dry_run,
                    ..UpgradeRequest::default()
                };
                let asked = match to {
                    Some(to) => format!("cannot raise the ledger version to {to}"),
                    None => "cannot raise the ledger version".to_owned(),
                };
                let answer =
                    client.upgrade(request).await.map_err(|error| CliError::from(error).asked(asked))?;
                out.list(&answer.members, None)?;
                let (from, to) = (answer.from, answer.to);
                out.done(&if from == to {
                    format!("Ledger version {to} is in force")
                } else if dry_run {
                    format!("Would raise the ledger version from {from} to {to} (nothing was changed)")
                } else {
                    format!("Raised the ledger version from {from} to {to}")
                });
            }
            // Some of it needs no cluster, and went its own way above.
            Verb::Snapshot(_) => {}
            Verb::TransferLeader { to } => {
                let request =
                    TransferLeaderRequest { to: to.unwrap_or(0), ..TransferLeaderRequest::default() };
                let answer = client.transfer_leader(request).await;
                let answer =
                    answer.map_err(|error| CliError::from(error).asked("cannot hand leadership on"))?;
                out.done(&format!("Coordinator {} leads", answer.leader_id));
            }
        }
        Ok(Exit::Done)
    }
}

/// Every member with its own word, where it answers.
pub(crate) async fn member_rows(client: &Client, globals: &Globals) -> Result<Vec<MemberRow>, CliError> {
    let answer = client.with_timeout(STATUS_WAIT * 3).get_status(GetStatusRequest {}).await?;
    let seen = answer.status.unwrap_or_default();
    let mut members = seen.members.clone();
    if members.is_empty() {
        // A coordinator that is in no cluster yet.
        let address = if seen.address.is_empty() { client.address() } else { seen.address.clone() };
        members.push(Member { id: seen.node_id, address, role: seen.role, ..Member::default() });
    }
    let mut asked = tokio::task::JoinSet::new();
    for (position, member) in members.iter().enumerate().filter(|(_, member)| member.id != seen.node_id) {
        let (globals, address) = (globals.clone(), member.address.clone());
        asked.spawn(async move { (position, own_status(&globals, &address).await.ok()) });
    }
    let mut rows = rows(members);
    for row in rows.iter_mut().filter(|row| row.member.id == seen.node_id) {
        row.status = Some(seen.clone());
    }
    while let Some(answered) = asked.join_next().await {
        if let Ok((position, status)) = answered {
            rows[position].status = status;
        }
    }
    let newest = rows.iter().filter_map(|row| Some(row.status.as_ref()?.revision)).max().unwrap_or(0);
    for row in &mut rows {
        row.newest_revision = newest;
        row.asked = true;
    }
    Ok(rows)
}

fn rows(members: Vec<Member>) -> Vec<MemberRow> {
    members
        .into_iter()
        .map(|member| MemberRow { member, asked: false, status: None, newest_revision: 0 })
        .collect()
}

/// The own word of the coordinator at an address.
async fn own_status(globals: &Globals, address: &str) -> Result<CoordinatorStatus, CliError> {
    let mut settings = Settings::resolve(globals)?;
    settings.addresses.0 = vec![address.to_owned()];
    let client = settings.client(STATUS_WAIT)?;
    let answer = client.get_status(GetStatusRequest {}).await;
    let answer = answer
        .map_err(|error| CliError::from(error).asked(format!("cannot ask the coordinator at {address}")))?;
    Ok(answer.status.unwrap_or_default())
}
