//! `ScalingService`: how many a pool or service has, by hand for a time, and why.

use std::sync::Arc;

use plimsoll_ledger::{Command, Elasticity, Ledger, ScalingPolicy, ScalingTarget};
use plimsoll_proto::v1::scaling_service_server::ScalingService;
use plimsoll_proto::{convert, v1};
use prost::Message;
use tonic::{Request, Response, Status};

use super::api::{Api, as_of};
use super::edge::Actor;
use super::intent::Intent;
use super::names;
use super::page::list;
use super::problem::Problem;
use crate::scaling::pool_look;

/// The service.
#[derive(Clone)]
pub(super) struct Scalings {
    api: Api,
}

impl Scalings {
    pub(super) fn new(api: Api) -> Scalings {
        Scalings { api }
    }

    /// How a pool's nodes come and go, where `pool/NAME` is asked about and says something of it. O(nodes).
    fn elastic(&self, ledger: &Ledger, name: &str) -> Option<v1::ElasticStatus> {
        let Some(ScalingTarget::Pool(name)) = ScalingTarget::parse(name) else { return None };
        let pool = ledger.pool(&name).filter(|pool| pool.elastic.elasticity != Elasticity::default())?;
        let look = self.api.core.looks().get(&pool_look(&name)).unwrap_or_default();
        let lent: Vec<_> = ledger.nodes().filter_map(|node| Some((node, node.lent_by()?))).collect();
        let borrowed = lent.iter().filter(|(node, _)| node.pool == name);
        let given = lent.iter().filter(|(_, home)| *home == name);
        Some(v1::ElasticStatus {
            moves: pool.elastic.is_elastic(),
            min_nodes: pool.elastic.min_nodes,
            max_nodes: pool.elastic.max_nodes,
            nodes: ledger.nodes_heard(&name),
            growth_left: ledger.growth_left(pool),
            borrowed: borrowed.map(|(node, home)| format!("{} of {home}", node.name())).collect(),
            lent: given.map(|(node, _)| format!("{} to {}", node.name(), node.pool)).collect(),
            latest_look: look.lines,
            latest_look_time_ms: look.at_ms,
            refused: look.problem,
            pool: name,
        })
    }
}

/// The policy by its name, or by its target.
fn find(ledger: &Ledger, name: &str) -> Result<Arc<ScalingPolicy>, Problem> {
    let found = match ScalingTarget::parse(name) {
        Some(target) => ledger.scaling_policy_of(&target),
        None => ledger.scaling_policy(names::object("scalingPolicies", name)?),
    };
    found.cloned().ok_or_else(|| Problem::not_found("scaling policy", name))
}

#[tonic::async_trait]
impl ScalingService for Scalings {
    async fn get_scaling_policy(
        &self,
        request: Request<v1::GetScalingPolicyRequest>,
    ) -> Result<Response<v1::GetScalingPolicyResponse>, Status> {
        let request = request.into_inner();
        let view = self.api.read_at(request.consistency, request.min_revision, as_of!(request)).await?;
        let policy = find(&view, &request.name)?;
        Ok(Response::new(v1::GetScalingPolicyResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            scaling_policy: Some(convert::scaling_policy_to_v1(&policy)),
            status: Some(convert::scaling_status(&policy, &view)),
        }))
    }

    async fn list_scaling_policies(
        &self,
        request: Request<v1::ListScalingPoliciesRequest>,
    ) -> Result<Response<v1::ListScalingPoliciesResponse>, Status> {
        let (view, policies, next_page_token) = list!(self, request, scaling_policies);
        Ok(Response::new(v1::ListScalingPoliciesResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            statuses: policies.iter().map(|one| convert::scaling_status(one, &view)).collect(),
            scaling_policies: policies.iter().map(|one| convert::scaling_policy_to_v1(one)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }

    async fn scale_target(
        &self,
        request: Request<v1::ScaleTargetRequest>,
    ) -> Result<Response<v1::ScaleTargetResponse>, Status> {
        let actor = Actor::of(&request);
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let validate_only = std::mem::take(&mut request.validate_only);
        let target = convert::scaling_target_from_v1(&request.target)
            .map_err(|violations| Problem::fields("", violations))?;
        let command = Command::PinScale { target: target.clone(), to: request.to, for_ms: request.for_ms };
        let intent = Intent::of_command(&actor, "scale", request_id, validate_only, &request, command)?;
        let answer = self.api.submit(intent).await?;
        let view = self.api.local();
        let policy = view.scaling_policy_of(&target).filter(|_| !validate_only);
        Ok(Response::new(v1::ScaleTargetResponse {
            revision: answer.revision.0,
            log_time_ms: answer.log_time.0,
            status: policy.map(|policy| convert::scaling_status(policy, &view)),
        }))
    }

    async fn explain_scaling(
        &self,
        request: Request<v1::ExplainScalingRequest>,
    ) -> Result<Response<v1::ExplainScalingResponse>, Status> {
        let request = request.into_inner();
        let view = self.api.local();
        let elastic = self.elastic(&view, &request.name);
        let policy = match find(&view, &request.name) {
            Ok(policy) => policy,
            // A pool whose nodes move, and that no policy scales.
            Err(_) if elastic.is_some() => {
                let revision = view.revision().0;
                return Ok(Response::new(v1::ExplainScalingResponse {
                    revision,
                    elastic,
                    ..Default::default()
                }));
            }
            Err(problem) => return Err(problem.into()),
        };
        let look = self.api.core.looks().get(&policy.name).unwrap_or_default();
        Ok(Response::new(v1::ExplainScalingResponse {
            revision: view.revision().0,
            elastic,
            scaling_policy: Some(convert::scaling_policy_to_v1(&policy)),
            status: Some(convert::scaling_status(&policy, &view)),
            latest_look: look.lines,
            latest_desired: look.desired,
            latest_look_time_ms: look.at_ms,
            provider_problem: look.problem,
        }))
    }
}
