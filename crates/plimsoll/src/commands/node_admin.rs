//! The operator's word on nodes: cordon, uncordon, drain; fence, fail, remove, devices.

use std::time::Duration;

use clap::{Args, Subcommand};
use plimsoll_client::v1::{
    CordonNodeRequest, DrainNodeRequest, FailNodeRequest, FenceNodeRequest, InterruptNodeRequest,
    RemoveNodeRequest, SetDeviceHealthRequest, UncordonNodeRequest,
};

use crate::args::{Globals, duration};
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::NodeRow;

/// Keeps new work off nodes.
#[derive(Args, Debug)]
pub(crate) struct Cordon {
    /// Nodes
    #[arg(value_name = "NODE", required = true)]
    names: Vec<String>,
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Lets new work on nodes again.
#[derive(Args, Debug)]
pub(crate) struct Uncordon {
    /// Nodes
    #[arg(value_name = "NODE", required = true)]
    names: Vec<String>,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Keeps new work off nodes and has them emptied.
#[derive(Args, Debug)]
pub(crate) struct Drain {
    /// Nodes
    #[arg(value_name = "NODE", required = true)]
    names: Vec<String>,
    /// End what still runs after so long
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    deadline: Option<Duration>,
    /// Why, for whoever wonders
    #[arg(long, value_name = "TEXT", default_value = "")]
    reason: String,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// Says that the provider of nodes takes them back.
#[derive(Args, Debug)]
pub(crate) struct Interrupt {
    /// Nodes
    #[arg(value_name = "NODE", required = true)]
    names: Vec<String>,
    /// They go after so long
    #[arg(long = "in", value_name = "DURATION", value_parser = duration, default_value = "2m")]
    within: Duration,
    /// Decide, but change nothing
    #[arg(long)]
    dry_run: bool,
}

/// The operator's further words on nodes.
#[derive(Args, Debug)]
pub(crate) struct Node {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Say that a silent node is off, so that what it held is free again
    Fence {
        /// The node
        name: String,
        /// Epoch that you looked at; refused where it has registered anew since
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        epoch: u64,
    },
    /// Say that a node is broken
    Fail {
        /// The node
        name: String,
        /// Epoch that you looked at; refused where it has registered anew since
        #[arg(long, default_value_t = 0, hide_default_value = true)]
        epoch: u64,
    },
    /// Take a node out of the ledger
    #[command(alias = "rm")]
    Remove {
        /// The node
        name: String,
    },
    /// Say whether a device may be granted
    Device {
        /// The node
        name: String,
        /// Vendor's id of the device
        uuid: String,
        /// It may not
        #[arg(long, required_unless_present = "healthy", conflicts_with = "healthy")]
        failed: bool,
        /// It may
        #[arg(long)]
        healthy: bool,
    },
}

impl Cordon {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let mut nodes = Vec::new();
        for name in self.names {
            let asked = format!("cannot cordon {name}");
            let request = CordonNodeRequest {
                name,
                reason: self.reason.clone(),
                validate_only: self.dry_run,
                ..CordonNodeRequest::default()
            };
            let answer =
                client.cordon_node(request).await.map_err(|error| CliError::from(error).asked(asked))?;
            nodes.extend(answer.node);
        }
        show(globals, &nodes, "Cordoned", self.dry_run)
    }
}

impl Uncordon {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let mut nodes = Vec::new();
        for name in self.names {
            let asked = format!("cannot uncordon {name}");
            let request =
                UncordonNodeRequest { name, validate_only: self.dry_run, ..UncordonNodeRequest::default() };
            let answer =
                client.uncordon_node(request).await.map_err(|error| CliError::from(error).asked(asked))?;
            nodes.extend(answer.node);
        }
        show(globals, &nodes, "Uncordoned", self.dry_run)
    }
}

impl Drain {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let mut nodes = Vec::new();
        for name in self.names {
            let asked = format!("cannot drain {name}");
            let request = DrainNodeRequest {
                name,
                reason: self.reason.clone(),
                deadline_ms: self
                    .deadline
                    .map_or(0, |end| u64::try_from(end.as_millis()).unwrap_or(u64::MAX)),
                validate_only: self.dry_run,
                ..DrainNodeRequest::default()
            };
            let answer =
                client.drain_node(request).await.map_err(|error| CliError::from(error).asked(asked))?;
            nodes.extend(answer.node);
        }
        show(globals, &nodes, "Draining", self.dry_run)
    }
}

impl Interrupt {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let mut nodes = Vec::new();
        for name in self.names {
            let asked = format!("cannot interrupt {name}");
            let request = InterruptNodeRequest {
                name,
                in_ms: u64::try_from(self.within.as_millis()).unwrap_or(u64::MAX),
                validate_only: self.dry_run,
                ..InterruptNodeRequest::default()
            };
            let answer =
                client.interrupt_node(request).await.map_err(|error| CliError::from(error).asked(asked))?;
            nodes.extend(answer.node);
        }
        show(globals, &nodes, "Gave notice of", self.dry_run)
    }
}

impl Node {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        match self.verb {
            Verb::Fence { name, epoch } => {
                let asked = format!("cannot fence {name}");
                let request = FenceNodeRequest { name, epoch, ..FenceNodeRequest::default() };
                let answer =
                    client.fence_node(request).await.map_err(|error| CliError::from(error).asked(asked))?;
                show(globals, &Vec::from_iter(answer.node), "Fenced", false)
            }
            Verb::Fail { name, epoch } => {
                let asked = format!("cannot fail {name}");
                let request = FailNodeRequest { name, epoch, ..FailNodeRequest::default() };
                let answer =
                    client.fail_node(request).await.map_err(|error| CliError::from(error).asked(asked))?;
                show(globals, &Vec::from_iter(answer.node), "Failed", false)
            }
            Verb::Remove { name } => {
                let asked = format!("cannot remove {name}");
                let request = RemoveNodeRequest { name: name.clone(), ..RemoveNodeRequest::default() };
                client.remove_node(request).await.map_err(|error| CliError::from(error).asked(asked))?;
                globals.out().done(&format!("Removed {name}"));
                Ok(Exit::Done)
            }
            Verb::Device { name, uuid, failed, healthy: _ } => {
                let asked = format!("cannot change device {uuid} of {name}");
                let request =
                    SetDeviceHealthRequest { name, uuid, failed, ..SetDeviceHealthRequest::default() };
                let answer = client
                    .set_device_health(request)
                    .await
                    .map_err(|error| CliError::from(error).asked(asked))?;
                show(globals, &Vec::from_iter(answer.node), "Changed a device of", false)
            }
        }
    }
}

fn show(
    globals: &Globals,
    nodes: &[plimsoll_client::v1::Node],
    done: &str,
    dry_run: bool,
) -> Result<Exit, CliError> {
    let out = globals.out();
    let rows: Vec<NodeRow> = nodes.iter().cloned().map(NodeRow::from).collect();
    out.list(&rows, None)?;
    let names: Vec<&str> = nodes.iter().map(|node| node.id.as_str()).collect();
    let would = if dry_run { " (nothing was changed)" } else { "" };
    out.done(&format!("{done} {}{would}", names.join(", ")));
    Ok(Exit::Done)
}
