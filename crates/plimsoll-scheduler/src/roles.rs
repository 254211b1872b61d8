//! Places for gangs of several roles: role by role, each as the pool's strategy places a gang of its own, beside what was found for the others.
//!
//! Greedy, as all placement: the fewest of each role first, the largest members before smaller ones, then what more is wanted of each in the order of the roles. What a role takes is booked
//! while the next is looked for, and given back at the end.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;

use plimsoll_ledger::{Ledger, MemberPlacement, NODE_LEVEL, Placement, Request, Strategy, Topology};
use plimsoll_types::{NodeId, Operator, Term};

use crate::Planner;
use crate::fit::Stock;
use crate::planner::size_of;
use crate::spot::BookedSpots;
use crate::topology::BookedWork;

/// Most domains of a level in which all roles are tried.
const MOST_DOMAINS: usize = 64;

impl Planner {
    /// All members of all roles: as many as fit up to each maximum, or nothing below a minimum. O(roles x members x search), for each domain that is tried.
    pub(crate) fn find_roles(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        strategy: Strategy,
    ) -> Option<Placement> {
        let most = self.headroom.most_members(request, request.gang.max_members);
        let most = self.agenda.most_members(request, most);
        if most < request.gang.min_members {
            return None;
        }
        for level in levels(ledger, request) {
            for terms in domains(ledger, request, level).into_iter().take(MOST_DOMAINS) {
                if let Some(found) = self.find_roles_within(ledger, request, strategy, most, &terms) {
                    return Some(found);
                }
            }
        }
        if request.topology.required.is_empty() {
            return self.find_roles_within(ledger, request, strategy, most, &[]);
        }
        None
    }

    fn find_roles_within(
        &mut self,
        ledger: &Ledger,
        request: &Request,
        strategy: Strategy,
        most: u32,
        terms: &[Term],
    ) -> Option<Placement> {
        let mut members: Vec<MemberPlacement> = Vec::new();
        let mut aside = Aside::default();
        let mut is_whole = true;
        // First the fewest of each, all of them, the largest members first: small ones find room between them. Then as many more as there is room for.
        let mut steps: Vec<(u16, u32)> = request.role_order().collect();
        let needed = request.roles.len();
        steps[..needed].sort_by_key(|(role, _)| Reverse(size_of(&request.of_role(*role, 1, 1))));
        for (step, (role, wanted)) in steps.into_iter().enumerate() {
            let is_needed = step < needed;
            let left = most - members.len() as u32;
            let wanted = wanted.min(left);
            if wanted == 0 {
                continue;
            }
            let mut asked = request.of_role(role, if is_needed { wanted } else { 1 }, wanted);
            asked.requirements.required.terms.extend(terms.iter().cloned());
            asked.topology = Topology::default();
            let found = self.find_by(ledger, &asked, strategy).map(|placement| placement.members);
            let found = found.unwrap_or_default();
            if found.is_empty() && is_needed {
                is_whole = false;
                break;
            }
            self.put_aside(ledger, &asked, &Placement { members: found.clone() }, &mut aside);
            members.extend(found.into_iter().map(|member| MemberPlacement { role, ..member }));
        }
        self.put_back(&request.pool, aside);
        let mut placement = Placement { members };
        if is_whole {
            self.headroom.trim(request, &mut placement);
            self.agenda.trim(request, &mut placement);
        }
        let enough = placement.members.len() as u32 >= request.gang.min_members.max(1);
        (is_whole && enough).then_some(placement)
    }
}

/// What roles found so far take, for the moment.
#[derive(Default)]
struct Aside {
    /// Nodes as they were.
    stocks: BTreeMap<NodeId, Stock>,
    tickets: Vec<u64>,
    work: Vec<BookedWork>,
    hidden: Vec<NodeId>,
    spots: Vec<BookedSpots>,
}

impl Planner {
    /// Takes a role's place of nodes and countables, so that the next role finds the rest. Quotas, limits and the calendar are asked of all roles
    /// together.
    fn put_aside(&mut self, ledger: &Ledger, asked: &Request, placement: &Placement, aside: &mut Aside) {
        for member in &placement.members {
            if let Some(view) = self.fleet.get(member.node) {
                aside.stocks.entry(member.node).or_insert_with(|| view.stock());
            }
        }
        let ticket = self.new_ticket().number();
        let shares = ledger.shares_asked(asked);
        self.fleet.book(ticket, &shares, placement, asked.is_best_effort());
        self.fleet.book_countables(ticket, &asked.pool, shares.in_pool(&placement.members));
        aside.tickets.push(ticket);
        if let Some(work) = BookedWork::of(ledger, asked, placement).filter(|_| self.heeds_work) {
            work.count(Arc::make_mut(&mut self.booked_work), true);
            aside.work.push(work);
        }
        aside.spots.extend(self.book_spots(ledger, asked, placement));
        if asked.gang.spread {
            let nodes = placement.members.iter().map(|member| member.node);
            aside.hidden.extend(nodes.clone());
            self.set_aside(nodes, true);
        }
    }

    fn put_back(&mut self, pool: &str, aside: Aside) {
        self.set_aside(aside.hidden, false);
        for ticket in aside.tickets {
            self.fleet.unbook(ticket, pool, aside.stocks.keys().copied());
        }
        // What was taken for the moment and is given back is no news to the queue.
        let due = self.queue_pass_due;
        for spots in &aside.spots {
            self.unbook_spots(spots);
        }
        self.queue_pass_due = due;
        for work in aside.work {
            work.count(Arc::make_mut(&mut self.booked_work), false);
        }
        for (node, stock) in aside.stocks {
            self.fleet.restore(node, stock);
        }
    }
}

/// Levels in one domain of which all members are to be: from the one that is preferred outwards, to the one that is required.
fn levels<'a>(ledger: &'a Ledger, request: &'a Request) -> Vec<&'a str> {
    let Some(pool) = ledger.pool(&request.pool) else { return Vec::new() };
    let depth = |level: &str| pool.depth_of(level).filter(|_| !level.is_empty());
    let (required, preferred) = (depth(&request.topology.required), depth(&request.topology.preferred));
    let Some(innermost) = required.max(preferred) else { return Vec::new() };
    let names: Vec<&str> = pool.topology.iter().map(String::as_str).chain([NODE_LEVEL]).collect();
    names[required.unwrap_or(0)..=innermost].iter().rev().copied().collect()
}

/// The domains of a level that a pool's nodes are in, as labels: those with most nodes first.
fn domains(ledger: &Ledger, request: &Request, level: &str) -> Vec<Vec<Term>> {
    let Some(pool) = ledger.pool(&request.pool) else { return Vec::new() };
    let Some(depth) = pool.depth_of(level) else { return Vec::new() };
    let mut found: BTreeMap<Vec<String>, usize> = BTreeMap::new();
    for node in ledger.nodes().filter(|node| node.pool == request.pool && node.is_eligible()) {
        let labels = node.effective_labels();
        let path: Option<Vec<String>> =
            pool.topology.iter().take(depth + 1).map(|level| labels.get(level).cloned()).collect();
        if let Some(mut path) = path {
            // Inside the last level is each node by itself.
            if depth >= pool.topology.len() {
                path.push(node.name().to_owned());
            }
            *found.entry(path).or_default() += 1;
        }
    }
    let mut paths: Vec<(Reverse<usize>, Vec<String>)> =
        found.into_iter().map(|(path, nodes)| (Reverse(nodes), path)).collect();
    paths.sort();
    let terms = |path: Vec<String>| {
        let levels = pool.topology.iter().map(String::as_str).chain([NODE_LEVEL]);
        let term = |(key, value): (&str, String)| Term {
            key: key.to_owned(),
            operator: Operator::In,
            values: vec![value],
        };
        levels.zip(path).map(term).collect()
    };
    paths.into_iter().map(|(_, path)| terms(path)).collect()
}
