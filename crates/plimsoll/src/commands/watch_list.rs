//! Lists that follow what happens: redrawn on a terminal, one JSON document a change elsewhere.

use std::collections::BTreeMap;

use plimsoll_client::v1::event::Object;
use plimsoll_client::v1::{Event, EventKind, Reservation, ReservationState, WatchRequest};
use plimsoll_client::{Client, v1};

use super::get::Get;
use super::noun::Noun;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{
    DeviceRow, Format, NodeRow, Out, PoolRow, QueueRow, QuotaRow, ScalingRow, ScheduleRow, ServiceRow, Shown,
};

/// Follows a list until the process is ended.
pub(crate) async fn follow(
    client: &Client,
    globals: &Globals,
    noun: Noun,
    filter: &Get,
    names: &[String],
) -> Result<Exit, CliError> {
    let out = globals.out();
    let Some(kind) = noun.kind().filter(|_| noun != Noun::Member) else {
        return Err(CliError::usage(format!("{} cannot be watched this way", noun.plural()))
            .help("plimsoll events -w"));
    };
    let request = WatchRequest {
        kinds: vec![kind.into()],
        pool: filter.pool.clone().unwrap_or_default(),
        tenant: filter.tenant.clone().unwrap_or_default(),
        include_initial: true,
        ..WatchRequest::default()
    };
    let mut watch = client.watch(request).await?;
    let redraw = out.stdout_tty && out.is_human();
    let mut things: BTreeMap<String, Event> = BTreeMap::new();
    loop {
        let message = watch.next().await?;
        for event in message.events {
            if !passes(&event, filter, names) && event.kind() != EventKind::Deleted {
                // It may have passed before: then it leaves the list.
                if things.remove(&event.name).is_none() {
                    continue;
                }
            } else if event.kind() == EventKind::Deleted {
                things.remove(&event.name);
            } else if redraw {
                things.insert(event.name.clone(), event.clone());
            }
            if !redraw {
                print(&out, &event)?;
            }
        }
        if redraw && !message.initial {
            let text = draw(&out, noun, things.values())?;
            // Home, the text with each line's rest cleared, then all below cleared: no flicker.
            out.emit(&format!("\u{1b}[H{}\u{1b}[J", text.replace('\n', "\u{1b}[K\r\n")))?;
        }
    }
}

/// Writes one change.
pub(crate) fn print(out: &Out, event: &Event) -> Result<(), CliError> {
    match out.format {
        Format::Name => out.emit(&format!("{}\n", event.id())),
        Format::Yaml | Format::Csv => out.list(std::slice::from_ref(event), None),
        Format::Table | Format::Wide | Format::Json | Format::Jsonl => {
            out.emit(&format!("{}\n", event.json()))
        }
    }
}

fn draw<'a>(out: &Out, noun: Noun, events: impl Iterator<Item = &'a Event>) -> Result<String, CliError> {
    let objects: Vec<Object> = events.filter_map(|event| event.object.clone()).collect();
    match noun {
        Noun::Reservation => out.render(&pick(objects, |object| match object {
            Object::Reservation(reservation) => Some(reservation),
            _ => None,
        })),
        Noun::Node => out.render(&pick(objects, |object| node(object).map(NodeRow::from))),
        Noun::Device => {
            let rows = pick(objects, node).into_iter().flat_map(|node| {
                let name = node.id;
                node.devices.into_iter().map(move |device| DeviceRow { node: name.clone(), device })
            });
            out.render(&rows.collect::<Vec<_>>())
        }
        Noun::Pool => out.render(&pick(objects, |object| match object {
            Object::Pool(pool) => Some(PoolRow { pool, status: v1::PoolStatus::default() }),
            _ => None,
        })),
        Noun::Class => out.render(&pick(objects, |object| match object {
            Object::Class(class) => Some(class),
            _ => None,
        })),
        Noun::Limits => out.render(&pick(objects, |object| match object {
            Object::NodeLimits(limits) => Some(limits),
            _ => None,
        })),
        Noun::Queue => out.render(&pick(objects, |object| match object {
            Object::Queue(queue) => Some(QueueRow { queue, status: v1::QueueStatus::default() }),
            _ => None,
        })),
        Noun::Quota => out.render(&pick(objects, |object| match object {
            Object::Quota(quota) => Some(QuotaRow { quota, status: v1::UsageQuotaStatus::default() }),
            _ => None,
        })),
        Noun::Validator => out.render(&pick(objects, |object| match object {
            Object::Validator(object) => Some(object),
            _ => None,
        })),
        Noun::Schedule => out.render(&pick(objects, |object| match object {
            Object::Schedule(schedule) => {
                Some(ScheduleRow { schedule, status: v1::ScheduleStatus::default() })
            }
            _ => None,
        })),
        Noun::Service => out.render(&pick(objects, |object| match object {
            Object::Service(service) => Some(ServiceRow { service, ..ServiceRow::default() }),
            _ => None,
        })),
        Noun::Scaling => out.render(&pick(objects, |object| match object {
            Object::ScalingPolicy(scaling_policy) => {
                Some(ScalingRow { scaling_policy, status: v1::ScalingStatus::default() })
            }
            _ => None,
        })),
        Noun::Contention => out.render(&pick(objects, |object| match object {
            Object::Contention(one) if one.end_time_ms == 0 => Some(one),
            _ => None,
        })),
        Noun::Endpoint | Noun::Member | Noun::Event => Ok(String::new()),
    }
}

fn pick<T>(objects: Vec<Object>, of: impl Fn(Object) -> Option<T>) -> Vec<T> {
    objects.into_iter().filter_map(of).collect()
}

fn node(object: Object) -> Option<v1::Node> {
    match object {
        Object::Node(node) => Some(node),
        _ => None,
    }
}

/// What the server's filters of a watch do not say.
fn passes(event: &Event, filter: &Get, names: &[String]) -> bool {
    let named = |id: &str| names.is_empty() || names.iter().any(|name| id.starts_with(name.as_str()));
    match &event.object {
        Some(Object::Reservation(reservation)) => {
            let live = filter.all || !filter.state.is_empty() || !has_ended(reservation);
            let state = crate::output::reservation_state(reservation.state());
            let in_state = filter.state.is_empty() || filter.state.contains(&state);
            let spec = reservation.spec.clone().unwrap_or_default();
            let on_node =
                filter.node.as_ref().is_none_or(|n| reservation.allocations.iter().any(|a| a.node == *n));
            let class = filter.class.as_ref().is_none_or(|class| spec.class == *class);
            let name = filter.named.as_ref().is_none_or(|name| spec.name == *name);
            live && in_state && on_node && class && name && named(&reservation.id)
        }
        Some(Object::Node(node)) => named(&node.id),
        Some(Object::Contention(one)) => named(&format!("{}/{}", one.pool, one.resource)),
        _ => named(event.name.rsplit('/').next().unwrap_or_default()),
    }
}

fn has_ended(reservation: &Reservation) -> bool {
    matches!(
        reservation.state(),
        ReservationState::Released
            | ReservationState::Expired
            | ReservationState::Failed
            | ReservationState::Preempted
            | ReservationState::Rejected
    )
}
