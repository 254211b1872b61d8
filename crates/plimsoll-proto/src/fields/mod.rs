//! Canonical protobuf by hand, for what is written and read by the million: straight from and into the types that it is about,
//! with no message in between.

mod reader;
mod writer;

pub use reader::Reader;
pub use writer::{Writer, written};
