//! `plimsoll events`: what happened, and what happens.

use std::time::Duration;

use clap::Args;
use plimsoll_client::v1::{ListEventsRequest, WatchRequest};

use super::noun::Noun;
use super::watch_list::print;
use crate::args::{AsOf, Globals, duration};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{Footer, now_ms};

/// Shows events, oldest first.
#[derive(Args, Debug, Default)]
pub(crate) struct Events {
    /// Only about this thing: r/r-7k2m, node/n1, pool/gpu; or a kind alone
    #[arg(long = "for", value_name = "NOUN/NAME")]
    about: Option<String>,
    /// Only of this pool
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// Only so far back
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    since: Option<Duration>,
    /// From this revision on
    #[arg(long, value_name = "REVISION", default_value_t = 0, hide_default_value = true)]
    from: u64,
    /// At most so many, the latest ones; 0 for all
    #[arg(long, value_name = "N", default_value_t = 100)]
    limit: usize,
    /// Then follow what happens
    #[arg(long, short = 'w')]
    watch: bool,
    /// Only up to a revision (1042), so long ago (10m) or at a time (2026-11-21T22:00:00Z)
    #[arg(long, value_name = "REVISION|TIME", conflicts_with = "watch")]
    as_of: Option<AsOf>,
}

impl Events {
    /// The latest events of a pool.
    pub(crate) fn all(pool: Option<String>, as_of: Option<AsOf>) -> Events {
        Events { pool, as_of, limit: 100, ..Events::default() }
    }

    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let out = globals.out();
        let (kinds, name) = match &self.about {
            Some(about) => subject(about)?,
            None => (Vec::new(), String::new()),
        };
        let pool = self.pool.clone().unwrap_or_default();
        let name = match name.as_str() {
            // Events name reservations in full.
            id if id.starts_with("r-") => super::lifecycle::look_up(&client, id, globals).await?.name,
            _ => name,
        };
        let since_ms = self
            .since
            .map_or(0, |since| now_ms().saturating_sub(u64::try_from(since.as_millis()).unwrap_or(u64::MAX)));
        let mut request = ListEventsRequest {
            from_revision: self.from,
            kinds: kinds.clone(),
            pool: pool.clone(),
            name: name.clone(),
            since_ms,
            newest_first: true,
            to_revision: AsOf::fields(self.as_of).0,
            as_of_ms: AsOf::fields(self.as_of).1,
            page_size: u32::try_from(self.limit.clamp(1, 1_000)).unwrap_or(1_000),
            ..ListEventsRequest::default()
        };
        let mut events = Vec::new();
        let mut revision;
        loop {
            let page = client.list_events(request.clone()).await?;
            revision = page.revision;
            events.extend(page.events);
            request.page_token = page.next_page_token;
            if request.page_token.is_empty() || (self.limit > 0 && events.len() >= self.limit) {
                break;
            }
        }
        if self.limit > 0 {
            events.truncate(self.limit);
        }
        events.reverse();
        if !self.watch {
            let footer = Footer {
                noun: "events".to_owned(),
                revision,
                hint: "-w follows".to_owned(),
                ..Footer::default()
            };
            out.list(&events, Some(&footer))?;
            return Ok(Exit::Done);
        }
        for event in &events {
            show(&out, event)?;
        }
        let mut watch = client
            .watch(WatchRequest { from_revision: revision + 1, kinds, pool, name, ..WatchRequest::default() })
            .await?;
        loop {
            for event in watch.next().await?.events {
                show(&out, &event)?;
            }
        }
    }
}

/// One event: a line for people on a terminal, a document elsewhere.
fn show(out: &crate::output::Out, event: &plimsoll_client::v1::Event) -> Result<(), CliError> {
    use crate::output::Shown as _;
    if !(out.stdout_tty && out.is_human()) {
        return print(out, event);
    }
    let view = out.view();
    let cells: Vec<String> = plimsoll_client::v1::Event::COLUMNS
        .iter()
        .filter(|column| !column.wide)
        .map(|column| (column.cell)(event, &view))
        .collect();
    out.emit(&format!("{}\n", cells.join("  ").trim_end()))
}

/// Kinds and name of `NOUN/NAME`; a resource name is taken as it is.
fn subject(about: &str) -> Result<(Vec<i32>, String), CliError> {
    let (noun, name) = about.split_once('/').unwrap_or((about, ""));
    if about.starts_with("r-") {
        return Ok((vec![plimsoll_client::v1::ObjectKind::Reservation.into()], about.to_owned()));
    }
    let noun: Noun = noun.parse().map_err(CliError::usage)?;
    let Some(kind) = noun.kind() else {
        return Err(CliError::usage(format!("events are not about {}", noun.plural())));
    };
    let name = match noun {
        _ if name.is_empty() || name.contains('/') && noun != Noun::Contention => name.to_owned(),
        Noun::Node | Noun::Device => format!("nodes/{name}"),
        Noun::Pool => format!("pools/{name}"),
        Noun::Class => format!("classes/{name}"),
        Noun::Limits => format!("nodeLimits/{name}"),
        Noun::Queue => format!("queues/{name}"),
        Noun::Quota => format!("quotas/{name}"),
        Noun::Validator => format!("validators/{name}"),
        Noun::Schedule => format!("schedules/{name}"),
        Noun::Service => format!("services/{name}"),
        Noun::Contention => format!("contentions/{name}"),
        Noun::Scaling => format!("scalingPolicies/{name}"),
        Noun::Reservation | Noun::Endpoint | Noun::Member | Noun::Event => name.to_owned(),
    };
    Ok((vec![kind.into()], name))
}
