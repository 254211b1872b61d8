//! What is stored of a schedule: what it keeps, for whom, and its windows as the log has them.

use plimsoll_types::{Labels, LedgerTime, Resources, Revision};

use crate::Request;

/// A part of a pool that is kept for some requests while a window is open. From ledger version 4 on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    /// Unique name.
    pub name: String,
    /// Labels of the schedule itself.
    pub labels: Labels,
    /// Pool of which it keeps something.
    pub pool: String,
    /// What it keeps of the whole pool; `gpu` counts devices in thousandths. Nothing, from ledger version 14 on, where it only says when.
    pub resources: Resources,
    /// When, in the words that the leader's calendar reads. The ledger never does.
    pub rule: String,
    /// Whose it is.
    pub users: Users,
    /// Grants of others that run into a window are cut at its start instead of being refused.
    pub shorten: bool,
    /// Its windows, ascending, apart from each other. Only `OpenWindows` fills them.
    pub windows: Vec<Window>,
    /// The windows are all that there are before this; 0 before the leader has worked them out.
    pub opened_until: LedgerTime,
    /// Windows that start up to here have been made room for.
    pub swept_until: LedgerTime,
    /// Revision of the latest change of the policy.
    pub changed: Revision,
}

/// Whom a schedule keeps something for: requests of which any of these fits. Each is a pattern in which `*` stands for any text and `?` for
/// any one character. With none at all it is kept from everybody.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Users {
    /// Against the request's label `pipeline`, and its name where it has no such label.
    pub pipelines: Vec<String>,
    /// Against the queue that the request names.
    pub queues: Vec<String>,
    /// Against the request's tenant.
    pub tenants: Vec<String>,
    /// Against the request's class. From ledger version 9 on.
    pub classes: Vec<String>,
}

/// From when until when something is kept: the first moment is in it, the last is not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Window {
    /// First moment.
    pub start: LedgerTime,
    /// First moment after it; the far end of time for a window without end.
    pub end: LedgerTime,
}

impl Schedule {
    /// True where it only says when: for requests that prefer its hours.
    pub(crate) fn keeps_nothing(&self) -> bool {
        self.resources.iter().next().is_none()
    }

    /// True where it says what to do with others than those whose it is: it has to keep something for that.
    pub(crate) fn is_for_some(&self) -> bool {
        let users = &self.users;
        let patterns = [&users.pipelines, &users.queues, &users.tenants, &users.classes];
        self.shorten || patterns.iter().any(|patterns| !patterns.is_empty())
    }

    /// The window that is open at `at`.
    pub fn open_at(&self, at: LedgerTime) -> Option<Window> {
        let after = self.windows.partition_point(|window| window.start <= at);
        let window = *self.windows.get(after.checked_sub(1)?)?;
        (at < window.end).then_some(window)
    }

    /// The window that is open at `at`, or the next one.
    pub fn next_at(&self, at: LedgerTime) -> Option<Window> {
        self.windows.iter().find(|window| window.end > at).copied()
    }
}

impl Users {
    /// True where the request is one of them.
    pub fn include(&self, request: &Request) -> bool {
        let pipeline = request.labels.get("pipeline").unwrap_or(&request.name);
        let any = |patterns: &[String], text: &str| {
            !text.is_empty() && patterns.iter().any(|pattern| fits(pattern, text))
        };
        any(&self.pipelines, pipeline)
            || any(&self.queues, &request.queue)
            || any(&self.tenants, &request.tenant)
            || any(&self.classes, &request.class)
    }
}

/// True where the pattern stands for the whole text. O(pattern x text).
fn fits(pattern: &str, text: &str) -> bool {
    let text: Vec<char> = text.chars().collect();
    // Places in the text that the pattern so far may have come to.
    let mut reached = vec![false; text.len() + 1];
    reached[0] = true;
    for wanted in pattern.chars() {
        if wanted == '*' {
            let first = reached.iter().position(|here| *here).unwrap_or(reached.len());
            reached[first..].fill(true);
            continue;
        }
        for place in (0..text.len()).rev() {
            reached[place + 1] = reached[place] && (wanted == '?' || wanted == text[place]);
        }
        reached[0] = false;
    }
    reached[text.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text_and_a_question_mark_for_one_character() {
        for (pattern, text, does) in [
            ("production_*", "production_eval", true),
            ("production_*", "production_", true),
            ("production_*", "my_production_eval", false),
            ("*", "anything", true),
            ("*_eval", "production_eval", true),
            ("p*l?n*", "pipeline", true),
            ("p?", "pipe", false),
            ("exact", "exact", true),
            ("exact", "exactly", false),
        ] {
            assert_eq!(fits(pattern, text), does, "{pattern} {text}");
        }
    }

    #[test]
    fn the_name_stands_in_for_a_label_that_is_not_there() {
        let users = Users { pipelines: vec!["batch_*".into()], ..Users::default() };
        let mut request = Request { name: "batch_7".into(), ..Request::default() };
        assert!(users.include(&request));
        request.labels.insert("pipeline".into(), "other".into());
        assert!(!users.include(&request));
        assert!(!Users::default().include(&request));
    }

    #[test]
    fn a_window_holds_its_start_and_not_its_end() {
        let window = |start, end| Window { start: LedgerTime(start), end: LedgerTime(end) };
        let schedule = Schedule { windows: vec![window(10, 20), window(30, 40)], ..Schedule::default() };
        let open: Vec<bool> =
            [9, 10, 19, 20, 30, 40].map(|at| schedule.open_at(LedgerTime(at)).is_some()).to_vec();
        assert_eq!(open, [false, true, true, false, true, false]);
        assert_eq!(schedule.next_at(LedgerTime(20)), Some(window(30, 40)));
    }
}
