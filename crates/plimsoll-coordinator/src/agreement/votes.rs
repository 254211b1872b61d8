//! Whom to believe.

use std::collections::BTreeMap;

/// What a replica says it has.
pub(super) type Hash = [u8; 32];

/// What the answers mean for the one that asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Nobody else answered.
    Alone,
    /// All that answered have the same.
    Same,
    /// These have something else, and no majority says who is right, or it says what this one does.
    Differs {
        /// Their ids, ascending.
        members: Vec<u64>,
    },
    /// A majority of the voters agrees on something else.
    Wrong {
        /// Ids of that majority, ascending.
        majority: Vec<u64>,
    },
}

/// Judges what `said` by member, the own answer included. Members without a vote are heard and not counted.
pub(super) fn judge(own_id: u64, voters: &[u64], said: &BTreeMap<u64, Hash>) -> Verdict {
    let Some(own) = said.get(&own_id) else { return Verdict::Alone };
    if said.len() == 1 {
        return Verdict::Alone;
    }
    let members: Vec<u64> = said.iter().filter(|(_, hash)| *hash != own).map(|(id, _)| *id).collect();
    if members.is_empty() {
        return Verdict::Same;
    }
    let mut camps: BTreeMap<&Hash, Vec<u64>> = BTreeMap::new();
    for (id, hash) in said.iter().filter(|(id, _)| voters.contains(id)) {
        camps.entry(hash).or_default().push(*id);
    }
    match camps.into_iter().find(|(_, ids)| ids.len() > voters.len() / 2) {
        Some((hash, majority)) if hash != own => Verdict::Wrong { majority },
        _ => Verdict::Differs { members },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(answers: &[(u64, u8)]) -> BTreeMap<u64, Hash> {
        answers.iter().map(|(id, byte)| (*id, [*byte; 32])).collect()
    }

    #[test]
    fn only_a_majority_of_the_voters_is_believed() {
        let voters = [1, 2, 3];
        let judged = |own, answers: &[(u64, u8)]| judge(own, &voters, &said(answers));
        assert_eq!(judged(1, &[(1, 7)]), Verdict::Alone);
        assert_eq!(judged(1, &[(1, 7), (3, 7)]), Verdict::Same);
        assert_eq!(judged(1, &[(1, 7), (2, 8)]), Verdict::Differs { members: vec![2] });
        assert_eq!(judged(1, &[(1, 7), (2, 7), (3, 8)]), Verdict::Differs { members: vec![3] });
        assert_eq!(judged(3, &[(1, 7), (2, 7), (3, 8)]), Verdict::Wrong { majority: vec![1, 2] });
        assert_eq!(judged(1, &[(1, 7), (2, 8), (3, 9)]), Verdict::Differs { members: vec![2, 3] });
    }

    #[test]
    fn a_learner_has_no_voice_and_can_be_wrong() {
        let judged = |own, answers: &[(u64, u8)]| judge(own, &[1, 2, 3], &said(answers));
        assert_eq!(judged(1, &[(1, 7), (8, 8), (9, 8)]), Verdict::Differs { members: vec![8, 9] });
        assert_eq!(judged(9, &[(1, 7), (2, 7), (9, 8)]), Verdict::Wrong { majority: vec![1, 2] });
    }
}
