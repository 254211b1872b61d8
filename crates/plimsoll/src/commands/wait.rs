//! `plimsoll wait`.

use std::time::Duration;

use clap::Args;
use plimsoll_client::v1::ReservationState;

use crate::args::Globals;
use crate::commands::lifecycle::look_up;
use crate::error::CliError;
use crate::exit::Exit;
use crate::output::{places, reservation_state};

/// Waits until a reservation is granted. With --timeout it ends with 124 where that ran out.
#[derive(Args, Debug)]
pub(crate) struct Wait {
    /// Reservation: id, unique prefix of an id, or resource name
    #[arg(value_name = "RESERVATION")]
    name: String,
}

impl Wait {
    pub(crate) async fn run(self, globals: &Globals) -> Result<Exit, CliError> {
        // --timeout is the length of the wait here, not that of each call.
        let calls = Globals { timeout: None, ..globals.clone() };
        let client = calls.client_with(Duration::from_secs(30))?;
        let present = look_up(&client, &self.name, globals).await?;
        let reservation = client.wait_reservation(&present.id, globals.timeout, |_| {}).await?;
        let out = globals.out();
        out.one(&reservation)?;
        let id = &reservation.id;
        match reservation.state() {
            ReservationState::Pending | ReservationState::Planned => {
                out.say(&format!("{id} still waits"));
                Ok(Exit::TimedOut)
            }
            ReservationState::Held | ReservationState::Active | ReservationState::Partial => {
                out.done(&format!("{id} is granted on {}", places(&reservation.allocations)));
                Ok(Exit::Done)
            }
            state => {
                out.say(&format!("{id} is {}", reservation_state(state)));
                Ok(Exit::Refused)
            }
        }
    }
}
