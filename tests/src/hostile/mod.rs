//! What the hostile tests are made of: a coordinator process with limits of the test's choosing, connections that send whatever
//! bytes they like, and a well-behaved client beside them that must never notice.

mod authority;
mod pulse;
mod rude;
mod target;
mod wire;

pub use authority::Authority;
pub use pulse::{Beats, Pulse};
pub use rude::{Answer, Rude, framed};
pub use target::Target;
pub use wire::{Ended, Frame, Wire, frame, kind, request_head};
