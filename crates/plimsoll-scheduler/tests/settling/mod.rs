//! Random clusters on which others are made to leave by every rule that there is, what happens on them, and who may ask whom to leave.

pub(crate) mod asks;
pub(crate) mod law;
pub(crate) mod play;
pub(crate) mod tally;
pub(crate) mod worlds;
