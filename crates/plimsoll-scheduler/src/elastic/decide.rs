//! One look at all elastic pools.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use plimsoll_ledger::{Command, Entry, Ledger, Node, Outcome, PolicyObject, Pool, Refusal, Request, Stamp};
use plimsoll_mutants::mutant;
use plimsoll_types::{LedgerTime, NodeId, ReservationId, Resources, Revision};

use super::IdleWatch;
use crate::Planner;
use crate::fit::NodeView;
use crate::fleet::kinds;

/// Nodes that are tried for one pool in one look.
const MOST_TRIED: usize = 32;
/// Requests of a queue that are looked at, from its head on. Where more wait at home, somebody may want any node.
const MOST_WAITING: usize = 256;
/// Lines that are said of a pool in one look.
const MOST_LINES: usize = 32;

/// A node that is to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeMove {
    /// Which.
    pub node: NodeId,
    /// The pool that it is in.
    pub from: String,
    /// The pool that it goes to.
    pub to: String,
    /// Why, in one sentence.
    pub why: String,
}

/// What one look came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElasticLook {
    /// What is to move, in this order.
    pub moves: Vec<NodeMove>,
    /// What was seen of each elastic pool, in sentences.
    pub lines: BTreeMap<String, Vec<String>>,
}

/// True where a look may come to anything: two pools are elastic, and one of them has somebody who waits or too few nodes. O(pools + nodes).
pub fn may_want_moves(ledger: &Ledger) -> bool {
    let elastic: Vec<&Arc<Pool>> = ledger.pools().filter(|pool| pool.elastic.is_elastic()).collect();
    if elastic.len() < 2 {
        return false;
    }
    if ledger.has_repairs() || elastic.iter().any(|pool| ledger.pending_len(&pool.name) > 0) {
        return true;
    }
    let mut heard: BTreeMap<&str, u64> = BTreeMap::new();
    for node in ledger.nodes().filter(|node| node.health.is_heard()) {
        *heard.entry(&node.pool).or_default() += 1;
    }
    let has = |pool: &str| heard.get(pool).copied().unwrap_or_default();
    elastic.iter().any(|pool| has(&pool.name) < u64::from(pool.elastic.min_nodes))
}

/// True where a request that nothing in its pool can ever hold would fit, each kind of its members, on a node of another elastic pool, were that
/// empty. O(nodes x kinds).
pub fn may_be_lent(ledger: &Ledger, request: &Request) -> bool {
    let is_elastic = |name: &str| ledger.pool(name).is_some_and(|pool| pool.elastic.is_elastic());
    if !is_elastic(&request.pool) || request.is_best_effort() {
        return false;
    }
    let mut asked = kinds(ledger, request);
    for node in ledger.nodes().filter(|node| node.pool != request.pool && is_elastic(&node.pool)) {
        if ledger.machine_of_node(node.name()).is_none()
            && let Some(view) = NodeView::applied(ledger, node.id, node.effective_labels())
        {
            asked.retain(|(amounts, kind)| !view.could_hold(kind, amounts));
        }
        if asked.is_empty() {
            return true;
        }
    }
    false
}

/// Looks at every elastic pool on a copy of the ledger, whose clock stands at `now` or before. O(queues + pools x (nodes + waiting)), and a walk over
/// the queues for each pool that may get nodes.
pub fn look(mut ledger: Ledger, idle: &IdleWatch, now: LedgerTime) -> ElasticLook {
    // The copy's clock goes on, as it will in the log: by an entry that is refused.
    apply(&mut ledger, now, Command::Cancel { reservation: ReservationId(u64::MAX) });
    let pools: Vec<Arc<Pool>> = ledger.pools().filter(|pool| pool.elastic.is_elastic()).cloned().collect();
    // Whoever is placed without a move needs none: the leader is about to.
    let placed = Planner::new(&ledger, 0).plan_queue(&ledger, usize::MAX);
    let served: BTreeSet<String> = placed
        .iter()
        .filter_map(|(id, ..)| ledger.reservation(*id))
        .map(|reservation| reservation.request.pool.clone())
        .collect();
    let mut found = ElasticLook::default();
    let mut free: Vec<NodeView> = Vec::new();
    for pool in &pools {
        let home = Home::of(&ledger, pool, served.contains(&pool.name));
        for node in ledger.nodes().filter(|node| node.pool == pool.name) {
            match home.lets_go(&ledger, node, idle, now) {
                Ok(view) => free.push(view),
                Err(why) => found.say(&pool.name, format!("{} stays: {why}", node.name())),
            }
        }
    }
    for pool in &pools {
        let line = match wanted(&ledger, pool, served.contains(&pool.name)) {
            Ok(short) => fill(&mut ledger, pool, short, &mut free, idle, now, &mut found),
            Err(line) => line,
        };
        found.lines.entry(pool.name.clone()).or_default().insert(0, line);
    }
    found
}

impl ElasticLook {
    fn say(&mut self, pool: &str, line: String) {
        let lines = self.lines.entry(pool.to_owned()).or_default();
        if lines.len() < MOST_LINES {
            lines.push(line);
        }
    }
}

/// A pool that may lend nodes, and who of its own waits for one.
struct Home {
    timeout_ms: u64,
    /// Why it lends none; `None` where it may.
    keeps_all: Option<String>,
    waiting: Vec<Kind>,
}

/// What some who wait need of a node, each kind of members by itself.
struct Kind {
    amounts: Resources,
    request: Request,
    /// The first of those who ask for it.
    by: ReservationId,
}

impl Home {
    fn of(ledger: &Ledger, pool: &Pool, is_served: bool) -> Home {
        let mut keeps_all = ledger.may_spare(pool).err().map(|refusal| said(&refusal));
        if is_served {
            keeps_all = Some("those who wait in its pool are being placed".to_owned());
        } else if ledger.pending_len(&pool.name) > MOST_WAITING {
            keeps_all = Some(format!("more than {MOST_WAITING} requests wait in its own pool"));
        }
        Home { timeout_ms: pool.elastic.idle_timeout(), keeps_all, waiting: waiting(ledger, &pool.name) }
    }

    /// The node, where it may be lent to anybody who wants it; else why it stays.
    fn lets_go(
        &self,
        ledger: &Ledger,
        node: &Arc<Node>,
        idle: &IdleWatch,
        now: LedgerTime,
    ) -> Result<NodeView, String> {
        if ledger.holds_something(node) {
            return Err("it has work".to_owned());
        }
        let until = ledger.stays_until(node);
        if until > now {
            return Err(format!("it came lately, and stays for {} ms more", until.ms_since(now)));
        }
        ledger.may_go(node).map_err(|refusal| said(&refusal))?;
        // Not looked at yet is as good as empty since now.
        let idle_ms = idle.idle_ms(node.id, now).unwrap_or_default();
        if idle_ms < self.timeout_ms {
            return Err(format!("idle for {idle_ms} ms of {} ms", self.timeout_ms));
        }
        if let Some(why) = &self.keeps_all {
            return Err(why.clone());
        }
        let Some(view) = NodeView::applied(ledger, node.id, node.effective_labels()) else {
            return Err("it is gone".to_owned());
        };
        match self.waiting.iter().find(|kind| kind.fits(&view)) {
            Some(kind) if !mutant!("lend-what-is-missed") => {
                Err(format!("{} waits in its own pool and could use it", kind.by))
            }
            _ => Ok(view),
        }
    }
}

impl Kind {
    fn fits(&self, view: &NodeView) -> bool {
        view.fit(&self.request, &self.amounts).is_ok()
    }
}

/// What those need who wait for room of their own in a pool, gangs that lost members first; each kind once. O(waiting x kinds).
fn waiting(ledger: &Ledger, pool: &str) -> Vec<Kind> {
    let claims = ledger.repair_claims(pool, ledger.clock());
    let claimed = claims.filter_map(|gang| Some((gang.id, Arc::new(ledger.lacking(gang)?))));
    let waits = ledger.pending(pool).filter_map(|id| ledger.reservation(id)).filter(|one| one.lacks_nodes());
    let asked = claimed.chain(waits.map(|one| (one.id, Arc::clone(&one.request))));
    let mut found: Vec<Kind> = Vec::new();
    for (by, request) in asked.take(MOST_WAITING) {
        for (amounts, request) in kinds(ledger, &request) {
            let same =
                |kind: &&Kind| kind.amounts == amounts && kind.request.requirements == request.requirements;
            if !found.iter().any(|kind| same(&kind)) {
                found.push(Kind { amounts, request, by });
            }
        }
    }
    found
}

/// How many nodes a pool that may get some lacks of its least; else why it gets none, in one sentence. O(nodes).
fn wanted(ledger: &Ledger, pool: &Pool, is_served: bool) -> Result<u64, String> {
    let heard = ledger.nodes_heard(&pool.name);
    let short = u64::from(pool.elastic.min_nodes).saturating_sub(heard);
    let waiting = ledger.pending_len(&pool.name) + ledger.repairing(&pool.name).count();
    if short == 0 && waiting == 0 {
        return Err(format!("{heard} nodes, and nobody waits"));
    }
    if short == 0 && is_served {
        return Err(format!("{waiting} waiting, of whom some are being placed"));
    }
    let Err(refusal) = ledger.may_take(pool) else { return Ok(short) };
    Err(format!("{waiting} waiting; no more nodes: {}", said(&refusal)))
}

/// Moves nodes in the copy to a pool that wants them: what was seen of it, in one sentence.
fn fill(
    ledger: &mut Ledger,
    pool: &Pool,
    short: u64,
    free: &mut Vec<NodeView>,
    idle: &IdleWatch,
    now: LedgerTime,
    found: &mut ElasticLook,
) -> String {
    let asked = waiting(ledger, &pool.name);
    // Those that somebody could use, its own first, then who has been idle for longest.
    let mut lendable: Vec<_> = free
        .iter()
        .filter(|view| view.node.pool != pool.name)
        .map(|view| {
            let is_used = asked.iter().any(|kind| kind.fits(view));
            let is_own = view.node.moved.as_ref().is_some_and(|moved| moved.home == pool.name);
            (!is_used, !is_own, Reverse(idle.idle_ms(view.node.id, now)), view.node.id)
        })
        .filter(|(is_idle, ..)| short > 0 || !is_idle)
        .collect();
    lendable.sort_unstable();
    lendable.truncate(MOST_TRIED);
    let waiting = ledger.pending_len(&pool.name) + ledger.repairing(&pool.name).count();
    let lacks = if short > 0 { format!(", {short} nodes fewer than its least") } else { String::new() };
    if lendable.is_empty() {
        return format!("{waiting} waiting{lacks}; no node of another pool that fits may move");
    }
    let lendable: Vec<NodeId> = lendable.into_iter().map(|(.., id)| id).collect();
    let useful = first_used_of(ledger, pool, &lendable);
    let mut chosen: Vec<(NodeId, String)> = Vec::new();
    for node in &lendable {
        if let Some(id) = useful.get(node) {
            chosen.push((*node, format!("{id} would be placed on it")));
        }
    }
    let missing = usize::try_from(short).unwrap_or(usize::MAX).saturating_sub(chosen.len());
    let others = lendable.iter().filter(|node| !useful.contains_key(node));
    chosen.extend(others.take(missing).map(|node| (*node, "it has fewer than its least".to_owned())));
    if chosen.is_empty() {
        let tried = lendable.len();
        return format!(
            "{waiting} waiting; none of them would be placed with the {tried} nodes that may move"
        );
    }
    let mut moved = 0;
    for (node, why) in chosen {
        let Some((name, from)) = ledger.node(node).map(|node| (node.name().to_owned(), node.pool.clone()))
        else {
            continue;
        };
        let command = Command::MoveNode { node, from: from.clone(), to: pool.name.clone() };
        // Bounds, growth and what the calendar keeps are the ledger's own word.
        match apply(ledger, now, command) {
            Outcome::Node(_) => {
                moved += 1;
                found.say(&from, format!("{name} goes to {}: {why}", pool.name));
                found.moves.push(NodeMove { node, from, to: pool.name.clone(), why });
            }
            Outcome::Refused(refusal) => {
                found.say(&from, format!("{name} does not go to {}: {}", pool.name, said(&refusal)));
            }
            _ => {}
        }
    }
    free.retain(|view| found.moves.iter().all(|one| one.node != view.node.id));
    format!("{waiting} waiting{lacks}; {moved} of {} nodes that may move come", lendable.len())
}

/// Of these nodes, the first on which as many who wait would be placed as if all of them were in the pool. The planner knows nothing of their order: it is
/// asked with the first of them, and with twice as many until that is so. O((nodes + waiting) x log of these nodes).
fn first_used_of(ledger: &Ledger, pool: &Pool, lendable: &[NodeId]) -> BTreeMap<NodeId, ReservationId> {
    let all = used_of(ledger, pool, lendable);
    let placed = |used: &BTreeMap<NodeId, ReservationId>| used.values().collect::<BTreeSet<_>>().len();
    let mut most = all.len().max(1);
    while most < lendable.len() && !all.is_empty() {
        let some = used_of(ledger, pool, &lendable[..most]);
        if placed(&some) >= placed(&all) {
            return some;
        }
        most *= 2;
    }
    all
}

/// Of these nodes, those on which somebody who waits would be placed if all of them were in the pool, and who. O(nodes + waiting).
fn used_of(ledger: &Ledger, pool: &Pool, lendable: &[NodeId]) -> BTreeMap<NodeId, ReservationId> {
    let mut trial = ledger.clone();
    let now = trial.clock();
    // Growth bounds how fast they come, not what they would be good for together.
    let mut open = pool.clone();
    open.elastic.growth_nodes = MOST_TRIED as u32;
    open.elastic.growth_ms = 1_000;
    let put = vec![PolicyObject::Pool(open)];
    apply(&mut trial, now, Command::ApplyPolicy { put, delete: Vec::new(), if_revision: Revision(0) });
    let mut there = BTreeSet::new();
    for node in lendable {
        let Some(from) = trial.node(*node).map(|node| node.pool.clone()) else { continue };
        let command = Command::MoveNode { node: *node, from, to: pool.name.clone() };
        if let Outcome::Node(_) = apply(&mut trial, now, command) {
            there.insert(*node);
        }
    }
    let mut used = BTreeMap::new();
    for (id, placement, _) in Planner::new(&trial, 0).plan_queue(&trial, usize::MAX) {
        if trial.reservation(id).is_none_or(|one| one.is_best_effort()) {
            continue;
        }
        for member in placement.members.iter().filter(|member| there.contains(&member.node)) {
            used.entry(member.node).or_insert(id);
        }
    }
    used
}

/// The first thing that stands in the way, with its numbers.
fn said(refusal: &Refusal) -> String {
    match refusal.blockers.first() {
        Some(one) => format!("{} ({} asked, {})", one.subject, one.asked, one.available),
        None => format!("{:?}", refusal.reason),
    }
}

/// The next entry of the copy.
fn apply(ledger: &mut Ledger, now: LedgerTime, command: Command) -> Outcome {
    let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: now };
    ledger.apply(stamp, &Entry::system(command)).answer.outcome
}
