//! Strategies that make any ledger value, for round trips; and valid requests and policy objects, for the API.

mod contention;
mod entry;
mod eviction;
mod node;
mod policy;
mod request;
mod reservation;
mod row;
mod scale;
mod service;
mod spot;
mod usage;

use plimsoll_types::{Amount, Labels, Resources};
use proptest::collection::btree_map;
use proptest::prelude::*;

pub(crate) use entry::entry;
pub(crate) use policy::valid_policy_object;
pub(crate) use request::valid_request;
pub(crate) use row::{answer, outcome, row};
pub(crate) use usage::usage_key;

/// Numbers with many small ones and both ends.
fn number() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..200u64, any::<u64>(), Just(0), Just(u64::MAX)]
}

fn amount() -> impl Strategy<Value = u64> + Clone {
    prop_oneof![0..200u64, 0..(u64::MAX >> 1)]
}

fn text() -> impl Strategy<Value = String> {
    "[a-zäß /-]{0,8}"
}

fn name() -> impl Strategy<Value = String> {
    "[a-z0-9]([-._a-z0-9]{0,6}[a-z0-9])?"
}

fn hash() -> impl Strategy<Value = [u8; 32]> {
    prop_oneof![Just([0; 32]), any::<[u8; 32]>()]
}

fn labels() -> impl Strategy<Value = Labels> {
    btree_map("[a-z]{1,5}", "[a-z0-9]{0,5}", 0..4)
}

fn resources() -> impl Strategy<Value = Resources> {
    let other = btree_map("(license|storage)/[a-z]{1,4}", 1..(u64::MAX >> 1), 0..3);
    (amount(), amount(), other).prop_map(|(cpu, memory, other)| {
        let other = other.into_iter().map(|(name, amount)| (name, Amount(amount))).collect();
        Resources { other, ..Resources::new(cpu, memory) }
    })
}
