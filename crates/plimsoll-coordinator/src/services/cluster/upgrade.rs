//! Raising the ledger version: every member is asked what it can apply, and only if all can is the entry proposed.
//!
//! A member that does not answer counts as one that cannot: were it older, it would stop at the entry, and a majority of
//! such members would be an outage.

use futures_util::future::join_all;
use plimsoll_ledger::Command;
use plimsoll_proto::v1::{self, ErrorReason};

use super::Cluster;
use super::members::members;
use crate::services::edge::Actor;
use crate::services::intent::Intent;
use crate::services::problem::Problem;

impl Cluster {
    /// See `Upgrade` of the service.
    pub(super) async fn raise(
        &self,
        actor: &Actor,
        mut request: v1::UpgradeRequest,
    ) -> Result<v1::UpgradeResponse, Problem> {
        let _turn = self.turn()?;
        self.confirmed().await?;
        let core = &self.api.core;
        let from = core.status().ledger_version;
        let to = if request.to == 0 { core.config().newest_version.max(from) } else { request.to };
        if to < from {
            let message = format!("the ledger is at version {from} already, and versions only grow");
            return Err(Problem::new(ErrorReason::WrongState, message).with("version", from.to_string()));
        }
        let asked = self.ask_versions().await;
        if to > from {
            check_all_can(&asked, to)?;
            let request_id = std::mem::take(&mut request.request_id);
            let validate_only = std::mem::take(&mut request.validate_only);
            let command = Command::Upgrade { to };
            let intent = Intent::of_command(actor, "upgrade", request_id, validate_only, &request, command)?;
            // Nobody came or left while the others were asked: those who come are checked by who lets them in.
            let known: Vec<u64> = core.status().group.members.keys().copied().collect();
            if !known.iter().eq(asked.iter().map(|one| &one.id)) {
                return Err(Problem::from(plimsoll_consensus::Error::ChangeInProgress));
            }
            self.api.submit(intent).await?;
        }
        let (revision, log_time_ms) = self.stamp();
        Ok(v1::UpgradeResponse { revision, log_time_ms, from, to, members: asked })
    }

    /// What each member can apply, by id: voters and learners, all at once.
    async fn ask_versions(&self) -> Vec<v1::MemberVersion> {
        let core = &self.api.core;
        let own = core.node_id();
        let asked = members(&core.status().group).into_iter().map(|member| async move {
            if member.id == own {
                let mut here = version_of(&member, &self.coordinator_status());
                // What the others call it.
                here.address = member.address;
                return here;
            }
            match self.ask(&member.address).await {
                Ok(status) => version_of(&member, &status),
                Err(why) => v1::MemberVersion {
                    id: member.id,
                    address: member.address,
                    problem: format!("it did not answer ({why})"),
                    ..v1::MemberVersion::default()
                },
            }
        });
        join_all(asked).await
    }
}

/// What a member said of itself.
fn version_of(member: &v1::Member, status: &v1::CoordinatorStatus) -> v1::MemberVersion {
    let problem = if status.node_id == member.id {
        String::new()
    } else {
        format!("coordinator {} answers in its place", status.node_id)
    };
    v1::MemberVersion {
        id: member.id,
        address: member.address.clone(),
        answered: true,
        supported_version: status.supported_version,
        version: status.version.clone(),
        problem,
    }
}

/// Refuses unless all of them can apply this version, and names each that cannot.
fn check_all_can(asked: &[v1::MemberVersion], to: u32) -> Result<(), Problem> {
    let cannot: Vec<&v1::MemberVersion> =
        asked.iter().filter(|one| !one.problem.is_empty() || one.supported_version < to).collect();
    if cannot.is_empty() {
        return Ok(());
    }
    let says = |one: &&v1::MemberVersion| {
        let v1::MemberVersion { id, address, .. } = one;
        if one.problem.is_empty() {
            let newest = one.supported_version;
            format!("member {id} at {address} (software {}) knows up to version {newest}", one.version)
        } else {
            format!("member {id} at {address}: {}", one.problem)
        }
    };
    let named = cannot.iter().map(says).collect::<Vec<_>>().join("; ");
    let mut problem = Problem::new(
        ErrorReason::UnsupportedVersion,
        format!("not every member can apply ledger version {to}: {named}"),
    )
    .with("to", to.to_string());
    for one in cannot {
        let newest =
            if one.problem.is_empty() { one.supported_version.to_string() } else { "unknown".to_owned() };
        problem = problem.with(&format!("member_{}", one.id), newest);
    }
    Err(problem)
}

/// Refuses a member to be that could not apply what the members apply.
pub(super) fn check_newcomer(id: u64, status: &v1::CoordinatorStatus, in_force: u32) -> Result<(), Problem> {
    let newest = status.supported_version;
    if newest >= in_force {
        return Ok(());
    }
    let message = format!(
        "coordinator {id} (software {}) knows ledger versions up to {newest}, and version {in_force} is in force: start a \
         newer build there, on an empty data directory",
        status.version
    );
    let problem = Problem::new(ErrorReason::UnsupportedVersion, message);
    Err(problem.with("member", id.to_string()).with("version", in_force.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, supported_version: u32, problem: &str) -> v1::MemberVersion {
        v1::MemberVersion {
            id,
            address: format!("10.0.0.{id}:7711"),
            answered: problem.is_empty(),
            supported_version,
            version: "0.1.0".to_owned(),
            problem: problem.to_owned(),
        }
    }

    #[test]
    fn each_member_that_cannot_is_named() {
        assert_eq!(check_all_can(&[member(1, 2, ""), member(2, 3, "")], 2), Ok(()));
        let asked = [member(1, 2, ""), member(2, 1, ""), member(3, 0, "it did not answer")];
        let said = check_all_can(&asked, 2).expect_err("two cannot").into_status();
        assert_eq!(said.code(), tonic::Code::FailedPrecondition);
        let named =
            ["member 2 at 10.0.0.2:7711", "up to version 1", "member 3 at 10.0.0.3:7711: it did not answer"];
        assert!(named.iter().all(|name| said.message().contains(name)), "{}", said.message());
        assert!(!said.message().contains("member 1"), "{}", said.message());
    }

    #[test]
    fn a_newcomer_must_know_the_version_in_force() {
        let status = v1::CoordinatorStatus { supported_version: 1, ..Default::default() };
        assert_eq!(check_newcomer(4, &status, 1), Ok(()));
        assert!(check_newcomer(4, &status, 2).is_err());
    }
}
