//! The cgroup that `plimsoll run` puts its command into: limits by the grant, changed with it, and the end of all that is in it.

use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use plimsoll_agent::cgroup::{
    CgroupTree, CgroupUsage, Reach, WorkloadAmounts, WorkloadCgroup, WorkloadLimits,
};
use plimsoll_agent::usage::ProcessUsage;
use plimsoll_client::v1::{Qos, Quantities, Reservation};
use plimsoll_types::quantity::display_bytes;

use crate::error::CliError;
use crate::exit::Exit;
use crate::host::host_name;
use crate::output::Out;

/// Longest wait until what was killed has left its cgroup.
const LEAVE_WAIT: Duration = Duration::from_secs(1);
/// Between two looks whether it has.
const LEAVE_LOOK: Duration = Duration::from_millis(5);

/// Whether the kernel keeps the command to its grant.
#[derive(Args, Debug)]
pub(super) struct LimitArgs {
    /// Have the kernel keep the command to its grant, by cgroup v2: where this machine allows it (auto), or else not start it (require), or not (off)
    #[arg(
        long,
        value_name = "MODE",
        env = "PLIMSOLL_CGROUP",
        default_value = "auto",
        hide_env_values = true
    )]
    cgroup: Mode,
    /// The cgroup below which the command gets its own; without it that of this process, or the nearest one above that may be divided
    #[arg(long, value_name = "FOLDER", env = "PLIMSOLL_CGROUP_PARENT", hide_env_values = true)]
    cgroup_parent: Option<PathBuf>,
    /// Weight of its reads and writes beside those of others, 1 to 10000; 100 is the kernel's default
    #[arg(long, value_name = "WEIGHT", value_parser = clap::value_parser!(u64).range(1..=10_000))]
    io_weight: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Mode {
    Auto,
    Require,
    Off,
}

impl LimitArgs {
    /// Where cgroups can be made; `None` where there shall be none, or can be none and need not.
    pub(super) fn tree(&self, out: &Out) -> Result<Option<CgroupTree>, CliError> {
        let opened = match (self.cgroup, &self.cgroup_parent) {
            (Mode::Off, _) => return Ok(None),
            (_, Some(folder)) => CgroupTree::open_in(folder.clone()),
            (_, None) => CgroupTree::open(),
        };
        self.or_without(opened, out)
    }

    /// A cgroup for a command under a grant.
    pub(super) fn group(
        &self,
        tree: Option<&CgroupTree>,
        reservation: &Reservation,
        out: &Out,
    ) -> Result<Option<Limited>, CliError> {
        let Some(tree) = tree else { return Ok(None) };
        let limits = limits(reservation, self.io_weight);
        let made = tree.create(&reservation.id, &limits);
        let limited = |group| Limited { group, limits, io_weight: self.io_weight, told_oom_kills: 0 };
        Ok(self.or_without(made, out)?.map(limited))
    }

    fn or_without<T>(
        &self,
        outcome: Result<T, impl std::fmt::Display>,
        out: &Out,
    ) -> Result<Option<T>, CliError> {
        match (outcome, self.cgroup) {
            (Ok(made), _) => Ok(Some(made)),
            (Err(error), Mode::Require) => {
                Err(CliError::local("the kernel cannot keep the command to its grant here", error)
                    .with_exit(Exit::RunFailed)
                    .help("what a host needs is in docs/operations.md; --cgroup auto goes on without"))
            }
            (Err(error), Mode::Auto | Mode::Off) => {
                let note = out.paint.strong("note:");
                out.say(&format!("{note} the kernel does not keep the command to its grant: {error}"));
                Ok(None)
            }
        }
    }
}

/// The cgroup of a command, with the limits that are set.
pub(super) struct Limited {
    group: WorkloadCgroup,
    limits: WorkloadLimits,
    io_weight: Option<u64>,
    told_oom_kills: u64,
}

impl Limited {
    pub(super) fn group(&self) -> &WorkloadCgroup {
        &self.group
    }

    /// Sets the limits anew where the grant has others now.
    pub(super) fn follow(&mut self, reservation: &Reservation, out: &Out) {
        let limits = limits(reservation, self.io_weight);
        if limits == self.limits {
            return;
        }
        self.limits = limits;
        match self.group.set(&limits) {
            Ok(()) => out.say(&format!("{} has other amounts, and so has the command", reservation.id)),
            Err(error) => {
                out.say(&format!("{} the command keeps its limits: {error}", out.paint.bad("error:")))
            }
        }
    }

    /// Kills all that is in it.
    pub(super) fn kill(&self) {
        if let Err(error) = self.group.kill() {
            tracing::error!(%error, "a cgroup could not be killed");
        }
    }

    /// Says where the kernel killed for want of memory since this was said last.
    pub(super) fn tell_of_oom(&mut self, out: &Out) {
        let usage = self.group.usage();
        let kills = usage.oom_kills.unwrap_or(0);
        if kills > self.told_oom_kills {
            self.told_oom_kills = kills;
            let error = out.paint.bad("error:");
            out.remark(&format!("{error} {}", out_of_memory(&usage, self.limits.memory_max_bytes)));
        }
    }

    /// What all that was in it used, in place of what was seen of it from outside.
    pub(super) fn used(&self, seen: ProcessUsage) -> ProcessUsage {
        let usage = self.group.usage();
        ProcessUsage {
            peak_rss_bytes: usage.peak_memory_bytes.unwrap_or(seen.peak_rss_bytes),
            cpu_user_ms: usage.cpu_user_ms.unwrap_or(seen.cpu_user_ms),
            cpu_system_ms: usage.cpu_system_ms.unwrap_or(seen.cpu_system_ms),
            elapsed_ms: seen.elapsed_ms,
        }
    }

    /// Ends what is left in it, and then it.
    pub(super) async fn end(self) {
        self.kill();
        let begun = tokio::time::Instant::now();
        while self.group.is_populated() && begun.elapsed() < LEAVE_WAIT {
            tokio::time::sleep(LEAVE_LOOK).await;
        }
        // The next one that makes a cgroup here removes what could not be removed now.
        tracing::debug!(removed = ?self.group.remove(), folder = %self.group.folder().display(), "left a cgroup");
    }
}

/// Limits by what a reservation has on this machine, and by its quality of service. Where it has nothing here, the command is of one member.
fn limits(reservation: &Reservation, io_weight: Option<u64>) -> WorkloadLimits {
    let here = host_name();
    let members = reservation.allocations.iter().filter(|allocation| allocation.node == here).count();
    let members = u64::try_from(members).unwrap_or(u64::MAX).max(1);
    let amounts = |amounts: Option<&Quantities>| WorkloadAmounts {
        cpu_millis: amounts.map_or(0, |amounts| amounts.cpu_millis.saturating_mul(members)),
        memory_bytes: amounts.map_or(0, |amounts| amounts.memory_bytes.saturating_mul(members)),
    };
    let spec = reservation.spec.as_ref();
    let reach = match spec.map(|spec| spec.qos()).unwrap_or_default() {
        Qos::Unspecified | Qos::Guaranteed => Reach::Exactly,
        Qos::Burstable => Reach::UpTo(amounts(spec.and_then(|spec| spec.burst.as_ref()))),
        Qos::BestEffort => Reach::WhatIsIdle,
    };
    let has_roles = spec.is_some_and(|spec| !spec.roles.is_empty());
    let granted =
        if has_roles { of_roles(reservation, &here) } else { amounts(reservation.amounts.as_ref()) };
    WorkloadLimits::new(granted, reach, io_weight)
}

/// What the members on this machine have, each by its role; what the first has where none is here.
fn of_roles(reservation: &Reservation, here: &str) -> WorkloadAmounts {
    let members = || reservation.allocations.iter();
    let mut on_this = members().filter(|member| member.node == here).peekable();
    let first = if on_this.peek().is_none() { members().next() } else { None };
    on_this.chain(first).filter_map(|member| member.amounts.as_ref()).fold(
        WorkloadAmounts::default(),
        |all, amounts| WorkloadAmounts {
            cpu_millis: all.cpu_millis.saturating_add(amounts.cpu_millis),
            memory_bytes: all.memory_bytes.saturating_add(amounts.memory_bytes),
        },
    )
}

/// What is said of a command that the kernel killed for want of memory.
fn out_of_memory(usage: &CgroupUsage, memory_max_bytes: Option<u64>) -> String {
    let kills = usage.oom_kills.unwrap_or(0);
    let peak = usage.peak_memory_bytes.map_or_else(|| "unknown".to_owned(), display_bytes);
    let limit = memory_max_bytes.map_or_else(
        || "it has no limit of its own, so the machine was short".to_owned(),
        |limit| format!("its limit is {}", display_bytes(limit)),
    );
    format!(
        "the kernel killed the command for want of memory ({kills} processes): its peak is {peak}, {limit}"
    )
}

#[cfg(test)]
mod tests {
    use plimsoll_client::v1::{Allocation, ReservationSpec, Role};

    use super::*;

    fn reservation(qos: Qos, burst: Option<Quantities>, members_here: usize) -> Reservation {
        let amounts = Quantities { cpu_millis: 1_000, memory_bytes: 1 << 20, ..Quantities::default() };
        let spec = ReservationSpec { qos: qos.into(), burst, ..ReservationSpec::default() };
        let mut allocations = vec![Allocation { node: host_name(), ..Allocation::default() }; members_here];
        allocations.push(Allocation { node: "another".to_owned(), ..Allocation::default() });
        Reservation { amounts: Some(amounts), spec: Some(spec), allocations, ..Reservation::default() }
    }

    #[test]
    fn limits_are_those_of_the_members_on_this_machine() {
        let cores = |reservation: &Reservation| limits(reservation, None).cpu_max_millis;
        assert_eq!(cores(&reservation(Qos::Guaranteed, None, 2)), Some(2_000));
        assert_eq!(cores(&reservation(Qos::Unspecified, None, 0)), Some(1_000), "granted elsewhere");
        let burst = Quantities { cpu_millis: 3_000, ..Quantities::default() };
        assert_eq!(cores(&reservation(Qos::Burstable, Some(burst), 1)), Some(3_000));
        let unbound = limits(&reservation(Qos::Burstable, None, 1), None);
        assert_eq!((unbound.cpu_max_millis, unbound.cpu_weight, unbound.memory_max_bytes), (None, 100, None));
        assert_eq!(limits(&reservation(Qos::BestEffort, None, 1), None).cpu_weight, 1);
    }

    #[test]
    fn members_of_different_roles_count_each_by_its_own() {
        let mut gang = reservation(Qos::Guaranteed, None, 2);
        gang.spec.get_or_insert_default().roles = vec![Role::default(), Role::default()];
        gang.amounts = Some(Quantities::default());
        for (member, cpu_millis) in gang.allocations.iter_mut().zip([500, 2_000, 4_000]) {
            member.amounts = Some(Quantities { cpu_millis, ..Quantities::default() });
        }
        assert_eq!(limits(&gang, None).cpu_max_millis, Some(2_500));
        gang.allocations.drain(..2);
        assert_eq!(limits(&gang, None).cpu_max_millis, Some(4_000), "granted elsewhere");
    }

    #[test]
    fn a_kill_for_want_of_memory_is_told_with_its_numbers() {
        let usage =
            CgroupUsage { peak_memory_bytes: Some(64 << 20), oom_kills: Some(2), ..CgroupUsage::default() };
        assert_eq!(
            out_of_memory(&usage, Some(64 << 20)),
            "the kernel killed the command for want of memory (2 processes): its peak is 64Mi, its limit is 64Mi"
        );
        assert!(out_of_memory(&usage, None).ends_with("so the machine was short"));
    }
}
