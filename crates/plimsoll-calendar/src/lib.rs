//! When a rule opens. A rule is one line of text, in the words of a time zone; what comes out are moments in UTC.
//!
//! | rule | opens |
//! | --- | --- |
//! | `always` | once, for ever |
//! | `22:00-06:00 Europe/Berlin mon-fri` | each of those days from 22:00 on the clock to 6:00 on the clock |
//! | `rrule FREQ=MONTHLY;BYDAY=-1FR;BYHOUR=18 for 8h UTC` | at each time that the rule names, for so long |
//! | `at 2026-12-24T18:00:00Z for 8h` | once |
//!
//! All but the first and last may end with `except 2026-12-24,2026-12-31`: days on which nothing opens. A rule may say `from 2026-11-02` where its
//! recurrence is counted from a day. A time that the clocks skip is the first moment after the gap; one that they show twice is the first.
//!
//! Pure: no clock, no files. The time zones travel with the build.

mod clock;
mod days;
mod parse;
mod recurrence;
mod rrule;
mod words;

pub use clock::{Window, next_time_of_day};
pub use parse::RuleError;
pub use recurrence::Recurrence;
pub use words::{duration_text, parse_duration_ms, parse_moment_ms};
