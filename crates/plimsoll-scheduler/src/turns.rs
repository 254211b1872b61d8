//! Whose turn it is: the next request among the queues that wait for something of a pool.
//!
//! Inside a queue it is the order of the pool's discipline (class, then age; or points, or what was learned); or the class that holds least by its weight, where the pool goes by these. Between queues it is what the pool's `fairness` says: level by level of the tree, the child that
//! would have the lowest share of what is borrowed with its next request granted goes first, and among equals the one whose next request is older. A request without a queue stands beside
//! the roots with a share of nothing. With `fair_tree` it is the child that used least over time by its weight.

use std::collections::{BTreeMap, BTreeSet};

use plimsoll_ledger::{Fairness, Ledger, Request, Share};
use plimsoll_types::ReservationId;

use crate::class_turns::{ClassLines, ClassTurns};
use crate::headroom::Headroom;
use crate::over_time::OverTime;

/// Requests of one pool in the order of their turns, re-ordered as grants change shares.
///
/// Invariant: `waiting` holds, per parent, each child below which somebody waits, with the share and the next request that it was
/// entered with; `entered` knows these.
pub(crate) struct Turns<'a> {
    ledger: &'a Ledger,
    fairness: Fairness,
    /// With [`Fairness::FairTree`].
    over_time: Option<OverTime>,
    /// Where the pool goes by the weights of classes.
    classes: Option<ClassTurns>,
    lines: BTreeMap<String, ClassLines>,
    waiting: BTreeMap<String, BTreeSet<Standing>>,
    entered: BTreeMap<String, Standing>,
}

/// Where a queue stands among its siblings.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Standing {
    share: Share,
    oldest: ReservationId,
    queue: String,
}

/// Stands for requests that name no queue.
const NO_QUEUE: &str = "";
/// Stands for what the roots are below of: no queue has this name.
const ROOTS: &str = "/";

impl<'a> Turns<'a> {
    /// All that wait in a pool, inside each queue in this order. O(n) in those that wait, O(q log q) in queues.
    pub(crate) fn new(
        ledger: &'a Ledger,
        headroom: &mut Headroom,
        pool: &str,
        fairness: Fairness,
        classes: Option<ClassTurns>,
        order: impl Iterator<Item = ReservationId>,
    ) -> Turns<'a> {
        let mut lines: BTreeMap<String, ClassLines> = BTreeMap::new();
        for id in order {
            let reservation = ledger.reservation(id).filter(|waiting| !ledger.is_out_of_hours(waiting));
            let Some(reservation) = reservation else { continue };
            let line = lines.entry(reservation.request.queue.clone()).or_default();
            line.push(classes.as_ref(), &reservation.request.class, id);
        }
        let over_time =
            (fairness == Fairness::FairTree).then(|| OverTime::new(ledger, headroom.tree(), pool));
        let (waiting, entered) = (BTreeMap::new(), BTreeMap::new());
        let mut turns = Turns { ledger, fairness, over_time, classes, lines, waiting, entered };
        let queues: Vec<String> = turns.lines.keys().cloned().collect();
        for queue in queues {
            turns.enter(headroom, &queue);
        }
        turns
    }

    /// The queue whose turn it is and its first request.
    pub(crate) fn next(&self) -> Option<(&str, ReservationId)> {
        let mut parent = ROOTS;
        loop {
            let first = self.waiting.get(parent)?.first()?;
            // A queue that has both requests of its own and queues below it serves its own first.
            if let Some(head) = self.first_of(&first.queue) {
                return Some((&first.queue, head));
            }
            parent = &first.queue;
        }
    }

    /// A request was given a place.
    pub(crate) fn note_placed(&mut self, request: &Request) {
        if let Some(classes) = &mut self.classes {
            classes.take(request);
        }
    }

    /// The request whose turn it was in a queue was placed or passed over: the next one stands in its place, and shares are read anew.
    pub(crate) fn step(&mut self, headroom: &mut Headroom, queue: &str, had: ReservationId) {
        if let Some(line) = self.lines.get_mut(queue) {
            line.pop(had);
        }
        self.enter(headroom, queue);
    }

    /// Nobody of this queue gets a turn any more.
    pub(crate) fn close(&mut self, headroom: &mut Headroom, queue: &str) {
        self.lines.remove(queue);
        self.enter(headroom, queue);
    }

    fn first_of(&self, queue: &str) -> Option<ReservationId> {
        self.lines.get(queue)?.first(self.ledger, self.classes.as_ref())
    }

    /// Puts a queue and those above it where they stand now.
    fn enter(&mut self, headroom: &mut Headroom, queue: &str) {
        if let Some(over_time) = &mut self.over_time {
            over_time.follow(headroom.tree(), queue);
        }
        let path: Vec<String> = if queue.is_empty() {
            vec![NO_QUEUE.to_owned()]
        } else {
            headroom.tree().path(queue).map(str::to_owned).collect()
        };
        for (index, name) in path.iter().enumerate() {
            let parent = path.get(index + 1).map_or(ROOTS, String::as_str);
            if let Some(old) = self.entered.remove(name)
                && let Some(siblings) = self.waiting.get_mut(parent)
            {
                siblings.remove(&old);
            }
            let own = self.first_of(name);
            let below = self.waiting.get(name).and_then(BTreeSet::first).map(|standing| standing.oldest);
            let Some(oldest) = own.or(below) else { continue };
            let next = self.ledger.reservation(oldest).map(|reservation| &reservation.request);
            let share = next.map(|next| match &self.over_time {
                Some(over_time) => over_time.share_with(headroom.tree_mut(), name, next),
                None => headroom.share_with(name, next, self.fairness),
            });
            let share = share.unwrap_or_default();
            let standing = Standing { share, oldest, queue: name.clone() };
            self.entered.insert(name.clone(), standing.clone());
            self.waiting.entry(parent.to_owned()).or_default().insert(standing);
        }
    }
}
