//! Ports for processes that are killed and come back at the same address.

use std::net::TcpListener;
use std::sync::atomic::{AtomicU32, Ordering};

/// Below the range from which the kernel takes ports of outgoing connections: a client could otherwise sit on the port of a coordinator
/// that was just killed, and it could not come back.
const FIRST: u32 = 18_000;
const COUNT: u32 = 12_000;

static NEXT: AtomicU32 = AtomicU32::new(0);

/// A port of 127.0.0.1 that nobody listens on now.
///
/// # Panics
/// Where none of a thousand tries is free.
pub fn free() -> u16 {
    // Test processes start from different places, by their ids.
    let start = std::process::id().wrapping_mul(97);
    for _ in 0..1_000 {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).expect("below 65,536");
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no free port between {FIRST} and {}", FIRST + COUNT);
}
