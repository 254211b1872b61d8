//! The best that there is for a list of sizes: fewest nodes of a capacity, lowest load of the fullest of so many nodes, most of it granted.

/// Fewest nodes of a capacity that hold all sizes.
pub(crate) fn fewest_nodes(sizes: &[u64], capacity: u64) -> usize {
    (0..=sizes.len()).find(|nodes| fits(sizes, &mut vec![capacity; *nodes])).unwrap_or(sizes.len())
}

/// Lowest load of the fullest of so many nodes.
pub(crate) fn lowest_load(sizes: &[u64], nodes: usize) -> u64 {
    let all: u64 = sizes.iter().sum();
    (0..=all).find(|load| fits(sizes, &mut vec![*load; nodes])).unwrap_or(all)
}

/// Most of the sizes that devices hold together.
pub(crate) fn most_granted(sizes: &[u64], free: &mut [u64]) -> u64 {
    let Some((first, rest)) = sizes.split_first() else { return 0 };
    let mut best = most_granted(rest, free);
    let mut tried = Vec::new();
    for device in 0..free.len() {
        // Devices with equal room are alike.
        if free[device] < *first || tried.contains(&free[device]) {
            continue;
        }
        tried.push(free[device]);
        free[device] -= first;
        best = best.max(first + most_granted(rest, free));
        free[device] += first;
    }
    best
}

fn fits(sizes: &[u64], free: &mut [u64]) -> bool {
    let Some((first, rest)) = sizes.split_first() else { return true };
    let mut tried = Vec::new();
    for node in 0..free.len() {
        if free[node] < *first || tried.contains(&free[node]) {
            continue;
        }
        tried.push(free[node]);
        free[node] -= first;
        let found = fits(rest, free);
        free[node] += first;
        if found {
            return true;
        }
    }
    false
}

#[test]
fn the_best_is_what_one_finds_by_hand() {
    assert_eq!(fewest_nodes(&[5, 5, 3, 3, 2, 2], 10), 2);
    assert_eq!(fewest_nodes(&[6, 6, 6], 10), 3);
    assert_eq!(fewest_nodes(&[], 10), 0);
    assert_eq!(lowest_load(&[3, 3, 2, 2, 2], 2), 6);
    assert_eq!(most_granted(&[600, 500, 500], &mut [1_000]), 1_000);
    assert_eq!(most_granted(&[600, 600, 250], &mut [1_000]), 850);
}
