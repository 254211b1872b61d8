//! Resource names: `pools/{pool}/reservations/{id}`, `nodes/{node}`, and their short forms.

use std::ops::RangeInclusive;

use plimsoll_ledger::Ledger;
use plimsoll_types::ReservationId;

use super::problem::Problem;

/// Digits of the longest reservation id.
const MOST_DIGITS: usize = 14;
/// Ids named where a prefix is ambiguous.
const MOST_NAMED: usize = 5;

/// A reservation by id or resource name.
pub(crate) fn reservation(name: &str) -> Result<ReservationId, Problem> {
    let id = short_id(name)?;
    id.parse().map_err(|error: plimsoll_types::IdError| Problem::invalid("name", error.to_string()))
}

/// A reservation of the ledger by id, unique prefix of an id, or resource name.
pub(crate) fn find_reservation(ledger: &Ledger, name: &str) -> Result<ReservationId, Problem> {
    let id = short_id(name)?;
    if let Ok(id) = id.parse::<ReservationId>()
        && ledger.reservation(id).is_some()
    {
        return Ok(id);
    }
    let mut found = Vec::new();
    for range in prefix_ranges(id) {
        let matches = ledger.reservations_from(*range.start()).map(|reservation| reservation.id);
        found.extend(matches.take_while(|id| range.contains(id)).take(MOST_NAMED));
    }
    found.truncate(MOST_NAMED);
    match found[..] {
        [] => Err(Problem::not_found("reservation", id)),
        [only] => Ok(only),
        _ => {
            let named: Vec<String> = found.iter().map(ToString::to_string).collect();
            Err(Problem::invalid(
                "name",
                format!("{id:?} is the beginning of several ids: {}", named.join(", ")),
            ))
        }
    }
}

/// A plain object name, with or without its collection in front: `nodes/node-01` or `node-01`.
pub(crate) fn object<'a>(collection: &str, name: &'a str) -> Result<&'a str, Problem> {
    let rest = name.strip_prefix(collection).and_then(|rest| rest.strip_prefix('/'));
    let bare = rest.unwrap_or(name);
    plimsoll_types::check_name(bare).map_err(|error| Problem::invalid("name", error.to_string()))?;
    Ok(bare)
}

/// The id in a resource name.
fn short_id(name: &str) -> Result<&str, Problem> {
    if name.is_empty() {
        return Err(Problem::invalid("name", "is missing: give a reservation id, as in r-7k2m"));
    }
    let mut parts = name.split('/');
    match (parts.next(), parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(id), None, ..) => Ok(id),
        (Some("pools"), Some(_), Some("reservations"), Some(id), None) => Ok(id),
        _ => Err(Problem::invalid(
            "name",
            format!("{name:?} is neither an id nor pools/{{pool}}/reservations/{{id}}"),
        )),
    }
}

/// Ids that begin with a prefix such as `r-7k`, in ascending order: one range for each length.
fn prefix_ranges(prefix: &str) -> Vec<RangeInclusive<ReservationId>> {
    let Some(digits) = prefix.strip_prefix("r-").filter(|digits| !digits.is_empty()) else {
        return Vec::new();
    };
    let filled = |length: usize, with: &str| {
        let more = with.repeat(length - digits.len());
        format!("r-{digits}{more}").parse::<ReservationId>()
    };
    (digits.len().max(4)..=MOST_DIGITS)
        .filter_map(|length| {
            let first = filled(length, "0").ok()?;
            // Above the largest id of this length there is only the end of the numbers.
            let last = filled(length, "z").unwrap_or(ReservationId(u64::MAX));
            Some(first..=last)
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_and_resource_names_are_read() {
        let id = ReservationId(30);
        assert_eq!(reservation("r-0010").expect("an id"), id);
        assert_eq!(reservation("pools/gpu/reservations/r-0010").expect("a name"), id);
        for bad in ["", "0010", "pools/gpu/r-0010", "r-0010/x", "r-00"] {
            assert!(reservation(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_covers_every_length() {
        let contains = |prefix: &str, id: u64| {
            prefix_ranges(prefix).iter().any(|range| range.contains(&ReservationId(id)))
        };
        let id: ReservationId = "r-7k2m".parse().expect("an id");
        let longer: ReservationId = "r-7k2m9".parse().expect("an id");
        assert!(contains("r-7", id.0) && contains("r-7k2m", id.0) && contains("r-7k2", longer.0));
        assert!(!contains("r-8", id.0) && !contains("7k", id.0) && !contains("r-", id.0));
        assert!(contains("r-0", 1), "short ids begin with zeros");
    }

    #[test]
    fn objects_may_be_named_with_their_collection() {
        assert_eq!(object("nodes", "nodes/node-01").expect("a name"), "node-01");
        assert_eq!(object("nodes", "node-01").expect("a name"), "node-01");
        assert!(object("nodes", "pools/a").is_err());
    }
}
