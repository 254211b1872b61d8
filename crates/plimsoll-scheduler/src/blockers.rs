//! All that stands in the way of a request, with its arithmetic. O(nodes of the pool): only for what was not placed.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use plimsoll_ledger::{Blocker, GpuShare, Ledger, ProfileName, Reason, Request, instances_left, percent};
use plimsoll_types::{Amount, Resources};

use crate::fit::{NodeView, Unfit};
use crate::fleet::{Fleet, split};
use crate::topology::beside;

/// Profiles of which it is said how many would still fit.
const MOST_PROFILES: usize = 8;

/// What stands in the way now: each node counts under the first thing that keeps it out. Of roles, each by itself.
pub(crate) fn now(ledger: &Ledger, fleet: &Fleet, request: &Request) -> Vec<Blocker> {
    if !request.roles.is_empty() {
        let found: Vec<Blocker> = of_roles(request, |role| now(ledger, fleet, role)).collect();
        return if found.is_empty() { vec![together(request)] } else { found };
    }
    let (amounts, in_pool) = split(ledger, request);
    let mut blockers = countables(ledger, fleet, request, &in_pool, false);
    blockers.extend(by_node(fleet, request, &amounts, false));
    let wanted = request.gang.min_members.max(1);
    if wanted > 1 {
        blockers.extend(gang_blocker(members_that_fit(fleet, request, &amounts, wanted, false), wanted));
    }
    blockers.extend(beside(ledger, fleet, request, &amounts, false));
    blockers
}

/// What would stand in the way on empty, willing nodes; `None` where the pool could hold the request one day.
pub(crate) fn infeasible(ledger: &Ledger, fleet: &Fleet, request: &Request) -> Option<Vec<Blocker>> {
    if !request.roles.is_empty() {
        let found: Vec<Blocker> =
            of_roles(request, |role| infeasible(ledger, fleet, role).unwrap_or_default()).collect();
        return (!found.is_empty()).then_some(found);
    }
    let (amounts, in_pool) = split(ledger, request);
    let short = countables(ledger, fleet, request, &in_pool, true);
    if !short.is_empty() {
        return Some(short);
    }
    let wanted = request.gang.min_members.max(1);
    let members = members_that_fit(fleet, request, &amounts, wanted, true);
    let beside = beside(ledger, fleet, request, &amounts, true);
    if members >= wanted && beside.is_empty() {
        return None;
    }
    let mut blockers = by_node(fleet, request, &amounts, true);
    blockers.extend(beside);
    blockers.extend(gang_blocker(members, wanted));
    if blockers.is_empty() {
        blockers.push(Blocker::new(Reason::NoCapacity, format!("nodes in pool {}", request.pool), 1, 0));
    }
    Some(blockers)
}

/// What stands in the way of each role whose fewest members are not there, with the role's name.
fn of_roles(request: &Request, look: impl Fn(&Request) -> Vec<Blocker>) -> impl Iterator<Item = Blocker> {
    request.by_role().into_iter().zip(&request.roles).filter(|(_, role)| role.min_members > 0).flat_map(
        move |(asked, role)| {
            let named = |blocker: Blocker| Blocker {
                subject: format!("{} (role {})", blocker.subject, role.name),
                ..blocker
            };
            look(&asked).into_iter().map(named).collect::<Vec<_>>()
        },
    )
}

/// Each role by itself has room, and all of them together have none.
fn together(request: &Request) -> Blocker {
    let members = request.gang.min_members.into();
    let available = request.roles.iter().map(|role| u64::from(role.min_members)).max().unwrap_or_default();
    Blocker::new(Reason::NoCapacity, "gang members of all roles together", members, available)
}

/// Members of a gang that fit, at most `wanted`: on free capacity, or (`empty`) on empty and willing nodes.
fn members_that_fit(fleet: &Fleet, request: &Request, amounts: &Resources, wanted: u32, empty: bool) -> u32 {
    let mut members = 0;
    for view in fleet.pool_views(&request.pool) {
        let mut emptied = None;
        let first = if empty {
            let labels_fit = request.requirements.required.matches(&view.labels);
            labels_fit.then(|| emptied.insert(view.emptied()).fit_amounts(request, amounts).ok()).flatten()
        } else {
            view.fit(request, amounts).ok()
        };
        let Some(mut devices) = first else { continue };
        members += 1;
        if members >= wanted {
            break;
        }
        if request.gang.spread {
            continue;
        }
        let mut room = emptied.unwrap_or_else(|| view.clone());
        while members < wanted {
            room.take(amounts, &devices, request.is_best_effort());
            let Ok(more) = room.fit_amounts(request, amounts) else { break };
            devices = more;
            members += 1;
        }
    }
    members
}

/// A gang that some nodes could serve, only not all of it.
fn gang_blocker(members: u32, wanted: u32) -> Option<Blocker> {
    let short = wanted > 1 && members < wanted;
    short.then(|| Blocker::new(Reason::NoCapacity, "gang members", wanted.into(), members.into()))
}

/// Countables of the pool that are short: of what is free, or (`ever`) of the total.
fn countables(
    ledger: &Ledger,
    fleet: &Fleet,
    request: &Request,
    in_pool: &Resources,
    ever: bool,
) -> Vec<Blocker> {
    let Some(pool) = ledger.pool(&request.pool) else { return Vec::new() };
    let members = u64::from(request.gang.min_members);
    let short = in_pool.iter().filter_map(|(name, amount)| {
        let total = pool.countables.get(name).copied().unwrap_or_default();
        let used = ledger.countable_spoken_for(&pool.name, name).0;
        let taken = used.saturating_add(fleet.countable_booked(&pool.name, name));
        let free = if ever { total } else { total.saturating_sub(Amount(taken)) };
        let asked = amount.0.saturating_mul(members);
        let blocker = Blocker::new(Reason::CountableExhausted, name, asked, free.0);
        (asked > free.0).then_some(Blocker { limit: total.0, ..blocker })
    });
    short.collect()
}

fn by_node(fleet: &Fleet, request: &Request, amounts: &Resources, empty: bool) -> Vec<Blocker> {
    let names: Vec<&str> = amounts.iter().map(|(name, _)| name).collect();
    let mut found: BTreeMap<Unfit, Blocker> = BTreeMap::new();
    for view in fleet.pool_views(&request.pool) {
        let unfit = if empty {
            let labels_fit = request.requirements.required.matches(&view.labels);
            if labels_fit { view.emptied().fit_amounts(request, amounts).err() } else { Some(Unfit::Labels) }
        } else {
            view.fit(request, amounts).err()
        };
        let Some(unfit) = unfit else { continue };
        let (asked, available, limit) = numbers(unfit, view, request, amounts, &names, empty);
        let entry =
            found.entry(unfit).or_insert_with(|| blocker_of(unfit, view, &request.class, &names, asked));
        entry.available = entry.available.max(available);
        entry.limit = entry.limit.max(limit);
        entry.nodes += 1;
    }
    if let Some(GpuShare::Mig(profile)) = request.requirements.gpu.as_ref().map(|gpu| gpu.share) {
        let slices = [(Unfit::Gpu, true), (Unfit::Device, false)];
        for (unfit, left) in slices {
            if let Some(blocker) = found.get_mut(&unfit) {
                blocker.subject = slices_left(fleet, request, profile, left);
            }
        }
    }
    found.into_values().collect()
}

/// What is asked against what would still fit: `mig 3g.40gb (free: 2 x 2g.20gb, 4 x 1g.10gb)`, each number for that profile alone. Where
/// that is not asked (`left`), against what there is: `mig 3g.20gb (profiles here: 3g.40gb, 1g.10gb)`.
fn slices_left(fleet: &Fleet, request: &Request, asked: ProfileName, left: bool) -> String {
    let open = |view: &&NodeView| !left || view.node.is_eligible();
    let mut found: BTreeMap<(Reverse<u8>, Reverse<u8>, ProfileName), u64> = BTreeMap::new();
    for view in fleet.pool_views(&request.pool).filter(open) {
        let devices = view.node.registration.devices.iter().zip(&view.devices);
        for (device, usage) in devices.filter(|(device, _)| !device.failed) {
            for profile in device.mig.iter().flat_map(|layout| &layout.profiles) {
                let key = (Reverse(profile.memory_slices), Reverse(profile.compute_slices), profile.name);
                let more = if left { instances_left(device, usage, profile.name) } else { 1 };
                *found.entry(key).or_default() += u64::from(more);
            }
        }
    }
    let some = found.into_iter().filter(|(_, count)| *count > 0).take(MOST_PROFILES);
    let word = |((.., name), count): ((_, _, ProfileName), u64)| match left {
        true => format!("{count} x {name}"),
        false => name.to_string(),
    };
    let words: Vec<String> = some.map(word).collect();
    let words = if words.is_empty() { "none".to_owned() } else { words.join(", ") };
    format!("mig {asked} ({}: {words})", if left { "free" } else { "profiles here" })
}

/// What a node measures that best effort of the class would have to leave again for: `memory at 95%, and class batch leaves above 90%`.
fn too_full(view: &NodeView, class: &str) -> String {
    view.closed_to.get(class).map_or_else(String::new, |evicted| {
        let (gauge, measured) = (evicted.overload.gauge.name(), percent(evicted.overload.measured_permille));
        format!("{gauge} at {measured}, and class {class} leaves above {}", percent(evicted.above_permille))
    })
}

fn blocker_of(unfit: Unfit, view: &NodeView, class: &str, names: &[&str], asked: u64) -> Blocker {
    let (reason, subject) = match unfit {
        Unfit::NotAvailable => (
            Reason::NodeNotAvailable,
            format!("nodes such as {} ({})", view.node.name(), view.node.state_name()),
        ),
        Unfit::TooFull => (
            Reason::NodeNotAvailable,
            format!("nodes such as {} ({})", view.node.name(), too_full(view, class)),
        ),
        Unfit::Labels => (Reason::LabelMismatch, "labels".to_owned()),
        Unfit::Device => (Reason::DeviceMismatch, "gpu".to_owned()),
        Unfit::Amount(index) => (Reason::NoCapacity, names[index].to_owned()),
        Unfit::Gpu => (Reason::NoCapacity, "gpu".to_owned()),
    };
    Blocker::new(reason, subject, asked, 0)
}

/// Asked, free and most, on this node. GPUs in thousandths where a share is asked, in devices otherwise.
fn numbers(
    unfit: Unfit,
    view: &NodeView,
    request: &Request,
    amounts: &Resources,
    names: &[&str],
    empty: bool,
) -> (u64, u64, u64) {
    match unfit {
        Unfit::NotAvailable | Unfit::TooFull | Unfit::Labels => (1, 0, 0),
        Unfit::Amount(index) => {
            let name = names[index];
            let loose = request.is_best_effort();
            let limit = view.limit(name, loose);
            let has = if empty { limit } else { view.has(name, loose) };
            (amounts.get(name).0, has.0, limit.0)
        }
        Unfit::Device | Unfit::Gpu => {
            let total = uncut(view).count() as u64;
            let gpu = request.requirements.gpu.as_ref();
            match gpu.map(|gpu| (gpu.share, gpu.count)) {
                // How many would fit depends on what else is there: the subject says it.
                Some((GpuShare::Mig(_), count)) => (count.into(), 0, 0),
                Some((GpuShare::Milli(milli), _)) => {
                    let free = uncut(view).map(|index| view.device_free_milli(index)).max().unwrap_or(0);
                    (milli.into(), free.into(), if total > 0 { 1_000 } else { 0 })
                }
                Some((GpuShare::Memory(bytes), _)) => {
                    let memory = |index: usize| {
                        let device = &view.node.registration.devices[index];
                        device.memory_bytes.saturating_sub(view.devices[index].memory_bytes)
                    };
                    let free =
                        uncut(view).filter(|index| view.device_free_milli(*index) > 0).map(memory).max();
                    let most = view.node.registration.devices.iter().map(|device| device.memory_bytes).max();
                    (bytes, free.unwrap_or(0), most.unwrap_or(0))
                }
                Some((GpuShare::Whole, count)) => {
                    (count.into(), if unfit == Unfit::Device { 0 } else { view.free_whole().into() }, total)
                }
                None => (0, 0, total),
            }
        }
    }
}

/// Devices that are given whole and in shares.
fn uncut(view: &NodeView) -> impl Iterator<Item = usize> {
    let devices = view.node.registration.devices.iter().enumerate();
    devices.filter(|(_, device)| device.mig.is_none()).map(|(index, _)| index)
}
