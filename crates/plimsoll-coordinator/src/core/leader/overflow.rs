//! Between queues and their overflow: the leader sets aside who waits past a queue's bound, and brings the first ones back as places come free.

use plimsoll_ledger::limits::MAX_ASIDE;
use plimsoll_ledger::{Command, Entry, Ledger, Outcome, Request};
use plimsoll_types::ReservationId;

use super::{Lead, LeaderLoop};
use crate::core::bodies;

/// Bytes of requests in one entry after which no other is added.
const ENOUGH_BYTES: usize = 1 << 20;

impl LeaderLoop {
    /// Who is to be set aside and who is to come back, by the state as it is applied; nothing while an earlier word is on its way.
    pub(super) fn overflow(&self, lead: &mut Lead, ledger: &Ledger) -> Vec<Entry> {
        if lead.evening > 0 {
            return Vec::new();
        }
        let (mut aside, mut requests) = (Vec::new(), Vec::new());
        let mut bytes = 0;
        for queue in ledger.queues_to_even() {
            let how = ledger.queue(queue).and_then(|known| known.sets_aside());
            for id in ledger.to_set_aside(queue, MAX_ASIDE - aside.len()) {
                let Some((one, how)) = ledger.reservation(id).zip(how) else { continue };
                if bytes > ENOUGH_BYTES {
                    break;
                }
                let one = bodies::pack(id, &one.request, how);
                bytes += one.body.len();
                aside.push(one);
            }
            for id in ledger.to_return(queue, MAX_ASIDE - requests.len()) {
                if bytes > ENOUGH_BYTES {
                    break;
                }
                // Those behind one that cannot be read wait until somebody cancels it, or another member leads that can read it.
                let Some(asked) = self.read_back(lead, ledger, id) else { break };
                bytes += ledger
                    .reservation(id)
                    .and_then(|one| one.aside.as_ref())
                    .map_or(0, |aside| aside.body_bytes as usize);
                requests.push((id, asked));
            }
        }
        let aside = (!aside.is_empty()).then_some(Command::SetAside { aside });
        let back = (!requests.is_empty()).then_some(Command::Return { requests });
        let entries: Vec<Entry> = aside.into_iter().chain(back).map(Entry::system).collect();
        lead.evening += entries.len();
        entries
    }

    fn read_back(&self, lead: &mut Lead, ledger: &Ledger, id: ReservationId) -> Option<Request> {
        let aside = ledger.reservation(id)?.aside.as_ref()?;
        match self.bodies.request_of(ledger, id, aside) {
            Ok(asked) => Some(asked),
            Err(error) => {
                if lead.unreadable.insert(id) {
                    tracing::error!(%error, "it cannot come back to its queue here, nor can those behind it; cancel it");
                }
                None
            }
        }
    }

    /// One of those entries is applied: who came back may find a place.
    pub(super) fn evened(lead: &mut Lead, ledger: &Ledger, entry: &Entry, outcome: &Outcome) {
        lead.evening = lead.evening.saturating_sub(1);
        let (Command::Return { requests }, Outcome::Done) = (&entry.command, outcome) else { return };
        lead.pass_owed = true;
        lead.planner.note_waiting();
        for (id, _) in requests {
            if let Some(waiting) = ledger.reservation(*id).filter(|waiting| waiting.is_waiting()) {
                lead.planner.note_arrival(ledger, waiting);
            }
        }
    }
}
