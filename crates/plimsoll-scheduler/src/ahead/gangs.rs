//! The earliest place in the future for a gang whose members are of several roles, or have to be near each other.
//!
//! Greedy, as all placement: at each moment the fewest of each role, the largest members first, node by node in one domain of the required level. What is found is a
//! place; that there is none earlier is not proven.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plimsoll_ledger::{Domain, Gang, Ledger, MemberPlacement, Request};
use plimsoll_types::{Amount, Labels, NodeId, Resources};

use super::search::Search;
use crate::fit::NodeView;
use crate::fleet::{Fleet, split};
use crate::planner::size_of;

/// One role's members, or all where there are no roles.
struct Kind {
    role: u16,
    wanted: u32,
    request: Request,
    amounts: Resources,
    in_pool: Resources,
}

/// A node from a moment on, and how many of each kind it could hold, were they alone.
struct Room {
    view: NodeView,
    alone: Vec<u32>,
}

/// True for gangs that [`earliest`] is for.
pub(super) fn is_for(request: &Request) -> bool {
    !request.roles.is_empty() || !request.topology.required.is_empty() || request.topology.group() > 1
}

/// Its start and members. Each look at a node counts, and so does each node of a domain in which it is tried.
pub(super) fn earliest(search: &Search<'_>, left: &mut u64) -> Option<(u64, Vec<MemberPlacement>)> {
    let kinds = kinds(search.ledger, search.request);
    let mut rooms: BTreeMap<NodeId, Room> = BTreeMap::new();
    let nodes: Vec<NodeId> = search.fleet.pool_views(&search.request.pool).map(|view| view.node.id).collect();
    for node in nodes {
        look(search, &kinds, node, search.now_ms, &mut rooms, left);
    }
    if let Some(members) = together(search, &kinds, search.now_ms, &mut rooms, left) {
        return Some((search.now_ms, members));
    }
    let mut rises = search.future.rises(search.from_ms).peekable();
    while let Some((at, node)) = rises.next() {
        if *left == 0 {
            return None;
        }
        let at = at.max(search.now_ms.saturating_add(1));
        look(search, &kinds, node, at, &mut rooms, left);
        // All that leaves at one moment leaves together.
        if rises.peek().is_some_and(|(next, _)| *next <= at) {
            continue;
        }
        if let Some(members) = together(search, &kinds, at, &mut rooms, left) {
            return Some((at, members));
        }
    }
    None
}

/// True where all its members together would have a place if nobody else were there. O(nodes of the pool x members).
pub(crate) fn fits_when_empty(ledger: &Ledger, fleet: &Fleet, request: &Request) -> bool {
    let kinds = kinds(ledger, request);
    let Some(pool) = ledger.pool(&request.pool) else { return false };
    let has_total =
        |(name, sum): (&str, u64)| pool.countables.get(name).copied().unwrap_or_default() >= Amount(sum);
    if !countables(&kinds).into_iter().all(has_total) {
        return false;
    }
    let eligible = fleet.pool_views(&request.pool).filter(|view| view.node.is_eligible());
    let room = |view: &NodeView| {
        let room = Room::of(&kinds, view.emptied(), &view.labels)?;
        Some((view.node.id, room))
    };
    let rooms: BTreeMap<NodeId, Room> = eligible.filter_map(room).collect();
    domains(ledger, request, &rooms).iter().any(|nodes| within(ledger, &kinds, nodes, &rooms).is_some())
}

/// The largest members first, the fewest of each that are of use.
fn kinds(ledger: &Ledger, request: &Request) -> Vec<Kind> {
    let all: Vec<(u16, u32)> = match request.roles.is_empty() {
        true => vec![(0, request.gang.min_members.max(1))],
        false => request.role_order().take(request.roles.len()).collect(),
    };
    let kind = |(role, wanted): (u16, u32)| {
        let request =
            if request.roles.is_empty() { request.clone() } else { request.of_role(role, wanted, wanted) };
        let (amounts, in_pool) = split(ledger, &request);
        Kind { role, wanted, request, amounts, in_pool }
    };
    let mut kinds: Vec<Kind> = all.into_iter().filter(|(_, wanted)| *wanted > 0).map(kind).collect();
    kinds.sort_by_key(|kind| Reverse(size_of(&single(&kind.request))));
    kinds
}

fn single(request: &Request) -> Request {
    let gang = Gang { min_members: 1, max_members: 1, ..request.gang };
    Request { gang, ..request.clone() }
}

/// What a node has room for from a moment on, kind by kind.
fn look(
    search: &Search<'_>,
    kinds: &[Kind],
    node: NodeId,
    at: u64,
    rooms: &mut BTreeMap<NodeId, Room>,
    left: &mut u64,
) {
    *left = left.saturating_sub(1);
    rooms.remove(&node);
    let Some(known) = search.fleet.get(node) else { return };
    let until = at.saturating_add(search.length_ms);
    let Some(view) = search.future.through(search.fleet, node, at, until, search.counts) else { return };
    if let Some(room) = Room::of(kinds, view, &known.labels) {
        rooms.insert(node, room);
    }
}

impl Room {
    /// `None` where no kind has a place.
    fn of(kinds: &[Kind], view: NodeView, labels: &Labels) -> Option<Room> {
        let alone = |kind: &Kind| {
            let required = &kind.request.requirements.required;
            if !required.terms.is_empty() && !required.matches(labels) {
                return 0;
            }
            let most = if kind.request.gang.spread { 1 } else { kind.wanted };
            let (mut left, node) = (view.clone(), view.node.id);
            (0..most).take_while(|_| fill(&mut left, kind, node).is_some()).count() as u32
        };
        let alone: Vec<u32> = kinds.iter().map(alone).collect();
        let some = alone.iter().any(|members| *members > 0);
        some.then_some(Room { view, alone })
    }
}

/// Takes a member's place of a node.
fn fill(view: &mut NodeView, kind: &Kind, node: NodeId) -> Option<MemberPlacement> {
    let devices = view.fit_amounts(&kind.request, &kind.amounts).ok()?;
    view.take(&kind.amounts, &devices, kind.request.is_best_effort());
    Some(MemberPlacement { node, devices, role: kind.role })
}

/// All members in one domain at a moment; what was seen of nodes on which somebody is planned is looked at again, as its window moves on.
fn together(
    search: &Search<'_>,
    kinds: &[Kind],
    at: u64,
    rooms: &mut BTreeMap<NodeId, Room>,
    left: &mut u64,
) -> Option<Vec<MemberPlacement>> {
    let enough = |rooms: &BTreeMap<NodeId, Room>| {
        let of = |index: usize| rooms.values().map(|room| u64::from(room.alone[index])).sum::<u64>();
        kinds.iter().enumerate().all(|(index, kind)| of(index) >= kind.wanted.into())
    };
    if !enough(rooms) || !has_countables(search, kinds, at) {
        return None;
    }
    let planned: Vec<NodeId> =
        search.future.planned_nodes().filter(|node| rooms.contains_key(node)).collect();
    for node in planned {
        look(search, kinds, node, at, rooms, left);
    }
    if !enough(rooms) {
        return None;
    }
    let tried = |nodes: Vec<NodeId>| {
        *left = left.saturating_sub(nodes.len() as u64);
        within(search.ledger, kinds, &nodes, rooms)
    };
    domains(search.ledger, search.request, rooms).into_iter().find_map(tried)
}

/// Nodes with room, by the domain of the required level that they are in: all together where none is.
fn domains(ledger: &Ledger, request: &Request, rooms: &BTreeMap<NodeId, Room>) -> Vec<Vec<NodeId>> {
    let level = &request.topology.required;
    let mut domains: BTreeMap<Option<Domain>, Vec<NodeId>> = BTreeMap::new();
    for node in rooms.keys() {
        let domain = match level.is_empty() {
            true => None,
            false => match ledger.chain(*node).and_then(|chain| chain.at(*node, level)) {
                None => continue,
                inside => inside,
            },
        };
        domains.entry(domain).or_default().push(*node);
    }
    domains.into_values().collect()
}

/// All members on these nodes.
fn within(
    ledger: &Ledger,
    kinds: &[Kind],
    nodes: &[NodeId],
    rooms: &BTreeMap<NodeId, Room>,
) -> Option<Vec<MemberPlacement>> {
    let mut views: BTreeMap<NodeId, NodeView> = BTreeMap::new();
    let mut members = Vec::new();
    for (index, kind) in kinds.iter().enumerate() {
        let mut of_kind: Vec<MemberPlacement> = Vec::new();
        for node in nodes.iter().filter(|node| rooms[*node].alone[index] > 0) {
            if kind.request.gang.spread && views.contains_key(node) {
                continue;
            }
            let mut view = views.get(node).unwrap_or_else(|| &rooms[node].view).clone();
            let most = if kind.request.gang.spread { 1 } else { rooms[node].alone[index] as usize };
            let before = of_kind.len();
            let enough = kind.wanted as usize;
            // Groups are made of what a domain of their level has: of that more may be wanted than of all.
            while of_kind.len() - before < most
                && (of_kind.len() < enough || kind.request.topology.group() > 1)
            {
                let Some(member) = fill(&mut view, kind, *node) else { break };
                of_kind.push(member);
            }
            if of_kind.len() > before {
                views.insert(*node, view);
            }
        }
        let of_kind = in_groups(ledger, kind, of_kind);
        if of_kind.len() < kind.wanted as usize {
            return None;
        }
        members.extend(of_kind.into_iter().take(kind.wanted as usize));
    }
    Some(members)
}

/// Members in whole groups, each in one domain of the groups' level; all of them where there are no groups.
fn in_groups(ledger: &Ledger, kind: &Kind, members: Vec<MemberPlacement>) -> Vec<MemberPlacement> {
    let topology = &kind.request.topology;
    let group = topology.group() as usize;
    if group <= 1 {
        return members;
    }
    let mut domains: BTreeMap<Domain, Vec<MemberPlacement>> = BTreeMap::new();
    for member in members {
        let chain = ledger.chain(member.node);
        if let Some(domain) = chain.and_then(|chain| chain.at(member.node, &topology.slice_level)) {
            domains.entry(domain).or_default().push(member);
        }
    }
    let whole = |members: Vec<MemberPlacement>| {
        let most = members.len() / group * group;
        members.into_iter().take(most)
    };
    domains.into_values().flat_map(whole).collect()
}

fn has_countables(search: &Search<'_>, kinds: &[Kind], at: u64) -> bool {
    countables(kinds).into_iter().all(|(name, sum)| search.countable_at(name, at) >= sum)
}

/// What all members together take of the pool itself.
fn countables(kinds: &[Kind]) -> BTreeMap<&str, u64> {
    let mut sums: BTreeMap<&str, u64> = BTreeMap::new();
    for kind in kinds {
        for (name, each) in kind.in_pool.iter() {
            let sum = sums.entry(name).or_default();
            *sum = sum.saturating_add(each.0.saturating_mul(kind.wanted.into()));
        }
    }
    sums
}
