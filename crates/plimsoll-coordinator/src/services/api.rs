//! What every service works with: the core, and the ways in which requests use it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use futures_util::future::BoxFuture;
use plimsoll_ledger::{Answer, Command, Ledger, Outcome, Reservation};
use plimsoll_proto::{convert, v1};
use plimsoll_types::{LedgerTime, Revision};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::intent::Intent;
use super::page::Page;
use super::problem::Problem;
use super::validators::RuleCache;
use crate::core::{Consistency, Core, HistoryError, LedgerView, SubmitError};
use crate::telemetry::{Calls, Memory, Telemetry};

/// A handle that every service has a clone of.
#[derive(Clone)]
pub(crate) struct Api {
    pub(crate) core: Core,
    pub(crate) calls: Calls,
    memory: Arc<Memory>,
    shown: Arc<Shown>,
    turns: Arc<Semaphore>,
    rules: Arc<RuleCache>,
}

/// A moment of the past, by revision or by ledger time; 0 for neither.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct AsOf {
    /// A revision.
    pub(crate) revision: u64,
    /// A ledger time.
    pub(crate) time_ms: u64,
}

/// The moment that a request names.
macro_rules! as_of {
    ($request:expr) => {
        crate::services::api::AsOf { revision: $request.as_of_revision, time_ms: $request.as_of_ms }
    };
}
pub(crate) use as_of;

/// Answers that are made at the same time of those that take long. A thousand that are asked for together would otherwise stand
/// before everything else that this process does.
const TURNS: usize = 4;

/// What this coordinator has shown to anybody: no answer is older than what it showed before.
#[derive(Debug, Default)]
pub(crate) struct Shown {
    revision: AtomicU64,
    /// It has been seen in a cluster.
    in_cluster: AtomicBool,
}

impl Shown {
    /// The latest revision that was in an answer.
    pub(crate) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Relaxed)
    }
}

impl Api {
    pub(crate) fn new(core: Core, telemetry: Telemetry) -> Api {
        let (calls, memory) = (telemetry.calls().clone(), Arc::clone(telemetry.memory()));
        let turns = Arc::new(Semaphore::new(TURNS));
        Api { core, calls, memory, shown: Arc::default(), turns, rules: Arc::default() }
    }

    /// What was shown so far.
    pub(crate) fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.shown)
    }

    /// Waits until it is this one's turn to make a part of an answer that takes long. Nothing is waited for with it in hand.
    pub(crate) async fn turn(&self) -> SemaphorePermit<'_> {
        self.turns.acquire().await.expect("turns are never closed")
    }

    /// Makes a part of an answer that takes long, when it is its turn.
    pub(crate) async fn at_length<T>(&self, work: impl FnOnce() -> T) -> T {
        let _turn = self.turn().await;
        plimsoll_consensus::at_length(work)
    }

    /// A revision is in an answer.
    fn shows(&self, revision: Revision) {
        self.shown.revision.fetch_max(revision.0, Ordering::Relaxed);
    }

    /// Refuses where there is no cluster yet, so that nobody takes the emptiness here for the cluster's.
    pub(crate) fn check_in_cluster(&self) -> Result<(), Problem> {
        if self.shown.in_cluster.load(Ordering::Relaxed) {
            return Ok(());
        }
        if self.core.group().metrics().members.is_empty() {
            return Err(Problem::uninitialized());
        }
        self.shown.in_cluster.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Refuses what would take more memory or disk, where that is short. What keeps or gives back is always taken, and so
    /// is what was answered before: the answer is there, and who asks again may have seen none.
    fn check_room(&self, intent: &Intent) -> Result<(), Problem> {
        if !matches!(intent.entry.command, Command::Submit { .. }) {
            return Ok(());
        }
        let short = match self.core.disk() {
            Some(disk) if disk.is_short() => Problem::disk_short(disk.free_bytes()),
            _ if self.memory.is_short() => Problem::memory_short(self.memory.used(), self.memory.budget()),
            _ => return Ok(()),
        };
        let (actor, request_id) = (&intent.entry.actor, &intent.entry.request_id);
        if self.core.local().remembered(actor, request_id).is_some() {
            return Ok(());
        }
        self.memory.turned_away();
        Err(short)
    }

    /// What the rules of the cluster's validators say of an entry.
    pub(crate) fn judge(&self, entry: &plimsoll_ledger::Entry) -> Result<(), Problem> {
        self.rules.check(&self.core, entry)
    }

    /// Fills in what a replica leaves to its service.
    pub(crate) fn complete(&self, request: &mut plimsoll_ledger::Request) {
        if !request.service.is_empty() {
            convert::fill_from_service(request, &self.core.local());
        }
    }

    /// The rules of the cluster's validators that a request breaks.
    pub(crate) fn broken_rules(&self, request: &plimsoll_ledger::Request) -> Vec<convert::Violation> {
        self.rules.broken_by(&self.core, request)
    }

    /// What can be said before anything is proposed: room, and the rules of the cluster's validators. A replica is given what its service says.
    fn check_edge(&self, intent: &mut Intent) -> Result<(), Problem> {
        self.check_room(intent)?;
        if let Command::Submit { request, .. } = &mut intent.entry.command {
            self.complete(request);
        }
        self.rules.check(&self.core, &intent.entry)
    }

    /// Does what a client wants, or only decides it. A refusal is a problem here.
    pub(crate) async fn submit(&self, mut intent: Intent) -> Result<Answer, Problem> {
        self.check_edge(&mut intent)?;
        if intent.validate_only {
            // Its revision is one that may yet be: nothing was shown.
            return decided(self.core.validate_only(intent.entry).await?);
        }
        let began = Instant::now();
        let request_id = intent.entry.request_id.clone();
        let answer = self.core.submit(intent.entry).await;
        self.calls.granted(began.elapsed(), 1);
        if answer == Err(SubmitError::Unknown) {
            return Err(Problem::from(SubmitError::Unknown).with("request_id", request_id));
        }
        self.settle(answer)
    }

    /// Does many things together; answers in their order. Those that could not be read are answered too.
    pub(crate) async fn submit_many(
        &self,
        intents: Vec<Result<Intent, Problem>>,
    ) -> Vec<Result<Answer, Problem>> {
        let mut answers: Vec<Option<Result<Answer, Problem>>> = Vec::with_capacity(intents.len());
        let mut entries = Vec::with_capacity(intents.len());
        let mut places = Vec::with_capacity(intents.len());
        for intent in intents {
            match intent {
                Ok(intent) if intent.validate_only => {
                    answers.push(Some(self.submit(intent).await));
                }
                Ok(mut intent) => {
                    if let Err(problem) = self.check_edge(&mut intent) {
                        answers.push(Some(Err(problem)));
                        continue;
                    }
                    places.push(answers.len());
                    entries.push(intent.entry);
                    answers.push(None);
                }
                Err(problem) => answers.push(Some(Err(problem))),
            }
        }
        if !entries.is_empty() {
            let (began, count) = (Instant::now(), entries.len());
            for (place, answer) in places.into_iter().zip(self.core.submit_many(entries).await) {
                answers[place] = Some(self.settle(answer));
            }
            self.calls.granted(began.elapsed(), count);
        }
        let missing = || Err(Problem::internal("the core left a command without an answer"));
        answers.into_iter().map(|answer| answer.unwrap_or_else(missing)).collect()
    }

    /// The ledger as fresh as asked.
    pub(crate) async fn read(&self, consistency: i32, min_revision: u64) -> Result<LedgerView<'_>, Problem> {
        self.check_in_cluster()?;
        let view = self.core.read(read_consistency(consistency)?, Revision(min_revision)).await?;
        self.shows(view.revision());
        Ok(view)
    }

    /// The ledger as it was, where a revision or a time is given; as fresh as asked otherwise.
    pub(crate) async fn read_at(
        &self,
        consistency: i32,
        min_revision: u64,
        as_of: AsOf,
    ) -> Result<LedgerView<'_>, Problem> {
        if as_of == AsOf::default() {
            return self.read(consistency, min_revision).await;
        }
        let past = self.past(consistency, min_revision, as_of).await?;
        Ok(past.map_or_else(|| self.local(), LedgerView::past))
    }

    /// The ledger as it was; `None` where neither a revision nor a time is given. Boxed: it is rare, and every read would carry it.
    pub(crate) fn past(
        &self,
        consistency: i32,
        min_revision: u64,
        as_of: AsOf,
    ) -> BoxFuture<'_, Result<Option<Arc<Ledger>>, Problem>> {
        Box::pin(async move {
            let AsOf { revision, time_ms } = as_of;
            if revision > 0 && time_ms > 0 {
                return Err(Problem::invalid("as_of_revision", "give either a revision or a time"));
            }
            if revision == 0 && time_ms == 0 {
                return Ok(None);
            }
            // What was acknowledged before the call counts as the past.
            drop(self.read(consistency, min_revision).await?);
            let revision = match time_ms {
                0 => Revision(revision),
                time_ms => self.core.revision_at(LedgerTime(time_ms))?,
            };
            Ok(Some(self.core.past(revision).await?))
        })
    }

    /// The ledger as it is here now, to be shown.
    pub(crate) fn local(&self) -> LedgerView<'_> {
        let view = self.core.local();
        self.shows(view.revision());
        view
    }

    /// A reservation as the API shows it, with all that it asked.
    pub(crate) fn show_whole(
        &self,
        ledger: &Ledger,
        reservation: &Arc<Reservation>,
    ) -> Result<v1::Reservation, Problem> {
        let whole = self.core.whole(ledger, reservation).map_err(Problem::from)?;
        Ok(convert::reservation_to_v1(&whole, ledger))
    }

    /// The reservation of an answer that must have one, as the API shows it.
    pub(crate) fn reservation_of(&self, answer: &Answer) -> Result<v1::Reservation, Problem> {
        match &answer.outcome {
            Outcome::Reservation(reservation) => self.show_whole(&self.core.local(), reservation),
            other => Err(Problem::internal(format!("an answer without a reservation: {other:?}"))),
        }
    }

    fn settle(&self, answer: Result<Answer, SubmitError>) -> Result<Answer, Problem> {
        let answer = answer?;
        self.shows(answer.revision);
        decided(answer)
    }

    /// Reads the page fields of a request, as [`Page::read`] does. A list goes on where it ended: what was there all the
    /// time is on one page, and what changed meanwhile is among the events after the first page's revision. Where those
    /// are no longer kept, nobody could put the pages together any more, and they must be read anew.
    pub(crate) fn page(&self, size: u32, token: &str, fields: &[u8]) -> Result<Page, Problem> {
        let page = Page::read(size, token, fields)?;
        let first = self.core.first_revision();
        if page.revision.0 > 0 && page.revision.0 + 1 < first.0 {
            let problem = Problem::from(HistoryError::Compacted { wanted: page.revision, first });
            return Err(problem.because("the list began too long ago, begin it anew without a page_token"));
        }
        Ok(page)
    }
}

/// A refusal is a problem for the caller, with the revision that it was decided at.
fn decided(answer: Answer) -> Result<Answer, Problem> {
    match answer.outcome {
        Outcome::Refused(refusal) => {
            Err(Problem::from(refusal).with("revision", answer.revision.to_string()))
        }
        _ => Ok(answer),
    }
}

/// How fresh a read must be.
pub(crate) fn read_consistency(consistency: i32) -> Result<Consistency, Problem> {
    match v1::Consistency::try_from(consistency) {
        Ok(v1::Consistency::Unspecified | v1::Consistency::Linearizable) => Ok(Consistency::Linearizable),
        Ok(v1::Consistency::Stale) => Ok(Consistency::Stale),
        Err(_) => Err(Problem::invalid("consistency", format!("{consistency} is not a consistency"))),
    }
}
