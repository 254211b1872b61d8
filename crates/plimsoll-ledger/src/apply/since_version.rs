//! From which ledger version on a command may be proposed: a row for each feature that came after the first.

use super::{administration, evict, overflow, preempt, queueing, queues, repair, usage, validators};
use crate::{
    Command, OnPreempt, PolicyName, PolicyObject, Request, calendar, capacity, contention, mig, qos, role,
    scaling, service, topology,
};
use crate::{class_order, hours, priority_weights, processing, queue_use};

impl Command {
    /// The first ledger version that has all that this command says. Before it is in force, the command must not be proposed: its stored form
    /// has fields that builds of that time stop at.
    pub fn since_version(&self) -> u32 {
        let of_preemption = matches!(self, Command::Preempt { .. } | Command::Requeue { .. })
            || self.says(|asked| asked.on_preempt != OnPreempt::default(), preempt::is_of_preemption, none);
        let of_usage = matches!(self, Command::TakeTokens { .. })
            || self
                .says(usage::asks_for_usage, usage::is_of_usage, |name| matches!(name, PolicyName::Quota(_)));
        let of_calendar = matches!(self, Command::OpenWindows { .. })
            || self.says(
                |asked| asked.start_at_ms > 0,
                |object| matches!(object, PolicyObject::Schedule(_)),
                |name| matches!(name, PolicyName::Schedule(_)),
            );
        let of_validators = self.says(
            none,
            |object| matches!(object, PolicyObject::Validator(_)),
            |name| matches!(name, PolicyName::Validator(_)),
        );
        let of_queues = self.says(
            |asked| !asked.queue.is_empty(),
            queues::is_of_queues,
            |name| matches!(name, PolicyName::Queue(_)),
        );
        let of_topology = self.says(topology::asks_for_topology, topology::is_of_topology, none);
        let of_services = matches!(self, Command::SetEndpoint { .. } | Command::ReportLoad { .. })
            || self.says(
                |asked| !asked.service.is_empty(),
                |object| matches!(object, PolicyObject::Service(_)),
                |name| matches!(name, PolicyName::Service(_)),
            );
        let of_scaling = matches!(
            self,
            Command::SetDesired(_)
                | Command::PinScale { .. }
                | Command::OpenIntent { .. }
                | Command::StepIntent { .. }
        ) || self
            .says(none, super::scaling::is_of_scaling, |name| matches!(name, PolicyName::ScalingPolicy(_)));
        let of_admins = self.says(none, administration::is_of_administration, none);
        let of_contention = matches!(self, Command::ObserveContention { .. })
            || self.says(none, contention::is_of_contention, none);
        let of_repair = self.says(repair::asks_for_repair, none, none);
        let of_roles = self.says(role::asks_for_roles, none, none);
        let of_elastic =
            matches!(self, Command::MoveNode { .. }) || self.says(none, crate::elastic::is_of_elastic, none);
        let of_relocation = matches!(self, Command::Relocate { .. });
        let of_eviction =
            matches!(self, Command::Evict { .. }) || self.says(none, evict::is_of_eviction, none);
        let of_spot = matches!(self, Command::InterruptNode { .. })
            || self.says(capacity::asks_for_interruption, capacity::is_of_spot, none);
        let of_overflow = matches!(self, Command::SetAside { .. } | Command::Return { .. })
            || self.says(none, overflow::is_of_overflow, none);
        let of_templates = matches!(self, Command::OpenIntent { template, .. } if !template.is_empty())
            || self.says(none, scaling::is_of_templates, none)
            || self.says(none, scaling::is_of_power, none);
        let of_points = self.says(priority_weights::gives_up_points, priority_weights::is_of_points, none);
        let of_metrics = matches!(self, Command::ReportLoad { reports }
            if reports.iter().any(crate::LoadReport::names_metrics));
        let features = [
            (of_metrics, crate::service::METRICS_SINCE_VERSION),
            (of_points, priority_weights::SINCE_VERSION),
            (self.says(none, class_order::is_of_class_order, none), class_order::SINCE_VERSION),
            (self.says(none, usage::is_of_tiers, none), crate::usage::TIERS_SINCE_VERSION),
            (self.says(hours::asks_for_hours, hours::is_of_hours, none), hours::SINCE_VERSION),
            (self.says(none, queue_use::is_of_fair_trees, none), queue_use::SINCE_VERSION),
            (of_templates, scaling::TEMPLATES_SINCE_VERSION),
            (of_spot, capacity::SINCE_VERSION),
            (of_overflow, crate::overflow::SINCE_VERSION),
            (self.says(none, contention::redistributes, none), contention::REDISTRIBUTE_SINCE_VERSION),
            (of_eviction, crate::eviction::SINCE_VERSION),
            (of_roles, role::SINCE_VERSION),
            (of_contention, contention::SINCE_VERSION),
            (self.says(none, processing::is_of_processing, none), processing::SINCE_VERSION),
            (of_relocation, crate::relocation::SINCE_VERSION),
            (of_elastic, crate::elastic::SINCE_VERSION),
            (of_repair, crate::repair::SINCE_VERSION),
            (of_admins, administration::SINCE_VERSION),
            (of_scaling, scaling::SINCE_VERSION),
            (of_services, service::SINCE_VERSION),
            (of_queues, queues::SINCE_VERSION),
            (of_preemption, preempt::SINCE_VERSION),
            (of_usage, usage::SINCE_VERSION),
            (of_validators, validators::SINCE_VERSION),
            (of_calendar, calendar::SINCE_VERSION),
            (of_topology, topology::SINCE_VERSION),
            (self.says(none, queueing::is_of_queueing, none), queueing::SINCE_VERSION),
            (mig::is_of_slices(self), mig::SINCE_VERSION),
            (self.says(qos::asks_for_qos, qos::is_of_qos, none), qos::SINCE_VERSION),
        ];
        features.into_iter().filter(|(says, _)| *says).map(|(_, since)| since).fold(1, u32::max)
    }

    /// True where a request, an object that is put or a name that is deleted is such.
    fn says(
        &self,
        asked: impl Fn(&Request) -> bool,
        put: impl Fn(&PolicyObject) -> bool,
        deleted: impl Fn(&PolicyName) -> bool,
    ) -> bool {
        match self {
            Command::Submit { request, .. } => asked(request),
            Command::ApplyPolicy { put: objects, delete, .. } => {
                objects.iter().any(put) || delete.iter().any(deleted)
            }
            _ => false,
        }
    }
}

fn none<T>(_: &T) -> bool {
    false
}
