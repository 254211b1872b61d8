//! `plimsoll announce`: where a replica of a service listens, for programs that are not started by `plimsoll run`.

use clap::Args;
use plimsoll_client::v1::{Endpoint, SetEndpointRequest};
use plimsoll_types::quantity::parse_cpu_millis;

use super::lifecycle::look_up;
use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;

/// Says where a replica of a service listens, that it drains, or that it listens no more.
#[derive(Args, Debug)]
pub(crate) struct Announce {
    /// Its reservation: r-7k2m
    #[arg(value_name = "ID")]
    id: String,
    /// Where it listens: HOST:PORT. Without it: where it said before
    #[arg(long, value_name = "HOST:PORT")]
    listen: Option<String>,
    /// Part of the network that it is in
    #[arg(long, value_name = "ZONE")]
    zone: Option<String>,
    /// Share of the requests beside other endpoints': 1, 0.5; 0 for none
    #[arg(long, value_name = "WEIGHT")]
    weight: Option<String>,
    /// Level: those of level 0 are used first
    #[arg(long, value_name = "LEVEL")]
    priority: Option<u32>,
    /// Requests that it serves at once
    #[arg(long, value_name = "N")]
    concurrency: Option<u32>,
    /// It finishes what it has and takes nothing new
    #[arg(long)]
    drain: bool,
    /// It listens no more
    #[arg(long, conflicts_with_all = ["listen", "zone", "weight", "priority", "concurrency", "drain"])]
    withdraw: bool,
    /// Its fencing token; without it that of the present grant
    #[arg(long, value_name = "TOKEN")]
    token: Option<u64>,
}

impl Announce {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let client = globals.client()?;
        let asked = |error| CliError::from(error).asked(format!("cannot announce {}", self.id));
        let reservation = look_up(&client, &self.id, globals).await.map_err(asked)?;
        let endpoint = if self.withdraw { None } else { Some(self.endpoint(reservation.endpoint.as_ref())?) };
        let request = SetEndpointRequest {
            name: reservation.name.clone(),
            token: self.token.unwrap_or(reservation.token),
            endpoint,
            ..SetEndpointRequest::default()
        };
        let after = client.set_endpoint(request).await.map_err(asked)?.reservation.unwrap_or_default();
        let out = globals.out();
        out.one(&after)?;
        let service = after.spec.as_ref().map(|spec| spec.service.clone()).unwrap_or_default();
        match &after.endpoint {
            None => out.done(&format!("{} is no endpoint of {service} any more", after.id)),
            Some(endpoint) if endpoint.draining => {
                out.done(&format!("{} of {service} at {} takes nothing new", after.id, endpoint.address));
            }
            Some(endpoint) => {
                out.done(&format!("{} is an endpoint of {service} at {}", after.id, endpoint.address));
            }
        }
        Ok(Exit::Done)
    }

    /// What is said now on top of what was said before.
    fn endpoint(&self, known: Option<&Endpoint>) -> Result<Endpoint, CliError> {
        let mut endpoint = known.cloned().unwrap_or_default();
        endpoint.draining = self.drain;
        if let Some(address) = &self.listen {
            endpoint.address.clone_from(address);
        }
        if endpoint.address.is_empty() {
            return Err(CliError::usage(format!("{} has said nothing yet of where it listens", self.id))
                .help(format!("plimsoll announce {} --listen HOST:PORT", self.id)));
        }
        if let Some(zone) = &self.zone {
            endpoint.zone.clone_from(zone);
        }
        if let Some(weight) = &self.weight {
            let milli = parse_cpu_millis(weight)?;
            endpoint.weight_milli = Some(u32::try_from(milli).unwrap_or(u32::MAX));
        }
        endpoint.priority = self.priority.unwrap_or(endpoint.priority);
        endpoint.concurrency = self.concurrency.unwrap_or(endpoint.concurrency);
        Ok(endpoint)
    }
}
