//! `PlanService`: what a change would come to.

use plimsoll_ledger::{Command, Ledger, Outcome, Request as Asked, Verdict};
use plimsoll_proto::convert;
use plimsoll_proto::limits::MAX_POLICY_OBJECTS as MOST_OBJECTS;
use plimsoll_proto::v1;
use plimsoll_proto::v1::plan_service_server::PlanService;
use plimsoll_scheduler::forecast::{Change, Effect, EffectKind, Notice, Plan, Planned, PolicyChange};
use plimsoll_types::{LedgerTime, ReservationId, Revision};
use tonic::{Request, Response, Status};

use super::api::Api;
use super::defragment;
use super::edge::Actor;
use super::intent::Intent;
use super::policy::read_names;
use super::problem::Problem;

/// Most requests of one plan.
const MOST_SPECS: usize = 64;
/// How far is looked ahead where nobody says.
const DEFAULT_HORIZON_MS: u64 = 24 * 3_600_000;
/// How far may be looked ahead.
const MOST_HORIZON_MS: u64 = 31 * 24 * 3_600_000;
/// Effects in an answer, where nobody says and at most.
const EFFECTS: (usize, usize) = (100, 1_000);

/// The service.
#[derive(Clone)]
pub(super) struct Plans {
    api: Api,
}

/// A request as it was given: to be tried, or refused before.
type Read = Result<Asked, Problem>;

impl Plans {
    pub(super) fn new(api: Api) -> Plans {
        Plans { api }
    }

    /// The policy to try, or why it would be refused at the door.
    fn policy(
        &self,
        actor: &Actor,
        request: &v1::PlanRequest,
    ) -> Result<Result<PolicyChange, Problem>, Problem> {
        let many = request.objects.len() + request.delete.len();
        if many > MOST_OBJECTS {
            let what = format!("at most {MOST_OBJECTS} are taken, {many} are given");
            return Err(Problem::invalid("objects", what));
        }
        let mut wrong = Vec::new();
        let put = convert::policy_objects_from_v1(&request.objects).unwrap_or_else(|violations| {
            wrong.extend(violations);
            Vec::new()
        });
        let delete = read_names("delete", &request.delete, &mut wrong);
        if !wrong.is_empty() {
            return Err(Problem::policy(wrong));
        }
        let if_revision = Revision(request.if_revision);
        if many == 0 {
            return Ok(Ok(PolicyChange::default()));
        }
        let command = Command::ApplyPolicy { put: put.clone(), delete: delete.clone(), if_revision };
        let intent = Intent::of_command(actor, "apply-policy", String::new(), true, request, command)?;
        let judged = self.api.judge(&intent.entry);
        Ok(judged.map(|()| PolicyChange { put, delete, if_revision }))
    }

    /// The requests to try; those that the cluster's rules refuse are not.
    fn requests(&self, actor: &Actor, specs: &[v1::ReservationSpec]) -> Result<Vec<Read>, Problem> {
        if specs.len() > MOST_SPECS {
            let what = format!("has {} requests, at most {MOST_SPECS} are taken", specs.len());
            return Err(Problem::invalid("specs", what));
        }
        let mut read = Vec::with_capacity(specs.len());
        for (index, spec) in specs.iter().enumerate() {
            let mut asked = convert::request_from_v1(spec)
                .map_err(|violations| Problem::fields(&format!("specs[{index}]"), violations))?;
            self.api.complete(&mut asked);
            let command = Command::Submit { request: asked.clone(), verdict: Verdict::Blocked(Vec::new()) };
            let intent = Intent::of_command(actor, "create", String::new(), true, spec, command)?;
            read.push(self.api.judge(&intent.entry).map(|()| asked));
        }
        Ok(read)
    }
}

#[tonic::async_trait]
impl PlanService for Plans {
    async fn plan_defragmentation(
        &self,
        request: Request<v1::PlanDefragmentationRequest>,
    ) -> Result<Response<v1::PlanDefragmentationResponse>, Status> {
        let request = request.into_inner();
        let plan = defragment::plan(&self.api, &request.pool, request.max_moves).await?;
        let _turn = self.api.turn().await;
        Ok(Response::new(defragment::answer(&self.api.core.local(), &request.pool, plan)))
    }

    async fn defragment(
        &self,
        request: Request<v1::DefragmentRequest>,
    ) -> Result<Response<v1::DefragmentResponse>, Status> {
        let actor = Actor::of(&request);
        Ok(Response::new(defragment::carry_out(&self.api, &actor, request.into_inner()).await?))
    }

    async fn plan(&self, request: Request<v1::PlanRequest>) -> Result<Response<v1::PlanResponse>, Status> {
        let actor = Actor::of(&request);
        let request = request.into_inner();
        if request.objects.is_empty() && request.delete.is_empty() && request.specs.is_empty() {
            return Err(Problem::invalid("specs", "nothing is to be tried").into());
        }
        if request.horizon_ms > MOST_HORIZON_MS {
            let what = format!("is {} ms, at most {MOST_HORIZON_MS} are looked ahead", request.horizon_ms);
            return Err(Problem::invalid("horizon_ms", what).into());
        }
        let horizon_ms = if request.horizon_ms == 0 { DEFAULT_HORIZON_MS } else { request.horizon_ms };
        self.api.check_in_cluster()?;
        let policy = self.policy(&actor, &request)?;
        let read = self.requests(&actor, &request.specs)?;
        let (policy, policy_problem) = match policy {
            Ok(policy) => (policy, None),
            Err(problem) => (PolicyChange::default(), Some(problem)),
        };
        let change = Change { policy, requests: read.iter().flatten().cloned().collect() };
        let plan =
            self.api.core.plan(actor.0.to_string(), change, horizon_ms).await.map_err(Problem::from)?;
        let most = match request.max_effects as usize {
            0 => EFFECTS.0,
            given => given.min(EFFECTS.1),
        };
        let answer = || answer(&self.api.core.local(), plan, read, policy_problem, most);
        Ok(Response::new(self.api.at_length(answer).await))
    }
}

fn answer(
    ledger: &Ledger,
    plan: Plan,
    read: Vec<Read>,
    policy_problem: Option<Problem>,
    most: usize,
) -> v1::PlanResponse {
    let ids: Vec<(ReservationId, String)> = {
        let tried = read.iter().enumerate().filter(|(_, read)| read.is_ok()).map(|(index, _)| index);
        let made = |planned: &Planned| match &planned.answer.outcome {
            Outcome::Reservation(made) => Some(made.id),
            _ => None,
        };
        let named = tried.zip(&plan.requests);
        named.filter_map(|(index, planned)| Some((made(planned)?, format!("specs[{index}]")))).collect()
    };
    let shown = plan.effects.len().min(most);
    let effect = |effect: &Effect| effect_to_v1(ledger, effect, &ids);
    let effects: Vec<v1::PlanEffect> = plan.effects[..shown].iter().map(effect).collect();
    let mut tried = plan.requests.iter();
    let requests = read
        .into_iter()
        .map(|read| match (read, ledger) {
            (Ok(_), ledger) => tried.next().map(|planned| planned_to_v1(ledger, planned)).unwrap_or_default(),
            (Err(problem), _) => refused(problem),
        })
        .collect();
    let policy_problem = policy_problem.or_else(|| plan.policy_refused.map(Problem::from));
    let overrun = |over: plimsoll_scheduler::forecast::QueueOver| v1::QuotaOverrun {
        queue: over.queue,
        pool: over.pool,
        resource: over.resource,
        taken: over.taken,
        most: over.most,
        already: over.before,
    };
    let moved = |(node, from_pool, to_pool)| v1::NodeMove { node, from_pool, to_pool };
    v1::PlanResponse {
        revision: plan.revision.0,
        log_time_ms: plan.now.0,
        until_ms: plan.until.0,
        cut_short: !plan.whole,
        policy_failure: policy_problem.map(Problem::into_failure),
        requests,
        effects,
        effects_left_off: (plan.effects.len() - shown) as u64,
        quota_overruns: plan.over_quota.into_iter().map(overrun).collect(),
        node_moves: plan.moved_nodes.into_iter().take(most).map(moved).collect(),
    }
}

fn refused(problem: Problem) -> v1::PlannedRequest {
    let failure = problem.into_failure();
    v1::PlannedRequest {
        verdict: v1::PlanVerdict::Refused.into(),
        blockers: failure.blockers.clone(),
        failure: Some(failure),
        ..v1::PlannedRequest::default()
    }
}

fn planned_to_v1(ledger: &Ledger, planned: &Planned) -> v1::PlannedRequest {
    let Some(reservation) = &planned.reservation else {
        let Outcome::Refused(refusal) = &planned.answer.outcome else {
            return refused(Problem::internal("a request that left no reservation"));
        };
        let mut shown = refused(Problem::from(refusal.clone()));
        if planned.never {
            shown.verdict = v1::PlanVerdict::Never.into();
        }
        return shown;
    };
    let verdict = match reservation.state {
        plimsoll_ledger::State::Planned => v1::PlanVerdict::StartsAfterNotice,
        state if state.is_occupying() => v1::PlanVerdict::Starts,
        _ => v1::PlanVerdict::Waits,
    };
    v1::PlannedRequest {
        verdict: verdict.into(),
        blockers: reservation.blockers.iter().map(convert::blocker_to_v1).collect(),
        reservation: Some(convert::reservation_to_v1(reservation, ledger)),
        failure: None,
        expected_start_ms: time(planned.expected_start),
    }
}

fn effect_to_v1(ledger: &Ledger, effect: &Effect, ids: &[(ReservationId, String)]) -> v1::PlanEffect {
    let named = |id: ReservationId| {
        ids.iter().find(|(made, _)| *made == id).map_or_else(|| id.to_string(), |(_, name)| name.clone())
    };
    let with_notice = |shown: v1::PlanEffect, notice: &Notice| v1::PlanEffect {
        notice_ms: notice.at.0,
        rule: notice.rule.name().to_owned(),
        lost_ms: if notice.granted_at.0 > 0 { notice.at.0.saturating_sub(notice.granted_at.0) } else { 0 },
        by: named(notice.by),
        ..shown
    };
    let shown = v1::PlanEffect {
        reservation: Some(convert::reservation_to_v1(&effect.reservation, ledger)),
        ..v1::PlanEffect::default()
    };
    let kind =
        |kind: v1::PlanEffectKind, shown: v1::PlanEffect| v1::PlanEffect { kind: kind.into(), ..shown };
    match &effect.kind {
        EffectKind::Preempted(notice) => kind(v1::PlanEffectKind::Preempted, with_notice(shown, notice)),
        EffectKind::Spared(notice) => kind(v1::PlanEffectKind::Spared, with_notice(shown, notice)),
        EffectKind::NeverStarts(blockers) => kind(
            v1::PlanEffectKind::NeverStarts,
            v1::PlanEffect { blockers: blockers.iter().map(convert::blocker_to_v1).collect(), ..shown },
        ),
        EffectKind::Delayed { from, to } => {
            kind(v1::PlanEffectKind::Delayed, v1::PlanEffect { from_ms: from.0, to_ms: time(*to), ..shown })
        }
        EffectKind::StartsNow { from } => {
            kind(v1::PlanEffectKind::StartsNow, v1::PlanEffect { from_ms: time(*from), to_ms: 0, ..shown })
        }
        EffectKind::Earlier { from, to } => {
            kind(v1::PlanEffectKind::Earlier, v1::PlanEffect { from_ms: time(*from), to_ms: to.0, ..shown })
        }
    }
}

fn time(at: Option<LedgerTime>) -> u64 {
    at.map_or(0, |at| at.0)
}
