//! Rust SDK of Plimsoll: a client that follows the leader, tries again only where that is safe, and never turns "unknown"
//! into "no"; leases that renew themselves; streams with thousands of requests in flight; watches without gaps;
//! endpoints of services, chosen in this process; loads of replicas, reported from it; rates, spent in this process.
//!
//! ```no_run
//! # async fn example() -> Result<(), plimsoll_client::Error> {
//! use plimsoll_client::{Client, ClientOptions};
//!
//! let client = Client::connect(["127.0.0.1:7420"], ClientOptions::default()).await?;
//! let lease = client.pool("default").request().gpu_memory("20Gi").wait(None).acquire().await?;
//! println!("granted under token {}", lease.token());
//! lease.release().await?;
//! # Ok(())
//! # }
//! ```
//!
//! Time is tokio's and randomness comes from an [`IdSource`], so a simulation can own both.

mod answer;
mod client;
mod dial;
mod env;
mod error;
mod ids;
mod lease;
mod load;
mod options;
mod pages;
mod rate;
mod request;
mod retry;
mod route;
mod service;
mod stream;
mod verbs;
mod wait;
mod watch;

pub use client::Client;
pub use dial::{COORDINATOR_NAME, ConnectorDialer, Dialer, TcpDialer, Tls};
pub use env::workload_env;
pub use error::{Error, Refused, reason_name};
pub use ids::{IdSource, RandomIds, SeededIds};
pub use lease::{Lease, Standing};
pub use load::{LoadReporter, Served};
pub use options::ClientOptions;
pub use pages::Listed;
pub use plimsoll_endpoints::{Asked, Nobody};
pub use plimsoll_proto::{reason, v1};
pub use rate::Rate;
pub use request::{PoolHandle, RequestBuilder};
pub use retry::RetryPolicy;
pub use service::{Pick, ServicePicker};
pub use stream::{Answer, ReservationStream};
pub use watch::Watch;
