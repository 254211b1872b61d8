//! The providers that a coordinator acts by: only those that it was started with. A policy may name any, and whoever may put a policy may not
//! run what he likes on the coordinators' machines.

use std::path::PathBuf;
use std::sync::Arc;

use plimsoll_ledger::ProviderKind;

use crate::exec::Exec;
use crate::external_grpc::{ExternalGrpc, Groups};
use crate::process::Process;
use crate::webhook::Webhook;
use crate::{Machines, ProviderError, Providers};

/// What a coordinator may do to start and stop machines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ProviderSettings {
    /// Processes on this machine: the program that runs agents and replicas. `None`: not by that.
    pub process: Option<PathBuf>,
    /// The folder of the programs that it may run. `None`: none.
    pub exec_dir: Option<PathBuf>,
    /// It may call webhooks.
    pub webhook: bool,
    /// It may call servers of the external gRPC protocol.
    pub external_grpc: bool,
}

/// Providers that really act.
#[derive(Debug, Default)]
pub struct RealProviders {
    settings: ProviderSettings,
    groups: Arc<Groups>,
}

impl RealProviders {
    /// Those that the settings allow.
    pub fn new(settings: ProviderSettings) -> RealProviders {
        RealProviders { settings, groups: Arc::default() }
    }
}

impl Providers for RealProviders {
    fn machines(&self, kind: &ProviderKind) -> Result<Arc<dyn Machines>, ProviderError> {
        let closed = |word: &str| {
            ProviderError::never(format!("this coordinator was not started with --scaling-provider {word}"))
        };
        let settings = &self.settings;
        Ok(match kind {
            ProviderKind::Process => {
                let program = settings.process.clone().ok_or_else(|| closed("process"))?;
                Arc::new(Process::new(program))
            }
            ProviderKind::Exec { command, args } => {
                let folder = settings.exec_dir.as_ref().ok_or_else(|| closed("exec=DIR"))?;
                Arc::new(Exec::new(folder, command, args)?)
            }
            ProviderKind::Webhook { url } if settings.webhook => Arc::new(Webhook::new(url)?),
            ProviderKind::Webhook { .. } => return Err(closed("webhook")),
            ProviderKind::ExternalGrpc { address, group } if settings.external_grpc => {
                Arc::new(ExternalGrpc::new(address, group, Arc::clone(&self.groups))?)
            }
            ProviderKind::ExternalGrpc { .. } => return Err(closed("externalgrpc")),
        })
    }
}
