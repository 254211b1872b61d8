//! How a client behaves: deadlines, retries, and where its connections and ids come from.

use std::sync::Arc;
use std::time::Duration;

use crate::dial::{Dialer, TcpDialer, Tls};
use crate::ids::{IdSource, RandomIds};
use crate::retry::RetryPolicy;

/// How a client behaves.
#[derive(Clone)]
pub struct ClientOptions {
    /// Longest time for a call with all its retries.
    pub timeout: Duration,
    /// Longest time for one attempt; another coordinator is asked afterwards.
    pub attempt_timeout: Duration,
    /// Give up a call early where no coordinator takes connections for so long; `None`: try until the deadline.
    pub unreachable_after: Option<Duration>,
    /// Spacing and number of retries.
    pub retry: RetryPolicy,
    /// Where connections come from.
    pub dialer: Arc<dyn Dialer>,
    /// Where request ids and jitter come from.
    pub ids: Arc<dyn IdSource>,
}

impl ClientOptions {
    /// The defaults with TLS.
    pub fn with_tls(tls: Option<Tls>) -> ClientOptions {
        ClientOptions { dialer: Arc::new(TcpDialer::new(tls)), ..ClientOptions::default() }
    }

    /// The same with another deadline for calls.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> ClientOptions {
        self.timeout = timeout;
        self
    }
}

impl Default for ClientOptions {
    fn default() -> ClientOptions {
        ClientOptions {
            timeout: Duration::from_secs(30),
            attempt_timeout: Duration::from_secs(5),
            unreachable_after: None,
            retry: RetryPolicy::default(),
            dialer: Arc::new(TcpDialer::default()),
            ids: Arc::new(RandomIds),
        }
    }
}

impl std::fmt::Debug for ClientOptions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ClientOptions")
            .field("timeout", &self.timeout)
            .field("attempt_timeout", &self.attempt_timeout)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}
