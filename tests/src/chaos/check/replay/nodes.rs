//! What becomes of holders when a node falls silent, comes back or is given up (`docs/semantics.md` 6).

use plimsoll_proto::log::{self, NodeHealth, State, log_command::Command};

use super::{Model, standing};

impl Model {
    /// A node is now as the outcome of a command shows it.
    pub(super) fn node_changed(&mut self, command: &Command, node: &log::Node) {
        let told = matches!(command, Command::RegisterNode(_) | Command::SetNodeHealth(_));
        self.nodes.insert(node.id, node.clone());
        if !told {
            return;
        }
        let holders: Vec<u64> = self
            .reservations
            .values()
            .filter(|one| one.members.iter().any(|member| member.node == node.id))
            .map(|one| one.id)
            .collect();
        for id in holders {
            match node.health() {
                NodeHealth::Suspect => self.silence(id),
                NodeHealth::Available => self.resume(id),
                NodeHealth::Lost | NodeHealth::Failed | NodeHealth::Fenced => self.end(id, State::Failed),
                NodeHealth::Unspecified => {}
            }
        }
    }

    fn silence(&mut self, id: u64) {
        let one = self.reservations.get_mut(&id).expect("it was just listed");
        if one.state() != State::Unknown {
            one.resume_state = one.state;
            one.state = State::Unknown.into();
            self.touched.insert(id);
        }
    }

    fn resume(&mut self, id: u64) {
        let nodes = &self.nodes;
        let one = self.reservations.get_mut(&id).expect("it was just listed");
        let available = |member: &log::MemberPlacement| {
            nodes.get(&member.node).is_some_and(|node| node.health() == NodeHealth::Available)
        };
        if one.state() != State::Unknown || !one.members.iter().all(available) {
            return;
        }
        one.state = standing(one);
        let hold_ms = one.request.as_ref().map_or(0, |request| request.hold_ms);
        let length_ms = if one.state() == State::Held { hold_ms } else { one.ttl_ms };
        one.deadline_ms = one.deadline_ms.max(self.clock_ms + length_ms);
        if one.hard_end_ms > 0 && one.state() != State::Held {
            one.deadline_ms = one.deadline_ms.min(one.hard_end_ms);
        }
        self.touched.insert(id);
    }
}
