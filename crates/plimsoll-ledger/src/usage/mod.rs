//! Limits, budgets and rates: who may have how many grants at a time, how much in a day or a month, and how fast.
//!
//! A quota (`QuotaPolicy`) names whom it is about and gives limits to *meters*: what is counted ([`Measure`]), for whom ([`Scope`]), and when
//! it starts anew ([`Reset`]). What a grant takes of each is *committed* when it is granted, for the time it may last, and trued up when it
//! ends: `spent + committed` never passes the limit. Everything is in integers; only ledger time moves a period on.

mod book;
mod calendar;
mod checks;
mod fade;
mod ledger;
mod meter;
mod policy;
mod priced;
mod rate;
mod tab;
mod tabs;
mod tier;

pub use book::{Usage, UsageBook, UsageKey, UsageOf};
pub use calendar::{date_of, month_of};
pub use ledger::Seen;
pub use meter::{Measure, Meter, Reset, Scope};
pub use policy::{QuotaPolicy, matches_pattern};
pub(crate) use priced::OddPrices;
pub use priced::Priced;
pub use rate::{Rate, Tokens};
pub use tab::{Charge, MICRO, Tab, price_per_hour};
pub use tier::Tier;

pub(crate) use checks::validate_quota;
pub(crate) use ledger::user_of;
pub(crate) use policy::{QuotaIndex, REQUESTS};
pub(crate) use tier::TIERS_SINCE_VERSION;
