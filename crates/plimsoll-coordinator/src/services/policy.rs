//! `PolicyService`: pools, priority classes, node limits, queues, quotas, schedules, services and validators.

use plimsoll_ledger::{Command, PolicyName};
use plimsoll_proto::convert::Violation;
use plimsoll_proto::limits::MAX_POLICY_OBJECTS as MOST_OBJECTS;
use plimsoll_proto::v1::policy_service_server::PolicyService;
use plimsoll_proto::{convert, v1};
use plimsoll_types::Revision;
use prost::Message;
use tonic::{Request, Response, Status};

use super::api::{Api, as_of};
use super::defragment;
use super::edge::Actor;
use super::intent::Intent;
use super::names;
use super::page::list;
use super::problem::Problem;
use super::tokens;
use crate::scaling::Rightsized;

/// The service.
#[derive(Clone)]
pub(super) struct Policies {
    api: Api,
}

impl Policies {
    pub(super) fn new(api: Api) -> Policies {
        Policies { api }
    }
}

/// One object by name.
macro_rules! get {
    ($self:ident, $request:ident, $collection:literal, $what:literal, $find:ident) => {{
        let request = $request.into_inner();
        let name = names::object($collection, &request.name)?;
        let view = $self.api.read_at(request.consistency, request.min_revision, as_of!(request)).await?;
        let object = view.$find(name).cloned().ok_or_else(|| Problem::not_found($what, name))?;
        (view, object)
    }};
}

#[tonic::async_trait]
impl PolicyService for Policies {
    async fn apply_policy(
        &self,
        request: Request<v1::ApplyPolicyRequest>,
    ) -> Result<Response<v1::ApplyPolicyResponse>, Status> {
        let actor = Actor::of(&request);
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let validate_only = std::mem::take(&mut request.validate_only);
        let many = request.objects.len() + request.delete.len();
        if many == 0 || many > MOST_OBJECTS {
            return Err(Problem::invalid(
                "objects",
                format!("1 to {MOST_OBJECTS} are taken, {many} are given"),
            )
            .into());
        }
        let mut wrong = Vec::new();
        let put = convert::policy_objects_from_v1(&request.objects).unwrap_or_else(|violations| {
            wrong.extend(violations);
            Vec::new()
        });
        let delete = read_names("delete", &request.delete, &mut wrong);
        if !wrong.is_empty() {
            return Err(Problem::policy(wrong).into());
        }
        let command = Command::ApplyPolicy { put, delete, if_revision: Revision(request.if_revision) };
        let intent =
            Intent::of_command(&actor, "apply-policy", request_id, validate_only, &request, command)?;
        let answer = self.api.submit(intent).await?;
        Ok(Response::new(v1::ApplyPolicyResponse {
            revision: answer.revision.0,
            log_time_ms: answer.log_time.0,
        }))
    }

    async fn delete_policy(
        &self,
        request: Request<v1::DeletePolicyRequest>,
    ) -> Result<Response<v1::DeletePolicyResponse>, Status> {
        let actor = Actor::of(&request);
        let mut request = request.into_inner();
        let request_id = std::mem::take(&mut request.request_id);
        let validate_only = std::mem::take(&mut request.validate_only);
        let many = request.names.len();
        if many == 0 || many > MOST_OBJECTS {
            return Err(Problem::invalid(
                "names",
                format!("1 to {MOST_OBJECTS} are taken, {many} are given"),
            )
            .into());
        }
        let mut wrong = Vec::new();
        let delete = read_names("names", &request.names, &mut wrong);
        if !wrong.is_empty() {
            return Err(Problem::policy(wrong).into());
        }
        let command =
            Command::ApplyPolicy { put: Vec::new(), delete, if_revision: Revision(request.if_revision) };
        let intent =
            Intent::of_command(&actor, "delete-policy", request_id, validate_only, &request, command)?;
        let answer = self.api.submit(intent).await?;
        Ok(Response::new(v1::DeletePolicyResponse {
            revision: answer.revision.0,
            log_time_ms: answer.log_time.0,
        }))
    }

    async fn get_pool(
        &self,
        request: Request<v1::GetPoolRequest>,
    ) -> Result<Response<v1::GetPoolResponse>, Status> {
        let (mut answer, pool, status, measure) = {
            let (view, pool) = get!(self, request, "pools", "pool", pool);
            let answer = v1::GetPoolResponse {
                revision: view.revision().0,
                age_ms: view.age_ms(),
                pool: Some(convert::pool_to_v1(&pool)),
                status: None,
            };
            let status = convert::pool_status(&pool, &view);
            (answer, pool, status, self.api.core.measured().begin(&view))
        };
        let all = self.api.at_length(|| self.api.core.measured().finish(measure)).await;
        answer.status = Some(defragment::with_fragmentation(status, &all, &pool));
        Ok(Response::new(answer))
    }

    async fn list_pools(
        &self,
        request: Request<v1::ListPoolsRequest>,
    ) -> Result<Response<v1::ListPoolsResponse>, Status> {
        let (mut answer, pools, measure) = {
            let (view, pools, next_page_token) = list!(self, request, pools);
            let answer = v1::ListPoolsResponse {
                revision: view.revision().0,
                age_ms: view.age_ms(),
                statuses: pools.iter().map(|pool| convert::pool_status(pool, &view)).collect(),
                pools: pools.iter().map(|pool| convert::pool_to_v1(pool)).collect(),
                next_page_token,
                policy_revision: view.meta().policy_changed.0,
            };
            (answer, pools, self.api.core.measured().begin(&view))
        };
        let all = self.api.at_length(|| self.api.core.measured().finish(measure)).await;
        let statuses = std::mem::take(&mut answer.statuses).into_iter().zip(&pools);
        answer.statuses =
            statuses.map(|(status, pool)| defragment::with_fragmentation(status, &all, pool)).collect();
        Ok(Response::new(answer))
    }

    async fn get_class(
        &self,
        request: Request<v1::GetClassRequest>,
    ) -> Result<Response<v1::GetClassResponse>, Status> {
        let (view, class) = get!(self, request, "classes", "class", class);
        Ok(Response::new(v1::GetClassResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            class: Some(convert::class_to_v1(&class)),
            status: Some(convert::class_status(&class, &view)),
        }))
    }

    async fn list_classes(
        &self,
        request: Request<v1::ListClassesRequest>,
    ) -> Result<Response<v1::ListClassesResponse>, Status> {
        let (view, classes, next_page_token) = list!(self, request, classes);
        Ok(Response::new(v1::ListClassesResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            classes: classes.iter().map(|class| convert::class_to_v1(class)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }

    async fn get_queue(
        &self,
        request: Request<v1::GetQueueRequest>,
    ) -> Result<Response<v1::GetQueueResponse>, Status> {
        let (view, queue) = get!(self, request, "queues", "queue", queue);
        Ok(Response::new(v1::GetQueueResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            queue: Some(convert::queue_to_v1(&queue)),
            status: Some(convert::queue_status(&queue, &view, &view.expectations())),
        }))
    }

    async fn list_queues(
        &self,
        request: Request<v1::ListQueuesRequest>,
    ) -> Result<Response<v1::ListQueuesResponse>, Status> {
        let (view, queues, next_page_token) = list!(self, request, queues);
        let expected = view.expectations();
        Ok(Response::new(v1::ListQueuesResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            statuses: queues.iter().map(|queue| convert::queue_status(queue, &view, &expected)).collect(),
            queues: queues.iter().map(|queue| convert::queue_to_v1(queue)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }

    async fn get_quota(
        &self,
        request: Request<v1::GetQuotaRequest>,
    ) -> Result<Response<v1::GetQuotaResponse>, Status> {
        let (view, quota) = get!(self, request, "quotas", "quota", quota_policy);
        Ok(Response::new(v1::GetQuotaResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            quota: Some(convert::quota_to_v1(&quota)),
            status: Some(convert::quota_status(&quota, &view)),
        }))
    }

    async fn list_quotas(
        &self,
        request: Request<v1::ListQuotasRequest>,
    ) -> Result<Response<v1::ListQuotasResponse>, Status> {
        let (view, quotas, next_page_token) = list!(self, request, quota_policies);
        Ok(Response::new(v1::ListQuotasResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            statuses: quotas.iter().map(|quota| convert::quota_status(quota, &view)).collect(),
            quotas: quotas.iter().map(|quota| convert::quota_to_v1(quota)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }
    async fn get_validator(
        &self,
        request: Request<v1::GetValidatorRequest>,
    ) -> Result<Response<v1::GetValidatorResponse>, Status> {
        let (view, object) = get!(self, request, "validators", "validator", validator);
        Ok(Response::new(v1::GetValidatorResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            validator: Some(convert::validator_to_v1(&object)),
        }))
    }

    async fn list_validators(
        &self,
        request: Request<v1::ListValidatorsRequest>,
    ) -> Result<Response<v1::ListValidatorsResponse>, Status> {
        let (view, objects, next_page_token) = list!(self, request, validators);
        Ok(Response::new(v1::ListValidatorsResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            validators: objects.iter().map(|object| convert::validator_to_v1(object)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }

    async fn take_tokens(
        &self,
        request: Request<v1::TakeTokensRequest>,
    ) -> Result<Response<v1::TakeTokensResponse>, Status> {
        let actor = Actor::of(&request);
        let results = tokens::take(&self.api, &actor, request.into_inner()).await?;
        Ok(Response::new(v1::TakeTokensResponse { results }))
    }

    async fn get_schedule(
        &self,
        request: Request<v1::GetScheduleRequest>,
    ) -> Result<Response<v1::GetScheduleResponse>, Status> {
        let (view, schedule) = get!(self, request, "schedules", "schedule", schedule);
        Ok(Response::new(v1::GetScheduleResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            schedule: Some(convert::schedule_to_v1(&schedule)),
            status: Some(convert::schedule_status(&schedule, &view)),
        }))
    }

    async fn list_schedules(
        &self,
        request: Request<v1::ListSchedulesRequest>,
    ) -> Result<Response<v1::ListSchedulesResponse>, Status> {
        let (view, schedules, next_page_token) = list!(self, request, schedules);
        Ok(Response::new(v1::ListSchedulesResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            statuses: schedules.iter().map(|one| convert::schedule_status(one, &view)).collect(),
            schedules: schedules.iter().map(|one| convert::schedule_to_v1(one)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }

    async fn get_service(
        &self,
        request: Request<v1::GetServiceRequest>,
    ) -> Result<Response<v1::GetServiceResponse>, Status> {
        let (view, service) = get!(self, request, "services", "service", service);
        Ok(Response::new(v1::GetServiceResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            service: Some(convert::service_to_v1(&service)),
            status: Some(convert::service_status(&service, &view)),
            rightsizing: self
                .api
                .core
                .rightsizing()
                .of(&view, &service.name)
                .iter()
                .map(rightsized)
                .collect(),
        }))
    }

    async fn list_services(
        &self,
        request: Request<v1::ListServicesRequest>,
    ) -> Result<Response<v1::ListServicesResponse>, Status> {
        let (view, services, next_page_token) = list!(self, request, services);
        Ok(Response::new(v1::ListServicesResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            statuses: services.iter().map(|one| convert::service_status(one, &view)).collect(),
            services: services.iter().map(|one| convert::service_to_v1(one)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }

    async fn get_node_limits(
        &self,
        request: Request<v1::GetNodeLimitsRequest>,
    ) -> Result<Response<v1::GetNodeLimitsResponse>, Status> {
        let (view, limits) = get!(self, request, "nodeLimits", "node limits", node_limits);
        Ok(Response::new(v1::GetNodeLimitsResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            node_limits: Some(convert::node_limits_to_v1(&limits)),
        }))
    }

    async fn list_node_limits(
        &self,
        request: Request<v1::ListNodeLimitsRequest>,
    ) -> Result<Response<v1::ListNodeLimitsResponse>, Status> {
        let (view, limits, next_page_token) = list!(self, request, all_node_limits);
        Ok(Response::new(v1::ListNodeLimitsResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            node_limits: limits.iter().map(|limits| convert::node_limits_to_v1(limits)).collect(),
            next_page_token,
            policy_revision: view.meta().policy_changed.0,
        }))
    }
}

pub(super) fn read_names(
    field: &str,
    names: &[v1::PolicyName],
    wrong: &mut Vec<Violation>,
) -> Vec<PolicyName> {
    let mut read = Vec::with_capacity(names.len());
    for (index, name) in names.iter().enumerate() {
        match convert::policy_name_from_v1(name) {
            Ok(name) => read.push(name),
            Err(violations) => wrong.extend(violations.into_iter().map(|violation| Violation {
                field: format!("{field}[{index}].{}", violation.field),
                ..violation
            })),
        }
    }
    read
}

fn rightsized(from: &Rightsized) -> v1::Rightsizing {
    v1::Rightsizing {
        resource: from.resource.to_owned(),
        requested: from.requested,
        used: from.recommendation.quantile_use,
        recommended: from.recommendation.request,
        samples: from.recommendation.samples,
    }
}
