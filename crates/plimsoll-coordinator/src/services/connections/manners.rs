//! What a client may do on a connection: begin in time, ping now and then, send few frames that ask for nothing.

use std::time::Duration;

use tokio::time::Instant;

use super::frames::{Frames, Seen};

/// Pings in a row that may come too early: networks bunch them up.
const FORGIVEN_PINGS: u32 = 2;
/// Frames that ask for nothing: so many at once after a rest,
const IDLE_FRAMES: u64 = 2_000;
/// and so many a second in the long run.
const IDLE_FRAMES_PER_SECOND: u64 = 200;
/// For each part of an answer that was sent, a client may grant windows and give up calls.
const IDLE_FRAMES_PER_ANSWER: u64 = 4;

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Language {
    /// HTTP/2, frame by frame.
    Frames,
    /// Requests of HTTP/1 without bodies, or anything else with short questions and quick answers.
    Questions,
}

/// Why a client is cut off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rude {
    /// It pings too often.
    Pings,
    /// It sends too many frames that ask for nothing.
    IdleFrames,
}

impl Rude {
    /// What such clients know to look for.
    pub(super) fn word(self) -> &'static str {
        match self {
            Rude::Pings => "too_many_pings",
            Rude::IdleFrames => "too_many_frames",
        }
    }
}

/// How a client has behaved on one connection.
#[derive(Debug)]
pub(super) struct Manners {
    language: Language,
    sent: Frames,
    received: Frames,
    /// A question was begun and is not answered.
    is_asking: bool,
    /// Shortest time between pings of the client.
    ping_after: Duration,
    last_ping: Option<Instant>,
    early_pings: u32,
    /// Idle frames that it may still send, as of `idle_at`.
    idle_left: u64,
    idle_at: Instant,
}

/// What some bytes of a client mean for its connection.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Heard {
    /// They are part of a call.
    pub(super) is_call: bool,
    /// They begin something that must be complete soon.
    pub(super) begins: bool,
    /// What had to be complete soon is.
    pub(super) completes: bool,
}

impl Manners {
    pub(super) fn new(language: Language, ping_after: Duration) -> Manners {
        Manners {
            language,
            sent: Frames::of_server(),
            received: Frames::of_client(),
            is_asking: false,
            ping_after,
            last_ping: None,
            early_pings: 0,
            idle_left: IDLE_FRAMES,
            idle_at: Instant::now(),
        }
    }

    /// The client sent these bytes. `is_trusted` clients may send as many frames as they like.
    pub(super) fn hears(&mut self, bytes: &[u8], is_trusted: bool) -> Result<Heard, Rude> {
        if self.language == Language::Questions {
            let begins = !std::mem::replace(&mut self.is_asking, true);
            return Ok(Heard { is_call: true, begins, completes: false });
        }
        let seen = self.received.read(bytes);
        if seen.pings > 0 && self.pings_too_often(seen.pings) {
            return Err(Rude::Pings);
        }
        if seen.idle > 0 && !is_trusted && self.idles_too_often(seen.idle) {
            return Err(Rude::IdleFrames);
        }
        Ok(Heard { is_call: seen.calls, begins: false, completes: self.received.has_begun() })
    }

    /// These bytes were sent to the client.
    pub(super) fn says(&mut self, bytes: &[u8]) -> Heard {
        if self.language == Language::Questions {
            let completes = std::mem::take(&mut self.is_asking);
            return Heard { is_call: true, begins: false, completes };
        }
        let Seen { calls, parts, .. } = self.sent.read(bytes);
        if calls {
            // A client may measure the line by a ping for each answer: only pings without answers are a nuisance.
            self.early_pings = 0;
            self.last_ping = None;
            let earned = IDLE_FRAMES_PER_ANSWER * u64::from(parts);
            self.idle_left = IDLE_FRAMES.min(self.idle_left.saturating_add(earned));
        }
        Heard { is_call: calls, ..Heard::default() }
    }

    /// The frame by which a client is told why it is cut off, where one can be sent now.
    pub(super) fn last_word(&self, word: &str) -> Option<Vec<u8>> {
        let can = self.language == Language::Frames && self.sent.is_between();
        can.then(|| self.received.go_away(word.as_bytes()))
    }

    /// True once too many pings in a row came too early.
    fn pings_too_often(&mut self, pings: u32) -> bool {
        let now = Instant::now();
        for _ in 0..pings {
            let is_early = self.last_ping.is_some_and(|last| now.duration_since(last) < self.ping_after);
            self.early_pings = if is_early { self.early_pings + 1 } else { 0 };
            self.last_ping = Some(now);
        }
        self.early_pings > FORGIVEN_PINGS
    }

    fn idles_too_often(&mut self, frames: u32) -> bool {
        let now = Instant::now();
        let passed_ms = u64::try_from(now.duration_since(self.idle_at).as_millis()).unwrap_or(u64::MAX);
        let earned = passed_ms.saturating_mul(IDLE_FRAMES_PER_SECOND) / 1_000;
        if earned > 0 {
            self.idle_left = IDLE_FRAMES.min(self.idle_left.saturating_add(earned));
            self.idle_at = now;
        }
        let left = self.idle_left.checked_sub(u64::from(frames));
        self.idle_left = left.unwrap_or(0);
        left.is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const WINDOW: [u8; 13] = [0, 0, 4, 8, 0, 0, 0, 0, 0, 0, 0, 0, 1];
    const ANSWER: [u8; 10] = [0, 0, 1, 0, 1, 0, 0, 0, 1, 9];

    fn manners() -> Manners {
        let mut manners = Manners::new(Language::Frames, Duration::from_secs(5));
        let heard = manners.hears(&[0; 24], false).expect("the preface");
        assert!(!heard.completes, "a first frame belongs to the beginning");
        assert!(manners.hears(&SETTINGS, false).expect("a frame").completes);
        manners
    }

    #[tokio::test(start_paused = true)]
    async fn frames_that_ask_for_nothing_are_few() {
        let mut client = manners();
        let sent = (0..10_000).find(|_| client.hears(&WINDOW, false).is_err());
        assert_eq!(sent, Some(1_999), "and the settings at the beginning");
        tokio::time::sleep(Duration::from_secs(1)).await;
        let sent = (0..10_000).find(|_| client.hears(&SETTINGS, false) == Err(Rude::IdleFrames));
        assert_eq!(sent, Some(200));
        assert!((0..10_000).all(|_| client.hears(&WINDOW, true).is_ok()), "a coordinator may");
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_reads_may_grant_windows() {
        let mut client = manners();
        for _ in 0..10_000 {
            client.says(&ANSWER);
            client.hears(&WINDOW, false).expect("one for the stream");
            client.hears(&WINDOW, false).expect("one for the connection");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_question_begins_once_and_ends_with_its_answer() {
        let mut client = Manners::new(Language::Questions, Duration::ZERO);
        assert!(client.hears(b"GET", false).expect("fine").begins);
        assert!(!client.hears(b" /", false).expect("fine").begins, "it goes on");
        assert!(client.says(b"HTTP/1.1 200").completes);
        assert!(!client.says(b"rest").completes);
        assert!(client.hears(b"GET", false).expect("fine").begins, "another");
    }
}
