//! How large a message and its parts may be. What is above is refused before it is looked at any further.

use std::ops::RangeInclusive;

/// Largest request, in bytes.
pub const MAX_REQUEST_BYTES: usize = 1 << 20;
/// Largest message that clients must be ready to take, in bytes: a page of 1,000 large reservations.
pub const MAX_RESPONSE_BYTES: usize = 16 << 20;
/// Most named resources in one vector of amounts.
pub const MAX_RESOURCES: usize = 256;
/// Most members of a gang.
pub const MAX_GANG_MEMBERS: u32 = 1_024;
/// Most labels of one object.
pub const MAX_LABELS: usize = 64;
/// Longest key or value of a label, in bytes.
pub const MAX_LABEL_BYTES: usize = 128;
/// Most terms of a selector, and most wishes.
pub const MAX_TERMS: usize = 64;
/// Most values of one term.
pub const MAX_TERM_VALUES: usize = 256;
/// Longest value of a term, in bytes.
pub const MAX_TERM_VALUE_BYTES: usize = 128;
/// Most GPU models in one ask.
pub const MAX_MODELS: usize = 64;
/// Longest name for people, tenant, reason or actor, in bytes.
pub const MAX_TEXT_BYTES: usize = 256;
/// Longest name of a resource, in bytes.
pub const MAX_RESOURCE_NAME_BYTES: usize = 128;
/// Most devices of one node.
pub const MAX_DEVICES: usize = 256;
/// Longest vendor's id or model of a device, in bytes.
pub const MAX_DEVICE_TEXT_BYTES: usize = 128;
/// Most requests in one batch call.
pub const MAX_BATCH: usize = 4_096;
/// Most policy objects in one call.
pub const MAX_POLICY_OBJECTS: usize = 1_024;
/// Entries of a page where the request names none.
pub const DEFAULT_PAGE_SIZE: u32 = 100;
/// Most entries of a page; more is cut to this.
pub const MAX_PAGE_SIZE: u32 = 1_000;
/// Length of an idempotency key, in characters.
pub const REQUEST_ID_LENGTH: RangeInclusive<usize> = 16..=64;
/// Largest amount of anything: sums stay far from the edge of 64 bits.
pub const MAX_AMOUNT: u64 = u64::MAX >> 1;

/// The page size to use for one that was asked.
pub fn page_size(asked: u32) -> usize {
    let size = if asked == 0 { DEFAULT_PAGE_SIZE } else { asked.min(MAX_PAGE_SIZE) };
    usize::try_from(size).unwrap_or(usize::MAX)
}

/// What is wrong with an idempotency key; `None` for a good one, and for an empty one, which is none.
pub fn check_request_id(request_id: &str) -> Option<String> {
    let length = request_id.chars().count();
    let good = REQUEST_ID_LENGTH.contains(&length) && request_id.bytes().all(|byte| byte.is_ascii_graphic());
    if request_id.is_empty() || good {
        return None;
    }
    let (least, most) = (REQUEST_ID_LENGTH.start(), REQUEST_ID_LENGTH.end());
    Some(format!(
        "must be {least} to {most} printable ASCII characters without spaces, has {length} characters"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_of_messages_are_within_those_of_the_ledger() {
        use plimsoll_ledger::limits as ledger;
        for items in [MAX_LABELS, MAX_TERMS, MAX_MODELS, MAX_RESOURCES, MAX_TERM_VALUES] {
            assert!(items <= ledger::MAX_ITEMS, "{items}");
        }
        assert_eq!((MAX_GANG_MEMBERS, MAX_DEVICES), (ledger::MAX_GANG_MEMBERS, ledger::MAX_DEVICES));
    }

    #[test]
    fn request_ids_are_16_to_64_printable_characters() {
        assert_eq!(check_request_id(""), None);
        assert_eq!(check_request_id(&"a".repeat(16)), None);
        assert_eq!(check_request_id(&"a".repeat(64)), None);
        for bad in ["short".to_owned(), "a".repeat(65), " ".repeat(20), "é".repeat(20)] {
            assert!(check_request_id(&bad).is_some(), "{bad:?}");
        }
    }

    #[test]
    fn page_sizes_have_a_default_and_a_cap() {
        assert_eq!((page_size(0), page_size(7), page_size(5_000)), (100, 7, 1_000));
    }
}
