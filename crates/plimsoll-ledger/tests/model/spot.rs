//! Spot capacity in the model: `docs/semantics.md` 5.22.

use std::collections::BTreeSet;

use plimsoll_ledger::{CapacityType, OnInterruption, Preferred, SpotPolicy};
use plimsoll_types::{Operator, Term};

use super::*;

const DAY_MS: u64 = 24 * HOUR_MS;

/// By whom, by which rule, when, and with how much grace.
type Taken = (u64, PreemptionRule, u64, u64);

/// True where it counts against the bound of an hour.
pub(super) fn counts(known: Taken) -> bool {
    known.1 != PreemptionRule::Interruption
}

impl Nod {
    /// Neither an operator nor its provider says that it takes nothing.
    pub(super) fn open(&self) -> bool {
        self.schedulable && self.interruption.is_none()
    }

    /// The spot pool of a spot node.
    fn market(&self) -> Option<String> {
        let of = |key: &str| self.reg.labels.get(key).cloned();
        (of("capacity_type")? == "spot").then(|| of("spot_pool").unwrap_or_default())
    }
}

impl Model {
    /// The registration with what it does not say of how the node is paid for.
    pub(super) fn with_capacity_labels(&self, reg: &Registration) -> Result<Registration, Reason> {
        let mut reg = reg.clone();
        if self.version < 11 {
            return Ok(reg);
        }
        let known = ["on_demand", "reserved", "spot"];
        let says = |key: &str| reg.labels.get(key).map(String::as_str);
        let bad_type = says("capacity_type").is_some_and(|said| !known.contains(&said));
        let bad_price = says("price_permille")
            .is_some_and(|said| !said.parse().is_ok_and(|price: u32| (1..=1_000_000).contains(&price)));
        if bad_type || bad_price {
            return Err(Reason::InvalidArgument);
        }
        fill(&mut reg.labels);
        Ok(reg)
    }

    /// What the newest rules do with nodes that are there.
    pub(super) fn fill_nodes(&mut self) {
        for id in self.nodes.keys().copied().collect::<Vec<_>>() {
            let mut n = self.nodes[&id].clone();
            if fill(&mut n.reg.labels) {
                (n.pool, n.lent) = self.place_of(&n.reg, n.lent.as_ref(), &n.pool);
                n.allocatable = self.allocatable_of(&n.reg);
                self.nodes.insert(id, n);
                self.keep_no_places(id);
            }
        }
    }

    fn spot_policy(&self, request: &Request) -> Option<&SpotPolicy> {
        if self.version < 11 {
            return None;
        }
        let mut at = self.queues.get(&request.queue);
        while let Some(queue) = at {
            if queue.spot.is_some() {
                return queue.spot.as_ref();
            }
            at = self.queues.get(&queue.parent);
        }
        self.pools[&request.pool].spot.as_ref()
    }

    pub(super) fn with_spot(&self, mut request: Request) -> Request {
        let Some(policy) = self.spot_policy(&request) else { return request };
        let term = |operator, values: &[&str]| Term {
            key: "capacity_type".into(),
            operator,
            values: values.iter().map(|value| (*value).to_owned()).collect(),
        };
        let mut required = Vec::new();
        let mut preferred = Vec::new();
        // Requests of histories say nothing of these labels themselves.
        let suits = policy.suitable_for.is_empty()
            || policy.suitable_for.contains(&request.class)
            || policy.suitable_for.iter().any(|tag| request.labels.contains_key(tag))
            || request.labels.get("task").is_some_and(|task| policy.suitable_for.contains(task));
        let fallback: Vec<&str> = match policy.fallback.as_slice() {
            [] => vec!["reserved", "on_demand"],
            named => named.iter().map(|kind| name_of(*kind)).collect(),
        };
        let mut missing: Vec<&str> = vec!["on_demand", "reserved", "spot"];
        missing.retain(|name| !(fallback.contains(name) || *name == "spot" && suits));
        required.push(match missing.is_empty() {
            true => term(Operator::Exists, &[]),
            false => term(Operator::NotIn, &missing),
        });
        if suits {
            let wish = |weight, name: &str| Preferred { weight, term: term(Operator::In, &[name]) };
            preferred.push(wish(100, "spot"));
            if let [first, _] = fallback.as_slice() {
                preferred.push(wish(50, first));
            }
        }
        if policy.max_price_permille > 0 {
            let values = vec![(policy.max_price_permille + 1).to_string()];
            required.push(Term { key: "price_permille".into(), operator: Operator::Lt, values });
        }
        let said = policy.on_interruption;
        request.on_interruption = request.on_interruption.or(said);
        request.requirements.required.terms.extend(required);
        request.requirements.preferred.extend(preferred);
        request
    }

    pub(super) fn spot_reasons(&self, request: &Request, members: &[(u32, Vec<DeviceGrant>)]) -> Vec<Reason> {
        let Some(policy) = self.spot_policy(request) else { return Vec::new() };
        let gone = self.gone.borrow().clone();
        let group = |request: &Request| match request.service.as_str() {
            "" => (request.pool.clone(), false, request.queue.clone()),
            service => (request.pool.clone(), true, service.to_owned()),
        };
        let stays = |r: &Res| r.state == State::Planned || occupies(r.state) && r.resume != State::Preempting;
        let there = self.reservations.iter().filter(|(id, r)| !gone.contains(id) && stays(r));
        let there = there.filter(|(_, r)| group(&r.request) == group(request)).map(|(_, r)| r);
        let new = members.iter().map(|(node, _)| node);
        let nodes: Vec<&u32> = there.flat_map(|r| &r.members).map(|(node, _)| node).chain(new).collect();
        let markets: Vec<String> = nodes.iter().filter_map(|node| self.nodes[node].market()).collect();
        let touched: BTreeSet<String> =
            members.iter().filter_map(|(node, _)| self.nodes[node].market()).collect();
        let all = nodes.len() as u64;
        let most = all.saturating_sub(policy.base.into()) * u64::from(policy.share_permille) / 1_000;
        let in_one = all * u64::from(policy.max_in_one_permille) / 1_000;
        let is_bound = !request.service.is_empty() && policy.max_in_one_permille > 0;
        let full = |market: &String| markets.iter().filter(|one| *one == market).count() as u64 > in_one;
        let over = !touched.is_empty() && markets.len() as u64 > most || is_bound && touched.iter().any(full);
        if over { vec![Reason::SpotShare] } else { Vec::new() }
    }

    pub(super) fn spot_policy_reasons(&self, put: &[PolicyObject]) -> Vec<Reason> {
        let mut reasons = Vec::new();
        for object in put {
            let spot = match object {
                PolicyObject::Pool(pool) => pool.spot.as_ref(),
                PolicyObject::Queue(queue) => queue.spot.as_ref(),
                _ => None,
            };
            let Some(spot) = spot else { continue };
            if self.version < 11 {
                reasons.push(Reason::UnsupportedVersion);
            }
            let distinct: BTreeSet<_> = spot.fallback.iter().collect();
            if spot.share_permille > 1_000
                || spot.max_in_one_permille > 1_000
                || spot.max_price_permille > 0 && !(1_000..=1_000_000).contains(&spot.max_price_permille)
                || distinct.len() < spot.fallback.len()
                || spot.fallback.contains(&CapacityType::Spot)
                || spot.suitable_for.iter().any(|tag| tag.is_empty() || tag.len() > 128)
            {
                reasons.push(Reason::InvalidArgument);
            }
        }
        reasons
    }

    pub(super) fn interrupt(&mut self, id: u32, epoch: u64, in_ms: u64) -> Result<(), Reason> {
        if self.version < 11 {
            return Err(Reason::UnsupportedVersion);
        }
        if in_ms > DAY_MS {
            return Err(Reason::InvalidArgument);
        }
        let clock = self.clock;
        let n = self.nodes.get_mut(&id).ok_or(Reason::NotFound)?;
        if n.epoch != epoch {
            return Err(Reason::Fenced);
        }
        if !matches!(n.health, NodeHealth::Available | NodeHealth::Suspect) {
            return Err(Reason::WrongState);
        }
        let (at, goes) = n.interruption.unwrap_or((clock, u64::MAX));
        if goes <= clock + in_ms {
            return Ok(());
        }
        n.interruption = Some((at, clock + in_ms));
        self.keep_no_places(id);
        for holder in self.holders(id) {
            let r = self.reservations.get_mut(&holder).expect("a holder");
            if repair::goes_on_without(r, &|member| member.0 == id) {
                continue;
            }
            match r.state {
                State::Preempting => r.deadline = r.deadline.min(clock + in_ms),
                State::Held | State::Active | State::Partial => {
                    r.preempted = Some((0, PreemptionRule::Interruption, clock, in_ms));
                    if r.state == State::Held {
                        self.take_back(holder);
                        continue;
                    }
                    (r.state, r.resume) = (State::Preempting, State::Preempting);
                    r.deadline = at_most(clock + in_ms, r.hard_end);
                }
                State::Unknown if matches!(r.resume, State::Active | State::Partial) => {
                    r.preempted = Some((0, PreemptionRule::Interruption, clock, in_ms));
                    r.resume = State::Preempting;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Its node went as its provider had said.
    pub(super) fn interrupted_away(&mut self, id: u64) {
        let clock = self.clock;
        let r = self.reservations.get_mut(&id).expect("a holder");
        if r.preempted.is_none_or(counts) {
            r.preempted = Some((0, PreemptionRule::Interruption, clock, 0));
        }
        let old = r.clone();
        self.take_back(id);
        if !self.reservations[&id].state.is_final() {
            self.keep_fence_pending(id, &old, &old.members);
        }
    }

    /// One whose request says what becomes of it.
    pub(super) fn take_back_interrupted(&mut self, id: u64) {
        let r = &self.reservations[&id];
        match (r.request.wait, r.request.on_interruption) {
            (
                Wait::Queue { deadline_ms },
                Some(OnInterruption::CheckpointAndRetry | OnInterruption::Requeue),
            ) => {
                self.wait_again(id, deadline_ms);
            }
            _ => self.finish(id, State::Preempted, EndReason::Preempted),
        }
    }
}

fn fill(labels: &mut Labels) -> bool {
    let before = labels.len();
    labels.entry("capacity_type".into()).or_insert_with(|| "on_demand".into());
    labels.entry("price_permille".into()).or_insert_with(|| "1000".into());
    labels.len() > before
}

fn name_of(kind: CapacityType) -> &'static str {
    match kind {
        CapacityType::OnDemand => "on_demand",
        CapacityType::Reserved => "reserved",
        CapacityType::Spot => "spot",
    }
}
