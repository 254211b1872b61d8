//! `plimsoll pick`: the endpoint of a service for a request, for scripts.

use clap::Args;
use plimsoll_client::v1::{FinishPicksRequest, FinishedPick, PickEndpointRequest};
use serde_json::Value;

use crate::args::Globals;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{EndpointRow, Shown};

/// Prints the address of an endpoint, chosen by the service's policy. Where none may be given a request it ends with 1.
#[derive(Args, Debug)]
pub(crate) struct Pick {
    /// Name of the service
    #[arg(value_name = "SERVICE")]
    service: String,
    /// What ties requests together: with the policy affinity, equal keys go to one endpoint
    #[arg(long, value_name = "KEY", default_value = "")]
    affinity: String,
    /// Size of the request: tokens, bytes
    #[arg(long, value_name = "UNITS", default_value_t = 0, hide_default_value = true)]
    units: u64,
}

impl Pick {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        let request = PickEndpointRequest {
            service: self.service.clone(),
            key: self.affinity,
            input_units: self.units,
            ..PickEndpointRequest::default()
        };
        let client = globals.client()?;
        let answer = client.pick_endpoint(request).await.map_err(|error| {
            CliError::from(error).asked(format!("cannot pick an endpoint of {}", self.service))
        })?;
        // Nobody will say how the request went: it must not count as outstanding for a minute.
        let finished =
            FinishedPick { pick_id: answer.pick_id.clone(), cancelled: true, ..FinishedPick::default() };
        client.finish_picks(FinishPicksRequest { finished: vec![finished] }).await?;
        let row = EndpointRow { service: self.service, endpoint: answer.endpoint.unwrap_or_default() };
        let out = globals.out();
        if out.is_human() {
            out.emit(&format!("{}\n", row.id()))?;
        } else {
            let mut document = row.json();
            document["revision"] = Value::from(answer.revision);
            out.document(&document)?;
        }
        Ok(Exit::Done)
    }
}
