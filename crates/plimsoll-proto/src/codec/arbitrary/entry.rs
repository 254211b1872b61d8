//! Entries of the log.

use plimsoll_ledger::{AdminChange, Command, Entry, SetAsideOne, Verdict};
use plimsoll_types::{DeviceIndex, LedgerTime, NodeEpoch, NodeId, ReservationId, Revision};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;

use super::contention::observe_contention;
use super::node::{health, registration};
use super::policy::{policy_name, valid_policy_object, windows};
use super::request::valid_request;
use super::reservation::{blocker, placement};
use super::scale::scaling_command;
use super::service::{announcement, load_report};
use super::{hash, name, number, resources, text};

fn verdict() -> impl Strategy<Value = Verdict> {
    prop_oneof![
        placement().prop_map(Verdict::Place),
        vec(blocker(), 0..3).prop_map(Verdict::Blocked),
        vec(blocker(), 0..3).prop_map(Verdict::Infeasible),
    ]
}

fn command() -> impl Strategy<Value = Command> {
    let reservation = || number().prop_map(ReservationId);
    let token = || number().prop_map(Revision);
    let node = || any::<u32>().prop_map(NodeId);
    let admin = prop_oneof![
        Just(AdminChange::Uncordon),
        text().prop_map(|reason| AdminChange::Cordon { reason }),
        (text(), number()).prop_map(|(reason, deadline_ms)| AdminChange::Drain { reason, deadline_ms }),
    ];
    prop_oneof![
        (valid_request(), verdict()).prop_map(|(request, verdict)| Command::Submit { request, verdict }),
        (reservation(), placement())
            .prop_map(|(reservation, placement)| Command::Place { reservation, placement }),
        (reservation(), placement(), vec(reservation(), 0..3)).prop_map(
            |(reservation, placement, victims)| { Command::Preempt { reservation, placement, victims } }
        ),
        (reservation(), placement())
            .prop_map(|(reservation, placement)| Command::Relocate { reservation, placement }),
        (reservation(), token()).prop_map(|(reservation, token)| Command::Confirm { reservation, token }),
        (reservation(), token(), number()).prop_map(|(reservation, token, ttl_ms)| Command::Renew {
            reservation,
            token,
            ttl_ms
        }),
        (reservation(), token(), resources()).prop_map(|(reservation, token, amounts)| Command::Resize {
            reservation,
            token,
            amounts
        }),
        (reservation(), token()).prop_map(|(reservation, token)| Command::Release { reservation, token }),
        (reservation(), token()).prop_map(|(reservation, token)| Command::Requeue { reservation, token }),
        (reservation(), super::eviction::overload())
            .prop_map(|(reservation, overload)| Command::Evict { reservation, overload }),
        reservation().prop_map(|reservation| Command::Cancel { reservation }),
        any::<u32>().prop_map(|limit| Command::Expire { limit }),
        registration().prop_map(Command::RegisterNode),
        (node(), number(), health()).prop_map(|(node, epoch, health)| Command::SetNodeHealth {
            node,
            epoch: NodeEpoch(epoch),
            health
        }),
        (node(), admin).prop_map(|(node, admin)| Command::SetNodeAdmin { node, admin }),
        (node(), any::<u16>(), any::<bool>()).prop_map(|(node, device, failed)| Command::SetDeviceHealth {
            node,
            device: DeviceIndex(device),
            failed
        }),
        node().prop_map(|node| Command::RemoveNode { node }),
        (node(), text(), text()).prop_map(|(node, from, to)| Command::MoveNode { node, from, to }),
        (node(), number(), number()).prop_map(|(node, epoch, in_ms)| Command::InterruptNode {
            node,
            epoch: NodeEpoch(epoch),
            in_ms
        }),
        (vec(valid_policy_object(), 0..3), vec(policy_name(), 0..3), token())
            .prop_map(|(put, delete, if_revision)| Command::ApplyPolicy { put, delete, if_revision }),
        number().prop_map(|leader| Command::BecomeLeader { leader }),
        any::<u32>().prop_map(|to| Command::Upgrade { to }),
        (text(), text(), text(), number()).prop_map(|(quota, rate, scope, tokens)| Command::TakeTokens {
            quota,
            rate,
            scope,
            tokens
        }),
        (reservation(), token(), option::of(announcement())).prop_map(|(reservation, token, announced)| {
            Command::SetEndpoint { reservation, token, announced }
        }),
        vec(load_report(), 0..4).prop_map(|mut reports| {
            reports.sort_by_key(|report| report.reservation);
            reports.dedup_by_key(|report| report.reservation);
            Command::ReportLoad { reports }
        }),
        scaling_command(),
        observe_contention(),
        vec((reservation(), vec(any::<u8>(), 0..9), hash()), 0..3).prop_map(|aside| Command::SetAside {
            aside: aside
                .into_iter()
                .map(|(reservation, body, body_hash)| SetAsideOne {
                    reservation,
                    body: body.into(),
                    body_hash
                })
                .collect(),
        }),
        vec((reservation(), valid_request()), 0..3).prop_map(|requests| Command::Return { requests }),
        (name(), token(), windows(), number()).prop_map(|(schedule, changed, windows, until)| {
            Command::OpenWindows { schedule, changed, windows, until: LedgerTime(until) }
        }),
    ]
}

/// Any entry.
pub(crate) fn entry() -> impl Strategy<Value = Entry> {
    (text(), text(), hash(), command()).prop_map(|(actor, request_id, request_hash, command)| Entry {
        actor,
        request_id,
        request_hash,
        command,
    })
}
