//! One proxied connection: bytes one way and the other, each by the policy of its direction.

use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::{Inner, Pair};

/// Chunks under way at most, in one direction.
const UNDER_WAY: usize = 256;
const CHUNK_BYTES: usize = 16 << 10;

/// One direction of a connection.
struct Direction {
    inner: Arc<Inner>,
    from: Option<u64>,
    to: Option<u64>,
}

/// Carries bytes until both sides are done or the pair is reset.
pub(super) async fn both(inner: Arc<Inner>, pair: Pair, near: TcpStream, far: TcpStream) {
    for stream in [&near, &far] {
        // Without this, small messages wait for each other; the delay is ours to choose.
        drop(stream.set_nodelay(true));
    }
    let mut changes = inner.changes();
    let (near_read, near_write) = near.into_split();
    let (far_read, far_write) = far.into_split();
    let there = Direction { inner: Arc::clone(&inner), from: pair.from, to: Some(pair.to) };
    let back = Direction { inner: Arc::clone(&inner), from: Some(pair.to), to: pair.from };
    let reset = async { while !inner.is_reset(pair) && changes.changed().await.is_ok() {} };
    tokio::select! {
        () = reset => {}
        ((), ()) = async { tokio::join!(there.run(near_read, far_write), back.run(far_read, near_write)) } => {}
    }
}

impl Direction {
    async fn run(self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf) {
        let (send, mut queue) = mpsc::channel::<(Instant, Vec<u8>)>(UNDER_WAY);
        let read = async {
            let mut buffer = vec![0; CHUNK_BYTES];
            while let Ok(count) = from.read(&mut buffer).await {
                let policy = self.inner.policy(self.from, self.to);
                let jitter_ms =
                    if policy.jitter_ms == 0 { 0 } else { rand::random_range(0..=policy.jitter_ms) };
                let due = Instant::now() + Duration::from_millis(policy.delay_ms + jitter_ms);
                // An empty chunk is the end of the stream: that, too, is only known when it arrives.
                if send.send((due, buffer[..count].to_vec())).await.is_err() || count == 0 {
                    break;
                }
            }
            drop(send);
        };
        let write = async {
            let mut changes = self.inner.changes();
            while let Some((due, chunk)) = queue.recv().await {
                sleep_until(due).await;
                let mut policy = self.inner.policy(self.from, self.to);
                while policy.cut {
                    if changes.changed().await.is_err() {
                        return;
                    }
                    policy = self.inner.policy(self.from, self.to);
                }
                if to.write_all(&chunk).await.is_err() {
                    return;
                }
                if let Some(micros) = (chunk.len() as u64 * 1_000_000).checked_div(policy.bytes_per_s) {
                    sleep(Duration::from_micros(micros)).await;
                }
            }
            drop(to.shutdown().await);
        };
        // Where the reader of what we carry is gone, its sender learns it from the closed socket.
        tokio::pin!(read, write);
        tokio::select! {
            () = &mut write => {}
            () = &mut read => write.await,
        }
    }
}
