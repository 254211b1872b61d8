//! Devices that are cut into slices.

use plimsoll_ledger::{MigLayout, MigProfile, MigSlices, ProfileName};

use super::CodecError;
use super::decode::{Result, all};
use crate::log;

pub(super) fn encode_layout(layout: &MigLayout) -> log::MigLayout {
    let profile = |profile: &MigProfile| log::MigProfile {
        name: profile.name.to_string(),
        compute_slices: profile.compute_slices.into(),
        memory_slices: profile.memory_slices.into(),
        memory_bytes: profile.memory_bytes,
        starts: profile.starts.iter().map(|start| u32::from(*start)).collect(),
    };
    log::MigLayout {
        compute_slices: layout.compute_slices.into(),
        memory_slices: layout.memory_slices.into(),
        profiles: layout.profiles.iter().map(profile).collect(),
    }
}

pub(super) fn decode_layout(from: log::MigLayout) -> Result<MigLayout> {
    let profile = |from: log::MigProfile| {
        Ok(MigProfile {
            name: decode_profile(&from.name)?,
            compute_slices: byte(from.compute_slices, "profile.compute_slices")?,
            memory_slices: byte(from.memory_slices, "profile.memory_slices")?,
            memory_bytes: from.memory_bytes,
            starts: all(from.starts, |start| byte(start, "profile.starts"))?,
        })
    };
    Ok(MigLayout {
        compute_slices: byte(from.compute_slices, "mig.compute_slices")?,
        memory_slices: byte(from.memory_slices, "mig.memory_slices")?,
        profiles: all(from.profiles, profile)?,
    })
}

pub(super) fn encode_slices(slices: &MigSlices) -> log::MigSlices {
    log::MigSlices {
        start: slices.start.into(),
        memory: slices.memory.into(),
        compute: slices.compute.into(),
    }
}

pub(super) fn decode_slices(from: log::MigSlices) -> Result<MigSlices> {
    Ok(MigSlices {
        start: byte(from.start, "slices.start")?,
        memory: byte(from.memory, "slices.memory")?,
        compute: byte(from.compute, "slices.compute")?,
    })
}

pub(super) fn decode_profile(from: &str) -> Result<ProfileName> {
    ProfileName::new(from).ok_or(CodecError::UnknownKind { what: "MIG profile" })
}

fn byte(from: u32, field: &'static str) -> Result<u8> {
    u8::try_from(from).map_err(|_| CodecError::OutOfRange { field, value: from.into() })
}
