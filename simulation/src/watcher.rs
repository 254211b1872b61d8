//! Watchers: they follow the log through changes of leader and write down every event that they are given.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_client::{Client, v1};

use crate::board::Board;

/// How long a watcher listens before it looks whether it may stop.
const LISTEN: Duration = Duration::from_millis(500);
/// How often a watcher wants to hear how far it is, in milliseconds.
const PROGRESS_MS: u64 = 1_000;

/// Events of consecutive revisions, as one watch gave them, through however many connections.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Segment {
    /// Who watched.
    pub watcher: &'static str,
    /// First revision that was asked for.
    pub first: u64,
    /// Everything up to here was said to be given; below `first` where nothing was.
    pub last: u64,
    /// Events of reservations only.
    pub reservations_only: bool,
    /// In the order in which they came.
    pub events: Vec<Seen>,
}

/// One event, as far as it is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Its revision.
    pub revision: u64,
    /// Its rule.
    pub rule: String,
    /// Who caused it.
    pub actor: String,
}

/// What a watcher wants.
#[derive(Clone, Copy, Debug)]
pub struct Interest {
    /// Its name.
    pub watcher: &'static str,
    /// First revision; 0 for what is there now and what comes.
    pub from: u64,
    /// Events of reservations only.
    pub reservations_only: bool,
}

/// Watches until all that the run's evidence holds was given.
pub async fn watch(client: Client, board: Arc<Board>, interest: Interest) {
    let mut from = interest.from;
    while !board.over_for_watchers(0) {
        let kinds =
            if interest.reservations_only { vec![v1::ObjectKind::Reservation.into()] } else { Vec::new() };
        let request = v1::WatchRequest {
            from_revision: from,
            include_initial: from == 0,
            kinds,
            progress_interval_ms: PROGRESS_MS,
            ..Default::default()
        };
        let Ok(watch) = client.watch(request).await else {
            tokio::time::sleep(LISTEN).await;
            continue;
        };
        let segment = Segment {
            watcher: interest.watcher,
            first: from,
            last: from.saturating_sub(1),
            reservations_only: interest.reservations_only,
            events: Vec::new(),
        };
        match listen(watch, &board, segment).await {
            After::Over => return,
            // What is no longer kept is said so, and the watcher begins anew with what is there.
            After::Compacted => from = 0,
        }
    }
}

/// How a segment ended.
enum After {
    /// Everything was given.
    Over,
    /// Events are no longer kept.
    Compacted,
}

/// Writes down one segment.
async fn listen(mut watch: plimsoll_client::Watch, board: &Board, mut segment: Segment) -> After {
    // A watch of what is there begins at the revision that it was shown.
    let mut begun = segment.first > 0;
    loop {
        if begun && board.over_for_watchers(segment.last) {
            board.watched(segment);
            return After::Over;
        }
        // Nothing for a while: perhaps there is nothing more to come.
        let Ok(given) = tokio::time::timeout(LISTEN, watch.next()).await else { continue };
        match given {
            // What is there at the start; it may begin anew, through another coordinator.
            Ok(message) if message.initial => {
                (segment.first, segment.last) = (message.revision + 1, message.revision);
                segment.events.clear();
            }
            // Nothing was there: it counts from here on.
            Ok(message) if segment.first == 0 => {
                (segment.first, segment.last) = (message.revision + 1, message.revision);
                begun = true;
            }
            Ok(message) => {
                if message.revision < segment.last {
                    board.found(format!(
                        "I23: {} went back from {} to {}",
                        segment.watcher, segment.last, message.revision
                    ));
                }
                begun = true;
                segment.last = segment.last.max(message.revision);
                segment.events.extend(message.events.into_iter().map(seen));
            }
            Err(error) => {
                let reason = error.reason_name();
                board.trace.add(
                    Board::now_ms(),
                    format_args!("{} ended after {}: {reason}", segment.watcher, segment.last),
                );
                if reason != "COMPACTED" {
                    let (watcher, last) = (segment.watcher, segment.last);
                    board.found(format!("I23: {watcher} ended after {last}: {reason}: {error}"));
                }
                if begun {
                    board.watched(segment);
                }
                return After::Compacted;
            }
        }
    }
}

fn seen(event: v1::Event) -> Seen {
    Seen { revision: event.revision, rule: event.rule, actor: event.actor }
}
