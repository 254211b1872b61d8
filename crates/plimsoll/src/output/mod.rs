//! Output: data on stdout in the form that was asked for, talk on stderr.

mod amounts;
mod live;
mod out;
mod paint;
mod rows;
mod table;
mod time;

pub(crate) use amounts::{asked, granted, places, quantities, share};
pub(crate) use live::StatusLine;
pub(crate) use out::{ColorChoice, Footer, Format, Out};
pub(crate) use paint::Paint;
pub(crate) use rows::{
    DeviceRow, EndpointRow, MemberRow, NodeRow, PoolRow, QueueRow, QuotaRow, ScalingRow, ScheduleRow,
    ServiceRow, UsageRow, contention_line, devices, endpoint_state, enum_word, expected_start, intent_line,
    members, reservation_state, stranded, too_full,
};
pub(crate) use table::{Column, Shown, View};
pub(crate) use time::{absolute, ago, left, now_ms, short_duration};
