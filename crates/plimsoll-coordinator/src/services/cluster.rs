//! `ClusterService`: the coordinators themselves.

mod members;
mod upgrade;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use plimsoll_consensus::{Dialer, Error, NodeInfo};
use plimsoll_proto::v1::cluster_service_client::ClusterServiceClient;
use plimsoll_proto::v1::cluster_service_server::ClusterService;
use plimsoll_proto::v1::{self, ErrorReason};
use prost::Message;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::api::Api;
use super::edge::Actor;
use super::page::Page;
use super::problem::Problem;
use crate::core::ReadError;
use members::{check_address, members, role};

/// Longest wait for a handed-over leadership to show.
const HAND_OVER: Duration = Duration::from_secs(5);
/// Longest wait for a member to be to say who it is.
const WHO_IS_THERE: Duration = Duration::from_secs(2);
/// Pause between looks for a new leader.
const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// The service.
#[derive(Clone)]
pub(super) struct Cluster {
    api: Api,
    dialer: Arc<dyn Dialer>,
    started: Instant,
    /// Members do not come while it is asked what the members can do, and the other way round.
    turn: Arc<Mutex<()>>,
}

impl Cluster {
    pub(super) fn new(api: Api, dialer: Arc<dyn Dialer>) -> Cluster {
        Cluster { api, dialer, started: Instant::now(), turn: Arc::default() }
    }

    fn members(&self) -> Vec<v1::Member> {
        members(&self.api.core.status().group)
    }

    /// Revision and ledger time here.
    fn stamp(&self) -> (u64, u64) {
        let view = self.api.local();
        (view.revision().0, view.log_time().0)
    }

    fn find(&self, id: u64) -> Option<v1::Member> {
        self.members().into_iter().find(|member| member.id == id)
    }

    fn coordinator_status(&self) -> v1::CoordinatorStatus {
        let status = self.api.core.status();
        let (reservations, nodes) = {
            let view = self.api.local();
            let counts = view.counts().iter().filter(|(_, count)| **count > 0);
            let count = |(state, count): (&plimsoll_ledger::State, &u64)| v1::StateCount {
                state: state.name().to_owned(),
                count: *count,
            };
            (counts.map(count).collect(), view.nodes().count() as u64)
        };
        let group = &status.group;
        let members = members(group);
        let own = members.iter().find(|member| member.id == group.node_id);
        let (leader_id, leader_address) = group.leader.clone().unwrap_or_default();
        v1::CoordinatorStatus {
            node_id: group.node_id,
            incarnation: self.api.core.config().incarnation.clone(),
            cluster_id: status.cluster_id,
            address: self.api.core.config().peer_address.clone(),
            term: group.term,
            role: role(group).into(),
            leader_id,
            leader_address,
            committed_index: group.committed,
            applied_index: group.applied,
            last_log_index: group.last_log,
            log_floor_index: group.purged,
            snapshot_index: group.snapshot,
            joint: group.joint,
            learner: own.is_some_and(|member| !member.voter),
            members,
            ledger_version: status.ledger_version,
            supported_version: self.api.core.config().newest_version,
            revision: status.revision.0,
            log_time_ms: status.log_time.0,
            chain_hash: Bytes::copy_from_slice(&status.chain),
            first_revision: status.first_revision.0,
            serving: status.serving,
            // A replica that differs or lost data does not start, so one that answers is neither.
            suspect: false,
            last_fault: String::new(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
            waiting: status.waiting,
            agents: status.agents,
            reservations,
            nodes,
        }
    }
}

#[tonic::async_trait]
impl ClusterService for Cluster {
    async fn get_status(
        &self,
        _request: Request<v1::GetStatusRequest>,
    ) -> Result<Response<v1::GetStatusResponse>, Status> {
        let status = self.coordinator_status();
        let age_ms = self.api.local().age_ms();
        Ok(Response::new(v1::GetStatusResponse { revision: status.revision, age_ms, status: Some(status) }))
    }

    async fn list_members(
        &self,
        request: Request<v1::ListMembersRequest>,
    ) -> Result<Response<v1::ListMembersResponse>, Status> {
        let mut request = request.into_inner();
        let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
        let page = Page::read(size, &token, &request.encode_to_vec())?;
        let after = page.after_number()?;
        // One that was taken out, or is cut off, must not show the members of then as those of now.
        self.confirmed().await?;
        let group = self.api.core.status().group;
        let later = members(&group).into_iter().filter(|member| after.is_none_or(|after| member.id > after));
        let mut members: Vec<_> = later.take(page.size + 1).collect();
        let (revision, age_ms) = {
            let view = self.api.local();
            (view.revision(), view.age_ms())
        };
        let mut next_page_token = String::new();
        if members.len() > page.size {
            members.truncate(page.size);
            let last = members.last().map_or(0, |member| member.id);
            next_page_token = page.next(&last.to_be_bytes(), revision);
        }
        let joint = group.joint;
        Ok(Response::new(v1::ListMembersResponse {
            revision: revision.0,
            age_ms,
            members,
            next_page_token,
            joint,
        }))
    }

    async fn add_member(
        &self,
        request: Request<v1::AddMemberRequest>,
    ) -> Result<Response<v1::AddMemberResponse>, Status> {
        let request = request.into_inner();
        let mut info = check_address("id", request.id, &request.address)?;
        let known = self.find(request.id);
        if known.as_ref().is_some_and(|member| member.address != request.address) {
            let message = format!("member {} is there with another address", request.id);
            return Err(Problem::new(ErrorReason::AlreadyExists, message).into());
        }
        if let Some(known) = &known {
            self.check_not_wiped(known).await?;
        }
        let is_there = known.is_some_and(|member| member.voter || request.learner);
        if !is_there && !request.validate_only {
            let _turn = self.turn()?;
            info.incarnation = self.incarnation_at(request.id, &info).await?;
            let group = self.api.core.group();
            let added = if request.learner {
                group.add_learner(request.id, info).await
            } else {
                group.add_voter(request.id, info).await
            };
            added.map_err(Problem::from)?;
        }
        let (revision, log_time_ms) = self.stamp();
        Ok(Response::new(v1::AddMemberResponse { revision, log_time_ms, members: self.members() }))
    }

    async fn remove_member(
        &self,
        request: Request<v1::RemoveMemberRequest>,
    ) -> Result<Response<v1::RemoveMemberResponse>, Status> {
        let request = request.into_inner();
        let is_last_voter = {
            let members = self.members();
            let mut voters = members.iter().filter(|member| member.voter);
            voters.next().is_some_and(|voter| voter.id == request.id) && voters.next().is_none()
        };
        if is_last_voter {
            return Err(Problem::invalid("id", "is the only voter: a cluster cannot be without one").into());
        }
        if self.find(request.id).is_some() && !request.validate_only {
            self.api.core.group().remove(request.id).await.map_err(Problem::from)?;
        }
        let (revision, log_time_ms) = self.stamp();
        Ok(Response::new(v1::RemoveMemberResponse { revision, log_time_ms, members: self.members() }))
    }

    async fn replace_member(
        &self,
        request: Request<v1::ReplaceMemberRequest>,
    ) -> Result<Response<v1::ReplaceMemberResponse>, Status> {
        let request = request.into_inner();
        let mut info = check_address("new_id", request.new_id, &request.address)?;
        if request.old_id == request.new_id {
            return Err(
                Problem::invalid("new_id", "is that of the old member: ids are never used again").into()
            );
        }
        let is_done = self.find(request.old_id).is_none()
            && self
                .find(request.new_id)
                .is_some_and(|member| member.voter && member.address == request.address);
        if !is_done && self.find(request.old_id).is_none() {
            return Err(Problem::not_found("member", &request.old_id.to_string()).into());
        }
        if !is_done && !request.validate_only {
            let _turn = self.turn()?;
            info.incarnation = self.incarnation_at(request.new_id, &info).await?;
            let replaced = self.api.core.group().replace(request.old_id, request.new_id, info).await;
            replaced.map_err(Problem::from)?;
        }
        let (revision, log_time_ms) = self.stamp();
        Ok(Response::new(v1::ReplaceMemberResponse { revision, log_time_ms, members: self.members() }))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        let request = request.into_inner();
        let own = self.api.core.node_id();
        if request.to != 0 && !self.find(request.to).is_some_and(|member| member.voter) {
            return Err(Problem::not_found("voter", &request.to.to_string()).into());
        }
        if !request.validate_only && request.to != own {
            let to = Some(request.to).filter(|id| *id != 0);
            self.api.core.group().transfer_leader(to).await.map_err(Problem::from)?;
            self.wait_for_another_leader(own).await?;
        }
        let (revision, log_time_ms) = self.stamp();
        let leader_id = self.api.core.leader_address().map_or(own, |(id, _)| id);
        Ok(Response::new(v1::TransferLeaderResponse { revision, log_time_ms, leader_id }))
    }

    async fn upgrade(
        &self,
        request: Request<v1::UpgradeRequest>,
    ) -> Result<Response<v1::UpgradeResponse>, Status> {
        let actor = Actor::of(&request);
        Ok(Response::new(self.raise(&actor, request.into_inner()).await?))
    }

    async fn bootstrap_cluster(
        &self,
        request: Request<v1::BootstrapClusterRequest>,
    ) -> Result<Response<v1::BootstrapClusterResponse>, Status> {
        if !self.members().is_empty() {
            let message = "this coordinator is in a cluster already";
            return Err(Problem::new(ErrorReason::AlreadyExists, message).into());
        }
        if !request.into_inner().validate_only {
            self.api.core.group().initialize().await.map_err(Problem::from)?;
        }
        let (revision, log_time_ms) = self.stamp();
        let cluster_id = self.api.core.status().cluster_id;
        Ok(Response::new(v1::BootstrapClusterResponse { revision, log_time_ms, cluster_id }))
    }
}

impl Cluster {
    /// Refuses unless a leader with a quorum confirms that what is known here is current. Where that fails, the refusal
    /// says whom to ask instead.
    async fn confirmed(&self) -> Result<(), Problem> {
        self.api.check_in_cluster()?;
        let Err(error) = self.api.core.linearize().await else { return Ok(()) };
        let is_out = matches!(error, ReadError::NoMember { .. });
        let problem = Problem::from(error);
        if is_out {
            return Err(problem);
        }
        let known: Vec<String> = self.members().into_iter().map(|member| member.address).collect();
        let why = format!("when this coordinator last heard, the members were {}", known.join(", "));
        Err(problem.because(&why).with("members", known.join(",")))
    }

    /// One at a time: changes that bring members, and upgrades.
    fn turn(&self) -> Result<MutexGuard<'_, ()>, Problem> {
        self.turn.try_lock().map_err(|_| Problem::from(Error::ChangeInProgress))
    }

    /// Which life of a member to be answers at its address: the group remembers it with the member. It must be able to apply
    /// what the members apply.
    async fn incarnation_at(&self, id: u64, info: &NodeInfo) -> Result<String, Problem> {
        let unusable = |detail: String| Error::Unusable { id, address: info.address.clone(), detail };
        let status = self.ask(&info.address).await.map_err(unusable)?;
        // A new leader may not yet have applied the upgrade that came before it.
        self.api.core.linearize().await?;
        upgrade::check_newcomer(id, &status, self.api.core.status().ledger_version)?;
        Ok(status.incarnation)
    }

    /// A member that lost its disk is refused by the others. Adding it again does not help, and must say what does.
    async fn check_not_wiped(&self, member: &v1::Member) -> Result<(), Problem> {
        // One that is down is still a member.
        let Ok(status) = self.ask(&member.address).await else { return Ok(()) };
        let is_same = status.incarnation == member.incarnation
            || member.incarnation.is_empty()
            || status.node_id != member.id;
        if is_same {
            return Ok(());
        }
        let id = member.id;
        let message = format!(
            "member {id} has lost its data: another incarnation answers at {}. Start it with an empty data directory and \
             a new node id, and run `plimsoll cluster replace {id} {}`",
            member.address, member.address
        );
        Err(Problem::new(ErrorReason::WrongState, message).with("member", id.to_string()))
    }

    /// How the coordinator at an address is.
    async fn ask(&self, address: &str) -> Result<v1::CoordinatorStatus, String> {
        let mut client = ClusterServiceClient::new(self.dialer.channel(address));
        let asked = client.get_status(v1::GetStatusRequest::default());
        match tokio::time::timeout(WHO_IS_THERE, asked).await {
            Err(_) => Err("it does not answer".to_owned()),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Ok(Ok(response)) => {
                response.into_inner().status.ok_or_else(|| "it does not say who it is".to_owned())
            }
        }
    }

    async fn wait_for_another_leader(&self, own: u64) -> Result<(), Problem> {
        let until = Instant::now() + HAND_OVER;
        while self.api.core.leader_address().is_none_or(|(id, _)| id == own) {
            if Instant::now() >= until {
                return Err(Problem::new(ErrorReason::Unavailable, "no new leader showed in time"));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(())
    }
}
