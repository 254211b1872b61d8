//! Faults. Each strikes once when it is told to: it picks its target, breaks something, waits, and mends it again.

mod all_down;
pub mod clock;
mod fsync_error;
pub mod full_disk;
mod kill;
mod membership;
mod packets;
mod partition;
mod pause;
mod pause_client;
mod rolling;
mod slow_disk;
mod slow_network;
mod strace;
mod swap_binary;

use std::fmt;
use std::future::Future;
use std::pin::Pin;

use super::setup::Setup;
use super::stage::Stage;

/// What a strike did.
#[derive(Clone, Debug)]
pub struct Struck {
    /// To whom, for people.
    pub target: String,
}

/// Why a strike did not end well.
#[derive(Clone, Debug)]
pub enum Failed {
    /// The product did not do what it should.
    Product(String),
    /// We could not do what we wanted.
    Harness(String),
}

/// A strike in progress.
pub type Strike<'a> = Pin<Box<dyn Future<Output = Result<Struck, Failed>> + Send + 'a>>;

/// One kind of fault.
pub trait Nemesis: Send + Sync {
    /// Its name, as the command line takes it.
    fn name(&self) -> &'static str;

    /// Why this machine, or this kind of cluster, does not allow it; `None` where they do.
    fn forbidden(&self, _setup: &Setup) -> Option<String> {
        None
    }

    /// Breaks something, and mends it.
    fn strike<'a>(&'a self, stage: &'a mut Stage) -> Strike<'a>;
}

/// Every kind of fault.
pub fn all() -> Vec<Box<dyn Nemesis>> {
    let mut all: Vec<Box<dyn Nemesis>> = Vec::new();
    all.extend(kill::all());
    all.extend(pause::all());
    all.extend(partition::all());
    all.push(Box::new(pause_client::PauseClient));
    all.extend(slow_network::all());
    all.extend(packets::all());
    all.extend(clock::all());
    all.push(Box::new(slow_disk::SlowDisk));
    all.push(Box::new(fsync_error::FsyncError));
    all.extend(full_disk::all());
    all.push(Box::new(membership::Replace));
    all.push(Box::new(rolling::Rolling));
    all.push(Box::new(swap_binary::SwapBinary));
    all.push(Box::new(all_down::AllDown));
    all
}

/// The faults of these names, or all where none is named.
///
/// # Errors
/// Where a name is not one.
pub fn named(names: &[String]) -> Result<Vec<Box<dyn Nemesis>>, String> {
    let known: Vec<&str> = all().iter().map(|nemesis| nemesis.name()).collect();
    if let Some(wrong) = names.iter().find(|name| !known.contains(&name.as_str())) {
        return Err(format!("there is no nemesis {wrong:?}; there are {}", known.join(", ")));
    }
    Ok(all()
        .into_iter()
        .filter(|one| names.is_empty() || names.iter().any(|name| name == one.name()))
        .collect())
}

impl From<String> for Failed {
    fn from(why: String) -> Failed {
        Failed::Harness(why)
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failed::Product(why) => write!(f, "the product: {why}"),
            Failed::Harness(why) => write!(f, "the harness: {why}"),
        }
    }
}

/// Which member a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Leader,
    Follower,
    Anyone,
}

impl Who {
    async fn pick(self, stage: &mut Stage) -> Result<u64, String> {
        use rand::Rng;
        match self {
            Who::Leader => stage.leader().await,
            Who::Follower => stage.follower().await,
            Who::Anyone => {
                let ids = stage.ids();
                Ok(ids[stage.random.random_range(0..ids.len())])
            }
        }
    }
}
