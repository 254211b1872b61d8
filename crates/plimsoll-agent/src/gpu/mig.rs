//! Boards that are cut into MIG instances: which instances may be made of them, and where.
//!
//! Names follow NVIDIA's rule (go-nvlib, `pkg/nvlib/device/mig_profile.go`): compute slices, then the instance's part of the memory, rounded up
//! to eighths, of the board's memory in whole GiB. The sizes and starts of simulated boards are those that `nvidia-smi mig -lgip` and `-lgipp`
//! print for the A100 and H100 (profiles 19, 15, 14, 9, 5 and 0), and the table "A30 MIG Profiles" of the MIG User Guide. Profiles with media
//! engines (`+me`) are left out: of these a board has fewer than it has room for, which starts and slices do not say.

use serde::{Deserialize, Serialize};

/// One gibibyte, in bytes.
const GIB: u64 = 1 << 30;

/// Simulated boards that are cut as an A100 is: seven compute and eight memory slices.
const CUT_IN_EIGHT: [&str; 5] = ["a100", "a100-40gb", "h100", "h20", "h200"];

/// How a board is cut.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigBoard {
    /// Compute slices of the board.
    pub compute_slices: u32,
    /// Memory slices of the board.
    pub memory_slices: u32,
    /// Instances that may be made.
    pub profiles: Vec<MigKind>,
}

/// A kind of instance.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigKind {
    /// Name, such as `1g.10gb`.
    pub name: String,
    /// Compute slices of one.
    pub compute_slices: u32,
    /// Memory slices of one.
    pub memory_slices: u32,
    /// Memory of one, in bytes.
    pub memory_bytes: u64,
    /// First memory slices that one may have, ascending.
    pub starts: Vec<u32>,
}

/// A profile as a driver tells it: compute slices, bytes, and for each place start and size in memory slices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) compute_slices: u32,
    pub(super) memory_bytes: u64,
    pub(super) places: Vec<(u32, u32)>,
}

impl MigBoard {
    /// A simulated board of this model that is cut; `None` where it is not known how.
    pub fn simulated(model: &str, memory_bytes: u64) -> Option<MigBoard> {
        let of = |slices: u64| move |size: u64| memory_bytes / slices * size;
        let told = |compute_slices: u32, memory_bytes: u64, starts: &[u32], size: u32| Told {
            compute_slices,
            memory_bytes,
            places: starts.iter().map(|start| (*start, size)).collect(),
        };
        let all = if CUT_IN_EIGHT.contains(&model) {
            let part = of(8);
            vec![
                told(1, part(1), &[0, 1, 2, 3, 4, 5, 6], 1),
                told(1, part(2), &[0, 2, 4, 6], 2),
                told(2, part(2), &[0, 2, 4], 2),
                told(3, part(4), &[0, 4], 4),
                told(4, part(4), &[0], 4),
                told(7, part(8), &[0], 8),
            ]
        } else if model == "a30" {
            let part = of(4);
            vec![told(1, part(1), &[0, 1, 2, 3], 1), told(2, part(2), &[0, 2], 2), told(4, part(4), &[0], 4)]
        } else {
            return None;
        };
        MigBoard::of(memory_bytes, memory_bytes, all)
    }

    /// What a driver tells of a board with `total_bytes` of memory, of which `memory_bytes` may be granted; `None` where that is nothing.
    pub(super) fn of(total_bytes: u64, memory_bytes: u64, told: Vec<Told>) -> Option<MigBoard> {
        let compute_slices = told.iter().map(|one| one.compute_slices).max()?;
        let ends = told.iter().flat_map(|one| &one.places).map(|(start, size)| start + size);
        let memory_slices = ends.max().filter(|slices| *slices > 0)?;
        let mut profiles: Vec<MigKind> = Vec::new();
        for one in told {
            let Some(size) = one.places.first().map(|(_, size)| *size).filter(|size| *size > 0) else {
                continue;
            };
            let same_size = one.places.iter().filter(|(_, other)| *other == size);
            let mut starts: Vec<u32> = same_size.map(|(start, _)| *start).collect();
            starts.sort_unstable();
            starts.dedup();
            let name = name_of(one.compute_slices, one.memory_bytes, total_bytes);
            // What the driver keeps for itself is taken off the board, and so off its parts.
            let part = u128::from(memory_bytes) * u128::from(size) / u128::from(memory_slices);
            let memory_bytes = one.memory_bytes.min(u64::try_from(part).unwrap_or(u64::MAX));
            if profiles.iter().all(|known| known.name != name) && memory_bytes > 0 {
                let (compute_slices, memory_slices) = (one.compute_slices, size);
                profiles.push(MigKind { name, compute_slices, memory_slices, memory_bytes, starts });
            }
        }
        (!profiles.is_empty()).then_some(MigBoard { compute_slices, memory_slices, profiles })
    }
}

/// A profile's name: `3g.71gb` for three slices and a half of 141 GiB.
fn name_of(compute_slices: u32, memory_bytes: u64, total_bytes: u64) -> String {
    let total = u128::from(total_bytes.max(1));
    let eighths = (u128::from(memory_bytes) * 8).div_ceil(total);
    let gib = u128::from(total_bytes.div_ceil(GIB));
    format!("{compute_slices}g.{}gb", (eighths * gib + 4) / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(model: &str, gib: u64) -> Vec<String> {
        let board = MigBoard::simulated(model, gib * GIB).expect("it can be cut");
        board.profiles.into_iter().map(|profile| profile.name).collect()
    }

    #[test]
    fn profiles_have_the_names_that_people_know() {
        assert_eq!(names("a100-40gb", 40), ["1g.5gb", "1g.10gb", "2g.10gb", "3g.20gb", "4g.20gb", "7g.40gb"]);
        assert_eq!(names("h100", 80), ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"]);
        assert_eq!(names("h200", 141), ["1g.18gb", "1g.35gb", "2g.35gb", "3g.71gb", "4g.71gb", "7g.141gb"]);
        assert_eq!(names("a30", 24), ["1g.6gb", "2g.12gb", "4g.24gb"]);
        assert_eq!(MigBoard::simulated("t4", 16 * GIB), None);
    }

    #[test]
    fn what_an_h100_tells_makes_the_same_profiles() {
        // Memory in MiB as `nvidia-smi mig -lgip` prints it for 81,559 MiB: 9.75, 39.5 and 79.25 GiB.
        let told = |compute_slices, mib: u64, places: &[(u32, u32)]| Told {
            compute_slices,
            memory_bytes: mib << 20,
            places: places.to_vec(),
        };
        let all = vec![
            told(1, 9_984, &[(6, 1), (0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1)]),
            told(3, 40_448, &[(0, 4), (4, 4)]),
            told(7, 81_152, &[(0, 8)]),
            told(2, 20_096, &[]),
        ];
        let board = MigBoard::of(81_559 << 20, 81_000 << 20, all).expect("there are profiles");
        assert_eq!((board.compute_slices, board.memory_slices), (7, 8));
        let found: Vec<_> = board
            .profiles
            .iter()
            .map(|one| (one.name.as_str(), one.memory_bytes >> 20, one.starts.len()))
            .collect();
        assert_eq!(found, [("1g.10gb", 9_984, 7), ("3g.40gb", 40_448, 2), ("7g.80gb", 81_000, 1)]);
        assert_eq!(board.profiles[0].starts, [0, 1, 2, 3, 4, 5, 6]);
        assert_eq!(MigBoard::of(1, 1, Vec::new()), None);
    }
}
