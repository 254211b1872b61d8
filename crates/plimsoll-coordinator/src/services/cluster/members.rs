//! Members of the group as the API shows them.

use plimsoll_consensus::{Error, GroupStatus, NodeInfo, Role};
use plimsoll_proto::v1::{self, ErrorReason};

use crate::services::problem::Problem;

/// Every member, by id, as the coordinator that answers sees it.
pub(super) fn members(group: &GroupStatus) -> Vec<v1::Member> {
    let leads = group.role == Role::Leader;
    let leader = group.leader.as_ref().map(|(id, _)| *id);
    let one = |(id, info): (&u64, &NodeInfo)| {
        let voter = group.voters.contains(id);
        let role = match (leader == Some(*id), *id == group.node_id, voter) {
            (true, ..) => v1::MemberRole::Leader,
            (false, true, _) => role(group),
            (false, false, true) => v1::MemberRole::Follower,
            (false, false, false) => v1::MemberRole::Learner,
        };
        v1::Member {
            id: *id,
            address: info.address.clone(),
            incarnation: info.incarnation.clone(),
            voter,
            role: role.into(),
            lag_entries: group.lag.get(id).copied().unwrap_or(0),
            reachable: leads && (*id == group.node_id || group.lag.contains_key(id)),
        }
    };
    group.members.iter().map(one).collect()
}

/// What the coordinator that answers is.
pub(super) fn role(group: &GroupStatus) -> v1::MemberRole {
    match group.role {
        _ if group.members.is_empty() => v1::MemberRole::Uninitialized,
        Role::Leader => v1::MemberRole::Leader,
        Role::Follower => v1::MemberRole::Follower,
        Role::Candidate => v1::MemberRole::Candidate,
        Role::Learner => v1::MemberRole::Learner,
        Role::Stopped => v1::MemberRole::Stopped,
    }
}

/// A member to be: its id is not 0 and its address can be dialled.
pub(super) fn check_address(field: &str, id: u64, address: &str) -> Result<NodeInfo, Problem> {
    let mut wrong = Vec::new();
    if id == 0 {
        wrong.push((field.to_owned(), "must not be 0".to_owned()));
    }
    let is_good = address.rsplit_once(':').is_some_and(|(host, port)| {
        !host.is_empty() && !host.contains(['/', ' ']) && port.parse::<u16>().is_ok_and(|port| port > 0)
    });
    if !is_good {
        wrong.push(("address".to_owned(), format!("{address:?} is not of the form HOST:PORT")));
    }
    if wrong.is_empty() {
        Ok(NodeInfo { address: address.to_owned(), incarnation: String::new() })
    } else {
        Err(Problem::violations(wrong))
    }
}

impl From<Error> for Problem {
    fn from(error: Error) -> Problem {
        let message = error.to_string();
        match error {
            Error::ChangeInProgress => Problem::new(ErrorReason::ChangeInProgress, message),
            Error::AlreadyInitialized => Problem::new(ErrorReason::AlreadyExists, message),
            Error::NotLeader { leader } => {
                Problem::not_leader(leader.as_ref().map(|(_, address)| address.as_str()))
            }
            Error::NoSuchMember(id) => Problem::not_found("member", &id.to_string()),
            Error::Unusable { id, address, .. } => Problem::new(ErrorReason::WrongState, message)
                .with("member", id.to_string())
                .with("address", address),
            // A change that broke half-way is finished, or taken back, by the next leader.
            _ => Problem::outcome_unknown(&message),
        }
    }
}
