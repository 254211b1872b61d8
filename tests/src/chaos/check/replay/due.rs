//! What time ends (`docs/semantics.md` 4).

use plimsoll_proto::log::{self, State};

use super::Model;

impl Model {
    /// Ends what is due, at most `limit`; how many.
    pub(super) fn expire(&mut self, limit: u32) -> u32 {
        let mut due: Vec<(u64, u64)> = self
            .reservations
            .values()
            .filter_map(|one| self.due_at(one).map(|at| (at, one.id)))
            .filter(|(at, _)| *at <= self.clock_ms)
            .collect();
        due.sort_unstable();
        due.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        for (_, id) in &due {
            self.end(*id, State::Expired);
        }
        u32::try_from(due.len()).unwrap_or(u32::MAX)
    }

    fn due_at(&self, one: &log::Reservation) -> Option<u64> {
        match one.state() {
            State::Pending => Some(one.deadline_ms).filter(|deadline| *deadline > 0),
            State::Held => {
                let hold_ms = one.request.as_ref().map_or(0, |request| request.hold_ms);
                Some(one.deadline_ms.max(self.rearmed_at_ms + hold_ms))
            }
            State::Active | State::Partial => {
                let rearmed = one.deadline_ms.max(self.rearmed_at_ms + one.ttl_ms);
                let end = if one.hard_end_ms == 0 { rearmed } else { rearmed.min(one.hard_end_ms) };
                Some(end + one.ttl_ms / 10 + 1_000)
            }
            _ => None,
        }
    }
}
