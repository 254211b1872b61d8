//! Small grants, as scenarios make them to load a cluster and to feel its pulse.

use std::time::Instant;

use plimsoll_client::{Client, v1};

/// Lease of the grants that are given back at once, in milliseconds.
const SHORT_MS: u64 = 600_000;

/// A request for a thousandth of a core.
pub(super) fn one_thousandth(name: &str, ttl_ms: u64) -> v1::CreateReservationRequest {
    let amounts = v1::Quantities { cpu_millis: 1, ..Default::default() };
    let spec = v1::ReservationSpec {
        name: name.to_owned(),
        requirements: Some(v1::Requirements { amounts: Some(amounts), ..Default::default() }),
        ttl_ms,
        auto_confirm: true,
        ..Default::default()
    };
    // Each part of a batch has a key of its own, which the SDK gives it.
    v1::CreateReservationRequest { spec: Some(spec), ..Default::default() }
}

/// True where a part of a batch was granted.
pub(super) fn granted(one: &v1::BatchCreateReservationsResult) -> bool {
    matches!(one.result, Some(v1::batch_create_reservations_result::Result::Response(_)))
}

/// Times of grants that are given back at once, in microseconds.
pub(super) async fn probe(client: &Client, count: usize) -> Result<Vec<u64>, String> {
    let mut times = Vec::new();
    for _ in 0..count {
        let began = Instant::now();
        let made = client.create_reservation(one_thousandth("probe", SHORT_MS)).await;
        let made = made.map_err(|error| format!("a probe: {error}"))?;
        times.push(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX));
        let made = made.reservation.ok_or("no reservation")?;
        let request =
            v1::ReleaseReservationRequest { name: made.id, token: made.token, ..Default::default() };
        client.release_reservation(request).await.map_err(|error| format!("giving back: {error}"))?;
    }
    Ok(times)
}
