//! Places for rivals: free ones, and those that others have to leave.

use std::sync::Arc;

use plimsoll_ledger::{Command, Ledger, Placement, Request, Reservation, State};
use plimsoll_types::NodeId;

use crate::histories::placing::placement;

/// The first device of a node on which the request would be admitted; where there is none, device 0 of it.
pub(super) fn free_place(ledger: &Ledger, request: &Request, node: u32) -> Option<Placement> {
    let node = if request.pool == "gpu" { 2 } else { node % 2 };
    let nodes = vec![node; request.gang.min_members as usize];
    let on = |device: u16| placement(ledger, request, &nodes, device);
    (0..2).map(on).find(|place| ledger.admit(request, place).is_ok()).or_else(|| Some(on(0)))
}

/// Notice for a claimant, to those who stand on a node: the lowest first, those of other queues first, anybody, and also those of other nodes. As many
/// as it takes for the cores, one at least, and one more or fewer where `extra` says so. The node is the first one from `node` on where anybody is.
pub(super) fn preempt(
    ledger: &Ledger,
    claimant: &Arc<Reservation>,
    node: u32,
    (way, first, extra): (u8, usize, i8),
) -> Command {
    let request = &claimant.request;
    let stands = |one: &&Arc<Reservation>| {
        matches!(one.state, State::Held | State::Active | State::Partial)
            && one.resume_state != State::Preempting
    };
    let on = |node: u32| {
        move |one: &&Arc<Reservation>| one.members.iter().any(|member| member.node == NodeId(node))
    };
    let of_pool = if request.pool == "gpu" { vec![2] } else { vec![node % 2, (node + 1) % 2] };
    let crowded =
        of_pool.iter().copied().find(|node| ledger.reservations().filter(stands).any(|one| on(*node)(&one)));
    let node = crowded.unwrap_or(of_pool[0]);
    let mut holding: Vec<&Arc<Reservation>> =
        ledger.reservations().filter(stands).filter(|one| way == 3 || on(node)(one)).collect();
    // Those of another tree may never leave; two ways ask for them all the same.
    if way < 2 {
        holding.retain(|one| one.request.queue.is_empty() == request.queue.is_empty());
    }
    match way {
        0 => holding.sort_by_key(|one| one.priority),
        1 => holding.sort_by_key(|one| one.request.queue == request.queue),
        _ if holding.is_empty() => {}
        _ => {
            let many = holding.len();
            holding.rotate_left(first % many);
        }
    }
    // Now and then from the second on, so that not all histories take the same.
    let skipped = usize::from(way < 2 && holding.len() > 1 && first.is_multiple_of(5));
    let asked = request.requirements.amounts.cpu_millis.0 * u64::from(request.gang.min_members);
    let mut free = ledger.open(NodeId(node)).cpu_millis.0;
    let mut enough = 0usize;
    for one in holding.iter().skip(skipped) {
        if enough > 0 && free >= asked {
            break;
        }
        let there = one.members.iter().filter(|member| member.node == NodeId(node)).count() as u64;
        free += one.amounts.cpu_millis.0 * there;
        enough += 1;
    }
    let many = enough.saturating_add_signed(isize::from(extra));
    let victims: Vec<_> = holding.iter().skip(skipped).take(many).map(|one| one.id).collect();
    let nodes = vec![node; request.gang.min_members as usize];
    let device = u16::try_from(first / 5 % 2).expect("one of two");
    Command::Preempt {
        reservation: claimant.id,
        placement: placement(ledger, request, &nodes, device),
        victims,
    }
}
