//! The command as a replica of a service: announced once it listens, draining as soon as it is to stop.

use std::time::Duration;

use plimsoll_client::v1::{Endpoint, SetEndpointRequest};
use plimsoll_client::{Client, Lease};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::output::Out;

/// Between two looks whether it listens yet.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// One start of the command. Dropping it ends the look for its port; its lease takes the endpoint away.
pub(super) struct Replica {
    client: Client,
    name: String,
    token: u64,
    address: String,
    looking: JoinHandle<()>,
}

impl Replica {
    /// Announces the address once somebody listens there.
    pub(super) fn watch(client: &Client, lease: &Lease, address: &str, out: &Out) -> Replica {
        let (name, token) = (lease.reservation().name, lease.token());
        let (client, address) = (client.clone(), address.to_owned());
        let looking = {
            let (client, name, address, out) = (client.clone(), name.clone(), address.clone(), out.clone());
            tokio::spawn(async move {
                while TcpStream::connect(&address).await.is_err() {
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                match client.set_endpoint(request(name, token, &address, false)).await {
                    Ok(_) => out.say(&format!("serving at {address}")),
                    Err(error) => {
                        out.say(&format!("{} cannot announce {address}: {error}", out.paint.bad("error:")))
                    }
                }
            })
        };
        Replica { client, name, token, address, looking }
    }

    /// It is to stop: it takes nothing new. Where this fails the end of its lease says it. False where nobody was told of it yet.
    pub(super) fn drain(&self) -> bool {
        if !self.looking.is_finished() {
            // It was never announced, and is not any more.
            self.looking.abort();
            return false;
        }
        let client = self.client.clone();
        let request = request(self.name.clone(), self.token, &self.address, true);
        tokio::spawn(async move { client.set_endpoint(request).await });
        true
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.looking.abort();
    }
}

fn request(name: String, token: u64, address: &str, draining: bool) -> SetEndpointRequest {
    let endpoint = Endpoint { address: address.to_owned(), draining, ..Endpoint::default() };
    SetEndpointRequest { name, token, endpoint: Some(endpoint), ..SetEndpointRequest::default() }
}
