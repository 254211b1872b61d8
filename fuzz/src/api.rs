//! Messages of the API: decoded, checked, turned into the ledger's own values, and back.

use std::fmt::Debug;

use plimsoll_proto::convert::{
    policy_name_from_v1, policy_object_from_v1, policy_object_to_v1, registration_from_v1,
    registration_to_v1, request_from_v1, request_to_v1, requirements_from_v1, requirements_to_v1,
    resources_from_v1, resources_to_v1, selector_from_v1,
};
use plimsoll_proto::v1;
use prost::Message;

use crate::choices::Choices;

/// Decodes the bytes after the first as the message that the first says.
pub fn run(input: &[u8]) {
    let mut choices = Choices::new(input);
    let kind = choices.below(8);
    let bytes = choices.rest();
    match kind {
        0 => there_and_back(bytes, request_from_v1, request_to_v1),
        1 => there_and_back(bytes, registration_from_v1, registration_to_v1),
        2 => there_and_back(bytes, policy_object_from_v1, policy_object_to_v1),
        3 => there_and_back(bytes, requirements_from_v1, requirements_to_v1),
        4 => there_and_back(bytes, resources_from_v1, resources_to_v1),
        5 => {
            if let Ok(message) = v1::PolicyName::decode(bytes) {
                let _ = policy_name_from_v1(&message);
            }
        }
        6 => {
            if let Ok(message) = v1::NodeSelectorTerm::decode(bytes) {
                let _ = selector_from_v1(&[message]);
            }
        }
        _ => {
            // Whole calls, nested as deep as the schema goes.
            let _ = v1::StreamReservationsRequest::decode(bytes);
            let _ = v1::BatchCreateReservationsRequest::decode(bytes);
            let _ = v1::ApplyPolicyRequest::decode(bytes);
        }
    }
}

/// What is accepted comes back the same through its own message; what is refused is refused with at least one reason.
fn there_and_back<M, T, E>(bytes: &[u8], from: fn(&M) -> Result<T, Vec<E>>, to: fn(&T) -> M)
where
    M: Message + Default + Debug,
    T: Debug + PartialEq,
    E: Debug + PartialEq,
{
    let Ok(message) = M::decode(bytes) else { return };
    match from(&message) {
        Ok(value) => assert_eq!(from(&to(&value)), Ok(value), "from {message:?}"),
        Err(violations) => assert!(!violations.is_empty(), "{message:?} is refused without a reason"),
    }
}

/// Messages of what the ledger's sequences ask for.
pub fn seeds() -> Vec<Vec<u8>> {
    let mut seeds = Vec::new();
    for input in crate::ledger::seeds() {
        for entry in crate::ledger::entries(&input) {
            use plimsoll_ledger::Command;
            let (kind, message) = match entry.command {
                Command::Submit { request, .. } => (0, request_to_v1(&request).encode_to_vec()),
                Command::RegisterNode(registration) => (1, registration_to_v1(&registration).encode_to_vec()),
                Command::ApplyPolicy { put, .. } => match put.first() {
                    Some(object) => (2, policy_object_to_v1(object).encode_to_vec()),
                    None => continue,
                },
                _ => continue,
            };
            seeds.push([vec![kind], message].concat());
        }
    }
    seeds
}
