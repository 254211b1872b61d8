//! Where work runs beside other work: gangs that lie near each other, and requests that keep together with or apart from others.

use plimsoll_client::v1;

use crate::rng::Rng;

/// The level that the default pool has while an operator says so; the label of nodes that it goes by.
pub const RACK: &str = "rack";
/// The level of every pool.
const NODE: &str = "node";

/// Says of some requests where their members have to lie. What is repaired may have neither groups nor rules about others.
pub(super) fn perhaps(rng: &mut Rng, spec: &mut v1::ReservationSpec) {
    let gang = spec.gang.unwrap_or(v1::Gang { min_members: 1, max_members: 1, spread: false });
    if gang.max_members > 1 && rng.percent(40) {
        let even = gang.min_members.is_multiple_of(2) && gang.max_members.is_multiple_of(2);
        let mut topology = v1::Topology::default();
        match rng.weighted(&[(5, 0), (2, 1), (3, 2), (3, 3)]).unwrap_or(0) {
            0 => topology.required = RACK.to_owned(),
            1 => topology.required = NODE.to_owned(),
            2 => topology.preferred = rng.pick(&[RACK, NODE]).copied().unwrap_or(RACK).to_owned(),
            _ if even => {
                topology.slice_size = 2;
                topology.slice_level = rng.pick(&[RACK, NODE]).copied().unwrap_or(RACK).to_owned();
                spec.repair_within_ms = 0;
            }
            _ => {
                topology.required = RACK.to_owned();
                topology.preferred = NODE.to_owned();
            }
        }
        spec.topology = Some(topology);
    }
    if rng.percent(8) {
        let value = rng.pick(&["run-1", "run-2"]).copied().unwrap_or_default().to_owned();
        let level = rng.weighted(&[(3, ""), (2, RACK)]).unwrap_or_default().to_owned();
        let weight = rng.weighted(&[(4, 0), (1, 50)]).unwrap_or(0);
        let anti = rng.percent(60);
        spec.affinity = vec![v1::Affinity { key: "run".to_owned(), value, level, weight, anti }];
        spec.repair_within_ms = 0;
    }
}
