//! What endpoints say of their load, and what their nodes measure of them, in the leader's memory until it is written: about once a second one entry, and in
//! it only what changed.
//!
//! Reports are rounded first, so that an even load is no news; what has not changed is written again before readers would take it for too old.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use plimsoll_ledger::limits::{MAX_LOADS, MAX_METRICS};
use plimsoll_ledger::{Ledger, LoadReport, MEASURED, METRICS_SINCE_VERSION};
use plimsoll_types::{LedgerTime, ReservationId};
use tokio::sync::Notify;
use tokio::time::Instant;

/// Least time between two entries.
const PERIOD: Duration = Duration::from_secs(1);
/// What has not changed is written again after so long, in milliseconds: a third of the time for which a report counts (gRFC A58: 3 minutes).
const REFRESH_MS: u64 = 60_000;
/// Reports that wait at most; past them those of endpoints that are not among them are dropped: endpoints say it again.
const MOST_WAITING: usize = 200_000;
/// Utilization is rounded to this, in thousandths.
const UTILIZATION_STEP: u32 = 10;

/// What a node measured counts for so long: agents say it more often by far.
const MEASURED_COUNTS: Duration = Duration::from_secs(60);
/// What an endpoint said itself counts for so long, whatever its node says meanwhile (gRFC A58).
const OWN_COUNTS: Duration = Duration::from_secs(180);

/// Metrics by name, in thousandths.
pub type Metrics = BTreeMap<String, u64>;

/// Reports that wait to be written.
pub struct LoadBook {
    state: Mutex<State>,
    wake: Arc<Notify>,
}

#[derive(Default)]
struct State {
    /// The latest of each endpoint; `None` where only its node has news of it.
    waiting: BTreeMap<ReservationId, Option<LoadReport>>,
    /// What nodes measured of their workloads, and when that was heard.
    measured: BTreeMap<ReservationId, (Instant, Metrics)>,
    /// Of endpoints that nodes measure: when they were heard of themselves, or by a leader before this one at the latest.
    own: BTreeMap<ReservationId, Instant>,
    /// Not before this.
    next_at: Option<Instant>,
}

impl LoadBook {
    pub(super) fn new(wake: Arc<Notify>) -> LoadBook {
        LoadBook { state: Mutex::default(), wake }
    }

    /// Takes reports in. Those of one endpoint replace each other.
    pub fn take_in(&self, reports: impl IntoIterator<Item = LoadReport>) {
        self.note(reports.into_iter().map(|report| (report.reservation, Some(rounded(report)))), &[]);
    }

    /// Takes in what a node measured of endpoints on it: [`MEASURED`] by name, in thousandths of a percent of what each was granted.
    pub fn take_measured(&self, measured: &[(ReservationId, Metrics)]) {
        self.note(measured.iter().map(|(reservation, _)| (*reservation, None)), measured);
    }

    fn note(
        &self,
        reports: impl IntoIterator<Item = (ReservationId, Option<LoadReport>)>,
        measured: &[(ReservationId, Metrics)],
    ) {
        let mut state = self.state.lock();
        let was_empty = state.waiting.is_empty();
        for (reservation, report) in reports {
            if state.waiting.len() < MOST_WAITING || state.waiting.contains_key(&reservation) {
                let known = state.waiting.entry(reservation).or_default();
                *known = report.or_else(|| known.take());
            }
        }
        let now = Instant::now();
        for (reservation, metrics) in measured {
            if state.measured.len() < MOST_WAITING || state.measured.contains_key(reservation) {
                let metrics = metrics.iter().map(|(name, value)| (name.clone(), two_digits(*value)));
                state.measured.insert(*reservation, (now, metrics.collect()));
            }
        }
        if was_empty && !state.waiting.is_empty() {
            self.wake.notify_one();
        }
    }

    /// When something is to be written; `None` where nothing waits.
    pub(super) fn due_at(&self) -> Option<Instant> {
        let state = self.state.lock();
        let soon = state.next_at.unwrap_or_else(Instant::now);
        (!state.waiting.is_empty()).then_some(soon)
    }

    /// What to write now, ascending by reservation; empty where it is not time yet, or nothing is news. What did not fit waits on.
    pub(super) fn due(&self, ledger: &Ledger, now: LedgerTime) -> Vec<LoadReport> {
        let mut state = self.state.lock();
        let present = Instant::now();
        if state.waiting.is_empty() || state.next_at.is_some_and(|at| present < at) {
            return Vec::new();
        }
        state.next_at = Some(present + PERIOD);
        let State { measured, own, .. } = &mut *state;
        measured.retain(|_, (heard, _)| present.duration_since(*heard) < MEASURED_COUNTS);
        own.retain(|reservation, _| measured.contains_key(reservation));
        let mut news = Vec::new();
        while news.len() < MAX_LOADS
            && let Some((reservation, said)) = state.waiting.pop_first()
        {
            let heard = *state.own.entry(reservation).or_insert(present);
            if said.is_some() {
                state.own.insert(reservation, present);
            }
            let counts = present.duration_since(heard) < OWN_COUNTS;
            let measured = state.measured.get(&reservation).map(|(_, metrics)| metrics);
            let Some(report) = joined(ledger, reservation, (said, counts), measured) else { continue };
            if is_news(ledger, &report, now) {
                news.push(report);
            }
        }
        news
    }

    /// This replica no longer leads: endpoints say it again to whoever does.
    pub(super) fn clear(&self) {
        *self.state.lock() = State::default();
    }
}

fn is_news(ledger: &Ledger, report: &LoadReport, now: LedgerTime) -> bool {
    let endpoint = ledger.reservation(report.reservation).and_then(|replica| replica.endpoint.as_ref());
    let known = ledger.load(report.reservation);
    endpoint.is_some()
        && known.is_none_or(|known| known.report != *report || known.at.plus_ms(REFRESH_MS) <= now)
}

/// What an endpoint said itself, now or (while that `counts`) before, beside what its node measures. To a ledger that does not know of metrics, what it said
/// alone.
fn joined(
    ledger: &Ledger,
    reservation: ReservationId,
    (said, counts): (Option<LoadReport>, bool),
    measured: Option<&Metrics>,
) -> Option<LoadReport> {
    if ledger.meta().version < METRICS_SINCE_VERSION {
        return Some(LoadReport { metrics: Metrics::new(), ..said? });
    }
    let known = || ledger.load(reservation).filter(|_| counts).map(|load| load.report.clone());
    let mut report = said.unwrap_or_else(|| {
        let mut known = known().unwrap_or_else(|| LoadReport::silent(reservation));
        known.metrics.retain(|name, _| !MEASURED.contains(&name.as_str()));
        known
    });
    for (name, value) in measured.into_iter().flatten() {
        report.metrics.insert(name.clone(), *value);
    }
    while report.metrics.len() > MAX_METRICS {
        // What the node measures stays: an endpoint may say less of itself then.
        let own = report.metrics.keys().rfind(|name| !MEASURED.contains(&name.as_str())).cloned();
        let Some(own) = own else { break };
        report.metrics.remove(&own);
    }
    Some(report)
}

/// Utilization to a hundredth, everything else to two digits.
fn rounded(report: LoadReport) -> LoadReport {
    let used = report.utilization_permille.saturating_add(UTILIZATION_STEP / 2);
    LoadReport {
        reservation: report.reservation,
        utilization_permille: used - used % UTILIZATION_STEP,
        rate_milli: two_digits(report.rate_milli),
        errors_milli: two_digits(report.errors_milli),
        in_flight: two_digits(report.in_flight.into()) as u32,
        queue_depth: two_digits(report.queue_depth.into()) as u32,
        latency_us: two_digits(report.latency_us),
        metrics: report.metrics.into_iter().map(|(name, value)| (name, two_digits(value))).collect(),
        measured_only: report.measured_only,
    }
}

/// The first two digits of a number, the others zero: 12,345 is 12,000. Never more than it was.
fn two_digits(number: u64) -> u64 {
    let digits = number.checked_ilog10().unwrap_or(0);
    let unit = 10_u64.pow(digits.saturating_sub(1));
    number - number % unit
}

#[cfg(test)]
mod tests {
    use plimsoll_ledger::{
        Announcement, Command, Entry, Outcome, Placement, PolicyObject, Registration, Request, Requirements,
        Reservation, Service, Stamp, Verdict,
    };
    use plimsoll_types::{NodeId, Resources, Revision};

    use super::*;

    fn apply(ledger: &mut Ledger, command: Command) -> Outcome {
        let stamp = Stamp { revision: Revision(ledger.revision().0 + 1), proposed_at: LedgerTime(50) };
        ledger.apply(stamp, &Entry::system(command)).answer.outcome
    }

    /// A ledger with an endpoint, and one grant that is none.
    fn ledger() -> (Ledger, [Arc<Reservation>; 2]) {
        let mut ledger = Ledger::new();
        apply(&mut ledger, Command::Upgrade { to: 5 });
        let (pool, class) = ("default".to_owned(), "standard".to_owned());
        let web =
            Service { name: "web".into(), pool: pool.clone(), class: class.clone(), ..Service::default() };
        let put = vec![PolicyObject::Service(web)];
        apply(&mut ledger, Command::ApplyPolicy { put, delete: vec![], if_revision: Revision(0) });
        let capacity = Resources::new(8_000, 1 << 34);
        apply(
            &mut ledger,
            Command::RegisterNode(Registration {
                name: "n".into(),
                incarnation: 1,
                capacity,
                ..Registration::default()
            }),
        );
        let mut grant = |service: &str| {
            let member = plimsoll_ledger::MemberPlacement { node: NodeId(0), devices: vec![], role: 0 };
            let request = Request {
                pool: pool.clone(),
                class: class.clone(),
                service: service.into(),
                auto_confirm: true,
                requirements: Requirements { amounts: Resources::new(1_000, 0), ..Requirements::default() },
                ..Request::default()
            };
            let verdict = Verdict::Place(Placement { members: vec![member] });
            let Outcome::Reservation(granted) = apply(&mut ledger, Command::Submit { request, verdict })
            else {
                panic!("it fits")
            };
            granted
        };
        let (replica, other) = (grant("web"), grant(""));
        let announced = Some(Announcement {
            address: "10.0.0.1:80".into(),
            weight_milli: 1_000,
            ..Announcement::default()
        });
        apply(&mut ledger, Command::SetEndpoint { reservation: replica.id, token: replica.token, announced });
        (ledger, [replica, other])
    }

    fn report(reservation: ReservationId, rate_milli: u64) -> LoadReport {
        LoadReport {
            reservation,
            utilization_permille: 504,
            rate_milli,
            errors_milli: 0,
            in_flight: 3,
            queue_depth: 0,
            latency_us: 12_345,
            ..LoadReport::default()
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_news_of_endpoints_is_written_and_not_more_than_once_a_second() {
        let (mut ledger, [replica, other]) = ledger();
        let book = LoadBook::new(Arc::default());
        assert_eq!(book.due_at(), None);
        book.take_in([report(replica.id, 10), report(replica.id, 12_300), report(other.id, 5)]);
        assert!(book.due_at().is_some());
        let news = book.due(&ledger, LedgerTime(50));
        let rounded = LoadReport {
            rate_milli: 12_000,
            utilization_permille: 500,
            latency_us: 12_000,
            ..report(replica.id, 0)
        };
        assert_eq!(news, [rounded], "the latest, and nothing of what is no endpoint");
        apply(&mut ledger, Command::ReportLoad { reports: news });
        // Too soon, and then no news.
        book.take_in([report(replica.id, 99_999)]);
        assert_eq!(book.due(&ledger, LedgerTime(60)), []);
        tokio::time::advance(PERIOD).await;
        assert_eq!(book.due(&ledger, LedgerTime(60)).len(), 1);
        tokio::time::advance(PERIOD).await;
        book.take_in([report(replica.id, 12_049)]);
        assert_eq!(book.due(&ledger, LedgerTime(70)), [], "it is the same to two digits");
        tokio::time::advance(PERIOD).await;
        book.take_in([report(replica.id, 12_049)]);
        assert_eq!(book.due(&ledger, LedgerTime(50 + REFRESH_MS)).len(), 1, "what is old is said again");
    }

    fn percent(cpu: u64) -> Metrics {
        [("cpu".to_owned(), cpu * 1_000)].into()
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_node_measures_stands_beside_what_its_endpoint_says() {
        let (mut ledger, [replica, other]) = ledger();
        apply(&mut ledger, Command::Upgrade { to: METRICS_SINCE_VERSION });
        let book = LoadBook::new(Arc::default());
        let next = async |ledger: &mut Ledger| {
            tokio::time::advance(PERIOD).await;
            let reports = book.due(ledger, LedgerTime(50));
            apply(ledger, Command::ReportLoad { reports: reports.clone() });
            reports
        };
        book.take_measured(&[(replica.id, percent(37)), (other.id, percent(1))]);
        let silent = LoadReport { metrics: percent(37), ..LoadReport::silent(replica.id) };
        assert_eq!(
            next(&mut ledger).await,
            [silent],
            "it has said nothing yet, and the other is no endpoint"
        );
        let tokens = || [("tokens".to_owned(), 7)].into();
        book.take_in([LoadReport { metrics: tokens(), ..report(replica.id, 10) }]);
        let both: Metrics = percent(37).into_iter().chain(tokens()).collect::<Metrics>();
        let said = next(&mut ledger).await.remove(0);
        assert_eq!((said.rate_milli, said.measured_only, said.metrics), (10, false, both));
        book.take_measured(&[(replica.id, percent(80))]);
        let said = next(&mut ledger).await.remove(0);
        assert_eq!((said.rate_milli, said.metrics.len(), said.cpu_permille()), (10, 2, Some(800)));
        // Neither says what it does not know: an endpoint that fell silent is known by its node alone after a while, and the other way round.
        for _ in 0..OWN_COUNTS.as_secs() / 5 {
            tokio::time::advance(Duration::from_secs(5)).await;
            book.take_measured(&[(replica.id, percent(80))]);
            next(&mut ledger).await;
        }
        let known = ledger.load(replica.id).map(|load| load.report.clone());
        assert_eq!(known, Some(LoadReport { metrics: percent(80), ..LoadReport::silent(replica.id) }));
        tokio::time::advance(MEASURED_COUNTS).await;
        book.take_in([report(replica.id, 20)]);
        let said = next(&mut ledger).await.remove(0);
        assert_eq!((said.rate_milli, said.metrics), (20, Metrics::new()));
    }

    #[tokio::test(start_paused = true)]
    async fn a_ledger_that_knows_no_metrics_is_told_none() {
        let (ledger, [replica, _]) = ledger();
        let book = LoadBook::new(Arc::default());
        book.take_measured(&[(replica.id, percent(37))]);
        assert_eq!(book.due(&ledger, LedgerTime(50)), []);
        tokio::time::advance(PERIOD).await;
        book.take_measured(&[(replica.id, percent(38))]);
        book.take_in([LoadReport { metrics: percent(9), ..report(replica.id, 10) }]);
        let news = book.due(&ledger, LedgerTime(50));
        assert_eq!((news.len(), news[0].rate_milli, news[0].names_metrics()), (1, 10, false));
    }

    #[tokio::test(start_paused = true)]
    async fn of_too_many_metrics_those_of_the_node_stay() {
        let (mut ledger, [replica, _]) = ledger();
        apply(&mut ledger, Command::Upgrade { to: METRICS_SINCE_VERSION });
        let book = LoadBook::new(Arc::default());
        book.take_measured(&[(replica.id, percent(37))]);
        let metrics: Metrics = (0..MAX_METRICS).map(|n| (format!("a{n:02}"), 1)).collect();
        book.take_in([LoadReport { metrics, ..report(replica.id, 10) }]);
        let news = book.due(&ledger, LedgerTime(50));
        assert_eq!((news[0].metrics.len(), news[0].cpu_permille()), (MAX_METRICS, Some(370)));
        assert_eq!(apply(&mut ledger, Command::ReportLoad { reports: news }), Outcome::Done);
    }

    #[test]
    fn two_digits_are_kept() {
        for (number, kept) in
            [(0, 0), (9, 9), (99, 99), (101, 100), (12_345, 12_000), (u64::MAX, 18_000_000_000_000_000_000)]
        {
            assert_eq!(two_digits(number), kept, "{number}");
        }
    }
}
