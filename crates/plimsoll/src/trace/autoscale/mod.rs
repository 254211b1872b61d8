//! Autoscaling of a recorded load: `simulate autoscale`.

mod compare;
mod report;
mod series;
mod simulation;

pub(crate) use compare::Comparison;
pub(crate) use report::Report;
pub(crate) use series::Series;
pub(crate) use simulation::{Setup, default_policy, run};
