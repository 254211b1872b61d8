//! `WatchService`: what happens, as it happens; and what happened.

mod present;

use std::time::Duration;

use plimsoll_ledger::{EventObject, Ledger};
use plimsoll_mutants::mutant;
use plimsoll_proto::v1::watch_service_server::WatchService;
use plimsoll_proto::{convert, v1};
use plimsoll_types::{LedgerTime, Revision};
use prost::Message;
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use super::api::Api;
use super::on_demand::{Maker, OnDemand, on_demand};
use super::page::Page;
use super::problem::Problem;
use super::show;
use super::standing::Standing;
use crate::core::{Consistency, HistoryError, Record, Watcher};
use present::{Present, Presents};

/// Records read at once.
const BATCH: usize = 512;
/// Records read at once for a message of a watch.
const WATCH_BATCH: usize = 128;
/// A message is sent with the event, or the revision, that makes it this large. It is what a watch costs whose client does not
/// read, and large enough that the transport, which gathers smaller ones, asks for no second one before it has sent the first.
const MESSAGE_BYTES: usize = 32 << 10;
/// A watcher that sees nothing of interest is told how far it is this often, and never more often than that.
const TELL_PROGRESS: Duration = Duration::from_secs(10);
const FASTEST_PROGRESS: Duration = Duration::from_millis(100);
/// Records looked at for one page of the past.
const MOST_LOOKED_AT: usize = 100_000;

/// The service.
#[derive(Clone)]
pub(super) struct Watches {
    api: Api,
    standing: Standing,
    presents: Presents,
}

impl Watches {
    pub(super) fn new(api: Api, standing: Standing) -> Watches {
        Watches { api, standing, presents: Presents::default() }
    }
}

#[tonic::async_trait]
impl WatchService for Watches {
    type WatchStream = OnDemand<v1::WatchResponse>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let request = request.into_inner();
        self.api.check_in_cluster()?;
        let filter = Filter::read(&request.kinds, &request.name, &request.pool, &request.tenant)?;
        if request.include_initial && request.from_revision > 0 {
            return Err(Problem::invalid("from_revision", "excludes include_initial").into());
        }
        let tell_progress = match request.progress_interval_ms {
            0 => TELL_PROGRESS,
            asked => Duration::from_millis(asked).max(FASTEST_PROGRESS),
        };
        // Opened before the present objects are read, so that nothing falls between the two.
        let watcher = self.api.core.watch(Revision(request.from_revision)).map_err(Problem::from)?;
        let (answers, stream) = on_demand();
        let (api, standing, presents) = (self.api.clone(), self.standing.clone(), self.presents.clone());
        tokio::spawn(async move {
            let watch = Watch { api, standing, filter, tell_progress, answers };
            let initial = request.include_initial.then_some(&presents);
            if let Err(problem) = watch.run(watcher, initial).await {
                // Nobody may be left to read it, then it does not matter.
                watch.answers.give(Err(problem.into())).await;
            }
        });
        Ok(Response::new(stream))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Result<Response<v1::ListEventsResponse>, Status> {
        Ok(Response::new(list(&self.api, request.into_inner())?))
    }
}

/// One watch being served.
struct Watch {
    api: Api,
    standing: Standing,
    filter: Filter,
    tell_progress: Duration,
    answers: Maker<v1::WatchResponse>,
}

impl Watch {
    async fn run(&self, mut watcher: Watcher, initial: Option<&Presents>) -> Result<(), Problem> {
        let mut shown = Revision(0);
        if let Some(presents) = initial {
            match self.send_initial(presents).await? {
                Some(revision) => shown = revision,
                None => return Ok(()),
            }
        }
        let mut told_at = Instant::now();
        // One for the life of the watch: whoever asks for the standing asks as long as somebody waits for it.
        let mut lost = std::pin::pin!(self.standing.lost());
        let mut asked = false;
        loop {
            if !asked {
                // Nothing is made ready for a client that does not read: what it has not seen is in the log.
                tokio::select! {
                    biased;
                    () = self.answers.closed() => return Ok(()),
                    problem = &mut lost => return Err(problem),
                    () = self.answers.asked() => asked = true,
                }
            }
            let records = tokio::select! {
                biased;
                () = self.answers.closed() => return Ok(()),
                problem = &mut lost => return Err(problem),
                records = watcher.next(WATCH_BATCH) => records.map_err(fell_behind)?,
                () = tokio::time::sleep_until(told_at + self.tell_progress) => Vec::new(),
            };
            let (events, last) = {
                let _turn = self.api.turn().await;
                let view = self.api.local();
                let new = records.iter().filter(|record| record.revision > shown);
                self.filter.message(&view, new)
            };
            if let Some(last) = last {
                watcher.go_back(Revision(last.revision.0 + 1));
            }
            if events.is_empty() && told_at.elapsed() < self.tell_progress {
                continue;
            }
            told_at = Instant::now();
            let sent_up_to = Revision(watcher.position().0.saturating_sub(1)).max(shown);
            let log_time = last.or_else(|| records.last().map(|record| &**record));
            let log_time = log_time.map_or_else(|| self.time_of(sent_up_to), |record| record.log_time);
            let bookmark = events.is_empty();
            if !self.send(sent_up_to, log_time, events, bookmark, false).await {
                return Ok(());
            }
            asked = false;
        }
    }

    /// Sends the present objects; gives the revision that they show, or `None` where the client left.
    async fn send_initial(&self, presents: &Presents) -> Result<Option<Revision>, Problem> {
        let present = {
            let view = self.api.core.read(Consistency::Linearizable, Revision(0)).await?;
            presents.of(&view)?
        };
        let Present { revision, time, ref objects } = *present;
        let mut next = self.wanted(objects, 0);
        while next < objects.len() {
            self.answers.asked().await;
            let (mut events, mut bytes) = (Vec::new(), 0);
            {
                let _turn = self.api.turn().await;
                let view = self.api.local();
                while next < objects.len() && bytes < MESSAGE_BYTES {
                    let event = show::present(&view, revision, time, &objects[next]);
                    bytes += event.encoded_len();
                    events.push(event);
                    next = self.wanted(objects, next + 1);
                }
            }
            if !self.send(revision, time, events, false, true).await {
                return Ok(None);
            }
        }
        // From here on it is safe to resume.
        self.answers.asked().await;
        let open = self.send(revision, time, Vec::new(), true, false).await;
        Ok(open.then_some(revision))
    }

    /// Place of the first of the objects from there on that is wanted; past their end where there is none.
    fn wanted(&self, objects: &[EventObject], from: usize) -> usize {
        let found = objects[from..].iter().position(|object| self.filter.wants(object));
        found.map_or(objects.len(), |found| from + found)
    }

    /// False where the client left.
    async fn send(
        &self,
        revision: Revision,
        log_time: LedgerTime,
        events: Vec<v1::Event>,
        bookmark: bool,
        initial: bool,
    ) -> bool {
        let response =
            v1::WatchResponse { revision: revision.0, log_time_ms: log_time.0, events, bookmark, initial };
        self.answers.give(Ok(response)).await
    }

    /// Ledger time of a revision that was applied; 0 where it is no longer kept.
    fn time_of(&self, revision: Revision) -> LedgerTime {
        let records = self.api.core.history(revision, 1).unwrap_or_default();
        records
            .first()
            .filter(|record| record.revision == revision)
            .map_or(LedgerTime(0), |record| record.log_time)
    }
}

/// What a running watch needs next was there when it began: where it is gone, the watcher was too slow.
fn fell_behind(error: HistoryError) -> Problem {
    match error {
        HistoryError::Compacted { wanted, first } => Problem::watcher_too_slow(wanted, first),
        other => other.into(),
    }
}

/// Which events are wanted. Empty fields let all pass.
struct Filter {
    kinds: Vec<v1::ObjectKind>,
    name: String,
    pool: String,
    tenant: String,
}

impl Filter {
    fn read(kinds: &[i32], name: &str, pool: &str, tenant: &str) -> Result<Filter, Problem> {
        let mut read = Vec::new();
        for (index, kind) in kinds.iter().enumerate() {
            let kind =
                v1::ObjectKind::try_from(*kind).ok().filter(|kind| *kind != v1::ObjectKind::Unspecified);
            read.push(kind.ok_or_else(|| Problem::invalid(&format!("kinds[{index}]"), "is not a kind"))?);
        }
        // The last part of a resource name is unique for its kind.
        let bare = |name: &str| name.rsplit('/').next().unwrap_or_default().to_owned();
        Ok(Filter { kinds: read, name: bare(name), pool: bare(pool), tenant: tenant.to_owned() })
    }

    fn wants(&self, object: &EventObject) -> bool {
        (self.kinds.is_empty() || self.kinds.contains(&convert::object_kind(object)))
            && (self.pool.is_empty() || pool_of(object) == Some(&self.pool))
            && (self.tenant.is_empty()
                || mutant!("watch-leaks-tenant")
                || tenant_of(object) == Some(&self.tenant))
            && (self.name.is_empty() || show::object_id(object) == self.name)
    }

    fn events<'a>(&'a self, ledger: &'a Ledger, record: &'a Record) -> impl Iterator<Item = v1::Event> + 'a {
        let wanted = record.events.iter().filter(|event| self.wants(&event.object));
        wanted.map(|event| convert::event_to_v1(event, &record.request_id, ledger))
    }

    /// Events of whole revisions, until they are enough for a message. The last record, where there were more.
    fn message<'a, R>(
        &self,
        ledger: &Ledger,
        records: impl Iterator<Item = &'a R>,
    ) -> (Vec<v1::Event>, Option<&'a Record>)
    where
        R: std::ops::Deref<Target = Record> + 'a,
    {
        let (mut events, mut bytes) = (Vec::new(), 0);
        for record in records {
            let from = events.len();
            events.extend(self.events(ledger, record));
            bytes += events[from..].iter().map(Message::encoded_len).sum::<usize>();
            if bytes >= MESSAGE_BYTES {
                return (events, Some(&**record));
            }
        }
        (events, None)
    }
}

/// Pool of a reservation or node, and the pool itself.
fn pool_of(object: &EventObject) -> Option<&str> {
    match object {
        EventObject::Reservation(reservation, _) => Some(&reservation.request.pool),
        EventObject::Node(node) => Some(&node.pool),
        EventObject::Pool(pool) => Some(&pool.name),
        EventObject::PoolDeleted(name) => Some(name),
        EventObject::Schedule(schedule) => Some(&schedule.pool),
        EventObject::Service(service) => Some(&service.pool),
        EventObject::Contention(one) => Some(&one.pool),
        EventObject::ScalingPolicy(policy) => match &policy.target {
            plimsoll_ledger::ScalingTarget::Pool(pool) => Some(pool),
            plimsoll_ledger::ScalingTarget::Service(_) => None,
        },
        EventObject::ReservationForgotten(_)
        | EventObject::NodeRemoved(..)
        | EventObject::Class(_)
        | EventObject::ClassDeleted(_)
        | EventObject::NodeLimits(_)
        | EventObject::NodeLimitsDeleted(_)
        | EventObject::Queue(_)
        | EventObject::QueueDeleted(_)
        | EventObject::Quota(_)
        | EventObject::QuotaDeleted(_)
        | EventObject::Validator(_)
        | EventObject::ValidatorDeleted(_)
        | EventObject::ScheduleDeleted(_)
        | EventObject::ServiceDeleted(_)
        | EventObject::ScalingPolicyDeleted(_)
        | EventObject::Scaling(_)
        | EventObject::Intent(_)
        | EventObject::Leader(_)
        | EventObject::Version(_) => None,
    }
}

/// Tenant of a reservation.
fn tenant_of(object: &EventObject) -> Option<&str> {
    match object {
        EventObject::Reservation(reservation, _) => Some(&reservation.request.tenant),
        _ => None,
    }
}

/// Where a page of the past goes on: within the events of a revision, counted in the order of the page.
struct Position {
    revision: Revision,
    shown: usize,
}

/// One page of the past. A page ends early where too many records had nothing of interest.
fn list(api: &Api, mut request: v1::ListEventsRequest) -> Result<v1::ListEventsResponse, Problem> {
    let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
    let page = Page::read(size, &token, &request.encode_to_vec())?;
    let filter = Filter::read(&request.kinds, &request.name, &request.pool, &request.tenant)?;
    let first_kept = api.core.first_revision();
    let (present, age_ms) = {
        let view = api.local();
        (view.revision(), view.age_ms())
    };
    let mut first = if request.from_revision == 0 { first_kept } else { Revision(request.from_revision) };
    let last = if request.to_revision == 0 { present } else { Revision(request.to_revision).min(present) };
    let mut last = last;
    if request.as_of_ms > 0 {
        last = last.min(api.core.revision_at(LedgerTime(request.as_of_ms))?);
    }
    if request.since_ms > 0 {
        first = first.max(first_since(api, first.max(first_kept), last, LedgerTime(request.since_ms))?);
    }
    let start = if request.newest_first { last } else { first };
    let start = page.after_number()?.map_or(Position { revision: start, shown: 0 }, Position::of);
    let past = Past { api, filter: &filter, first, last, page: &page };
    let (events, go_on) = if request.newest_first { past.backwards(start)? } else { past.forwards(start)? };
    let next_page_token = go_on.map_or_else(String::new, |position| page.next(&position.key(), present));
    Ok(v1::ListEventsResponse {
        revision: present.0,
        age_ms,
        first_revision: first_kept.0,
        events,
        next_page_token,
    })
}

/// Part of the history, read by pages.
struct Past<'a> {
    api: &'a Api,
    filter: &'a Filter,
    first: Revision,
    last: Revision,
    page: &'a Page,
}

type PageOfEvents = (Vec<v1::Event>, Option<Position>);

impl Past<'_> {
    fn forwards(&self, start: Position) -> Result<PageOfEvents, Problem> {
        let (mut next, mut skip, mut looked_at, mut events) = (start.revision, start.shown, 0, Vec::new());
        while next <= self.last {
            let records = self.api.core.history(next, BATCH)?;
            let Some(end) = records.last().map(|record| record.revision) else { break };
            let view = self.api.local();
            for record in records.iter().take_while(|record| record.revision <= self.last) {
                let found: Vec<_> = self.filter.events(&view, record).collect();
                if let Some(shown) = self.fill(&mut events, found, skip) {
                    return Ok((events, Some(Position { revision: record.revision, shown })));
                }
                skip = 0;
            }
            looked_at += records.len();
            next = Revision(end.0 + 1);
            if looked_at >= MOST_LOOKED_AT && next <= self.last {
                return Ok((events, Some(Position { revision: next, shown: 0 })));
            }
        }
        Ok((events, None))
    }

    fn backwards(&self, start: Position) -> Result<PageOfEvents, Problem> {
        let (mut end, mut skip, mut looked_at, mut events) = (start.revision, start.shown, 0, Vec::new());
        while end >= self.first && end.0 > 0 {
            let from = Revision(end.0.saturating_sub(BATCH as u64 - 1)).max(self.first).max(Revision(1));
            let most = usize::try_from(end.0 - from.0 + 1).unwrap_or(BATCH);
            let records = self.api.core.history(from, most)?;
            let view = self.api.local();
            for record in records.iter().rev().filter(|record| record.revision <= end) {
                let mut found: Vec<_> = self.filter.events(&view, record).collect();
                found.reverse();
                if let Some(shown) = self.fill(&mut events, found, skip) {
                    return Ok((events, Some(Position { revision: record.revision, shown })));
                }
                skip = 0;
            }
            looked_at += most;
            end = Revision(from.0 - 1);
            if looked_at >= MOST_LOOKED_AT && end >= self.first {
                return Ok((events, Some(Position { revision: end, shown: 0 })));
            }
        }
        Ok((events, None))
    }

    /// Adds the events of one revision past those shown. Where the page is full first: how many are shown by now.
    fn fill(&self, events: &mut Vec<v1::Event>, found: Vec<v1::Event>, skip: usize) -> Option<usize> {
        for (shown, event) in found.into_iter().enumerate().skip(skip) {
            if events.len() == self.page.size {
                return Some(shown);
            }
            events.push(event);
        }
        None
    }
}

impl Position {
    fn of(key: u64) -> Position {
        Position { revision: Revision(key >> 16), shown: usize::try_from(key & 0xffff).unwrap_or(usize::MAX) }
    }

    fn key(&self) -> [u8; 8] {
        (self.revision.0 << 16 | (self.shown as u64 & 0xffff)).to_be_bytes()
    }
}

/// The first revision at or after a ledger time, by halving: ledger time never goes back.
fn first_since(api: &Api, first: Revision, last: Revision, since: LedgerTime) -> Result<Revision, Problem> {
    let (mut low, mut high) = (first.0, last.0 + 1);
    while low < high {
        let middle = low + (high - low) / 2;
        let records = api.core.history(Revision(middle), 1)?;
        match records.first() {
            Some(record) if record.log_time < since => low = middle + 1,
            _ => high = middle,
        }
    }
    Ok(Revision(low))
}
