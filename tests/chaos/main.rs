//! Chaos on real processes: the smoke, leases and fencing, and the judges' own tests.

mod fencing;
mod judges;
mod packets;
mod smoke;
