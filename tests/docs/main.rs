//! The documentation is tested: its code blocks run, and its reference pages are compared with what they describe.
//!
//! `PLIMSOLL_UPDATE_DOCS=1` lets the reference pages that can be written from the program be written anew.

mod blocks;
mod checker;
mod cli;
mod encoding;
mod errors;
mod examples;
mod exit_codes;
mod links;
mod metrics;
mod page;
mod session;
mod shell;
mod strategies;
