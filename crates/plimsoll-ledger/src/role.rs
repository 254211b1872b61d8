//! Roles of a gang: members of several kinds that are granted together or not at all (`docs/semantics.md` 5.16).
//!
//! Invariants: a request with roles asks for nothing outside of them but labels, which hold for every member; its gang's bounds are the sums of
//! theirs; each member says which role it plays, and of each role a gang that is whole has between the fewest and the most.

use plimsoll_mutants::mutant;
use plimsoll_types::Resources;

use crate::limits::MAX_GANG_MEMBERS;
use crate::quota::{charge, least_of_needs};
use crate::{Blocker, Gang, Ledger, MemberPlacement, Reason, Request, Requirements, Reservation};

/// First ledger version that knows roles.
pub(crate) const SINCE_VERSION: u32 = 8;

/// Most roles of a gang.
pub const MAX_ROLES: usize = 16;

/// Members of one kind.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Role {
    /// Name, unique in its gang: `launcher`, `worker`.
    pub name: String,
    /// What each of its members needs, beside the labels that the request asks of all.
    pub requirements: Requirements,
    /// Fewest members that are of use; 0 for a role that the gang can do without.
    pub min_members: u32,
    /// Most members wanted.
    pub max_members: u32,
}

impl Request {
    /// What a member of a role needs, but for the labels that are asked of all; what every member needs where there are no roles.
    pub fn needs(&self, role: u16) -> &Requirements {
        self.roles.get(usize::from(role)).map_or(&self.requirements, |role| &role.requirements)
    }

    /// What each kind of member needs: of each role, or of all members.
    pub fn kinds(&self) -> impl Iterator<Item = &Requirements> {
        let plain = self.roles.is_empty().then_some(&self.requirements);
        plain.into_iter().chain(self.roles.iter().map(|role| &role.requirements))
    }

    /// What each kind of member needs, and how many of it there may be.
    pub fn kinds_with_most(&self) -> impl Iterator<Item = (&Requirements, u32)> {
        let plain = self.roles.is_empty().then_some((&self.requirements, self.gang.max_members.max(1)));
        plain.into_iter().chain(self.roles.iter().map(|role| (&role.requirements, role.max_members)))
    }

    /// Its members in the order in which they are placed, as roles with so many of each: of every role the fewest, then what more is wanted. Whoever
    /// drops members from the end keeps what is of use.
    pub fn role_order(&self) -> impl Iterator<Item = (u16, u32)> {
        let numbered = || (0_u16..).zip(&self.roles);
        let fewest = numbered().map(|(index, role)| (index, role.min_members));
        let more = numbered().map(|(index, role)| (index, role.max_members.saturating_sub(role.min_members)));
        fewest.chain(more)
    }

    /// One role as a request of its own, for `min` to `max` members; the labels that are asked of all are asked of it.
    pub fn of_role(&self, index: u16, min: u32, max: u32) -> Request {
        let mut requirements = self.needs(index).clone();
        if !self.roles.is_empty() {
            requirements.required.terms.extend(self.requirements.required.terms.iter().cloned());
            requirements.preferred.extend(self.requirements.preferred.iter().cloned());
        }
        let gang = Gang { min_members: min, max_members: max, ..self.gang };
        Request { requirements, gang, roles: Vec::new(), ..self.clone() }
    }

    /// Each role as a request of its own; the request itself where it has none.
    pub fn by_role(&self) -> Vec<Request> {
        if self.roles.is_empty() {
            return vec![self.clone()];
        }
        (0_u16..)
            .zip(&self.roles)
            .map(|(index, role)| self.of_role(index, role.min_members, role.max_members))
            .collect()
    }

    /// What members take in all, devices in thousandths as `gpu`; `None` where a sum does not fit in 64 bits.
    pub fn charge(&self, members: &[MemberPlacement]) -> Option<Resources> {
        if self.roles.is_empty() {
            return charge(&self.requirements.amounts, members);
        }
        charge_each(members, |member| &self.needs(member.role).amounts)
    }

    /// What the first so many members take at least, in the order in which they are placed; at the top where a sum does not fit.
    pub fn least_of(&self, members: u32) -> Resources {
        let mut all = Resources::default();
        let mut add = |needs: &Requirements, members: u32| {
            for (name, amount) in least_of_needs(needs).iter() {
                let more = amount.0.saturating_mul(members.into());
                all.set(name, plimsoll_types::Amount(all.get(name).0.saturating_add(more)));
            }
        };
        if self.roles.is_empty() {
            add(&self.requirements, members);
            return all;
        }
        let mut left = members;
        for (role, wanted) in self.role_order() {
            let count = wanted.min(left);
            add(self.needs(role), count);
            left -= count;
        }
        all
    }
}

impl Reservation {
    /// What a member has of its node and of its pool's countables.
    pub fn amounts_of(&self, member: &MemberPlacement) -> &Resources {
        match self.request.roles.get(usize::from(member.role)) {
            Some(role) => &role.requirements.amounts,
            None => &self.amounts,
        }
    }

    /// What all its members take, devices in thousandths as `gpu`; `None` where a sum does not fit in 64 bits.
    pub fn charge(&self) -> Option<Resources> {
        if self.request.roles.is_empty() {
            return charge(&self.amounts, &self.members);
        }
        charge_each(&self.members, |member| self.amounts_of(member))
    }

    /// Name of the role that a member plays; empty where there are none.
    pub fn role_of(&self, member: &MemberPlacement) -> &str {
        self.request.roles.get(usize::from(member.role)).map_or("", |role| &role.name)
    }

    /// True where some role has fewer members than are of use.
    pub(crate) fn lacks_a_role(&self) -> bool {
        self.lacking_by_role() > 0
    }

    /// How many members roles lack that have fewer than are of use.
    pub(crate) fn lacking_by_role(&self) -> u32 {
        let lack = |(index, role): (usize, &Role)| self.lack_of(index, role.min_members);
        self.request.roles.iter().enumerate().map(lack).sum()
    }

    /// The roles with what each may still have, however few: what a gang that lost members asks for. `needed_only`: while a role has fewer members
    /// than are of use, up to that and no more, so that others do not take the places of its members.
    pub(crate) fn roles_left(&self, needed_only: bool) -> Vec<Role> {
        let left = |(index, role): (usize, &Role)| {
            let most = if needed_only { role.min_members } else { role.max_members };
            Role { min_members: 0, max_members: self.lack_of(index, most), ..role.clone() }
        };
        self.request.roles.iter().enumerate().map(left).collect()
    }

    fn lack_of(&self, role: usize, wanted: u32) -> u32 {
        wanted.saturating_sub(count_of(&self.members, role))
    }
}

/// What members take each, by role: of their nodes, and of their pool's countables.
#[derive(Clone, Debug)]
pub struct Shares {
    /// Of all members, or of the first role: `(on its node, in the pool)`.
    first: (Resources, Resources),
    /// Of the other roles.
    others: Vec<(Resources, Resources)>,
}

impl Shares {
    /// What a member takes of its node.
    pub fn on_node(&self, member: &MemberPlacement) -> &Resources {
        &self.of(member.role).0
    }

    /// What all members take of the pool's countables; at the top where a sum does not fit.
    pub fn in_pool(&self, members: &[MemberPlacement]) -> Resources {
        let mut total = Resources::default();
        for (role, (_, each)) in std::iter::once(&self.first).chain(&self.others).enumerate() {
            if each.is_zero() {
                continue;
            }
            let count =
                if self.others.is_empty() { members.len() as u64 } else { count_of(members, role).into() };
            for (name, amount) in each.iter() {
                let more = amount.0.saturating_mul(count);
                total.set(name, plimsoll_types::Amount(total.get(name).0.saturating_add(more)));
            }
        }
        total
    }

    fn of(&self, role: u16) -> &(Resources, Resources) {
        let other = usize::from(role).checked_sub(1).and_then(|index| self.others.get(index));
        other.unwrap_or(&self.first)
    }
}

impl Ledger {
    /// What the members of a reservation take each, as they are now.
    pub fn shares(&self, reservation: &Reservation) -> Shares {
        match reservation.request.roles.is_empty() {
            true => Shares {
                first: self.split_countables(&reservation.request.pool, &reservation.amounts),
                others: Vec::new(),
            },
            false => self.shares_asked(&reservation.request),
        }
    }

    /// What the members of a request would take each.
    pub fn shares_asked(&self, request: &Request) -> Shares {
        let mut shares = request.kinds().map(|needs| self.split_countables(&request.pool, &needs.amounts));
        let first = shares.next().unwrap_or_default();
        Shares { first, others: shares.collect() }
    }
}

/// Members that play a role.
pub(crate) fn count_of(members: &[MemberPlacement], role: usize) -> u32 {
    members.iter().filter(|member| usize::from(member.role) == role).count() as u32
}

/// Which members of a new grant play no role there is, and of which roles there are too few or too many.
pub(crate) fn role_blockers(request: &Request, members: &[MemberPlacement]) -> Vec<Blocker> {
    let mut bad = Vec::new();
    if request.roles.is_empty() {
        if let Some(member) = members.iter().find(|member| member.role > 0) {
            bad.push(Blocker::new(Reason::InvalidArgument, "placement.role", member.role.into(), 0));
        }
        return bad;
    }
    for (index, role) in request.roles.iter().enumerate() {
        let count = count_of(members, index);
        let least = if mutant!("gang-without-a-role") { 0 } else { role.min_members };
        if !(least..=role.max_members).contains(&count) {
            let subject = format!("placement.members of role {}", role.name);
            let blocker =
                Blocker::new(Reason::InvalidArgument, subject, count.into(), role.min_members.into());
            bad.push(Blocker { limit: role.max_members.into(), ..blocker });
        }
    }
    if let Some(member) = members.iter().find(|member| usize::from(member.role) >= request.roles.len()) {
        let most = request.roles.len() as u64;
        bad.push(Blocker::new(Reason::InvalidArgument, "placement.role", member.role.into(), most));
    }
    bad
}

/// Every way in which what a request says of roles makes no sense, but for what each of them needs.
pub(crate) fn validate_roles(request: &Request) -> Vec<Blocker> {
    let mut bad = Vec::new();
    if request.roles.is_empty() {
        return bad;
    }
    let mut refuse = |field: String, value: u64, nearest: u64| {
        bad.push(Blocker::new(Reason::InvalidArgument, field, value, nearest));
    };
    let many = request.roles.len();
    if many > MAX_ROLES {
        refuse("roles".to_owned(), many as u64, MAX_ROLES as u64);
    }
    let mut seen = std::collections::BTreeSet::new();
    let (mut fewest, mut most) = (0_u64, 0_u64);
    for (index, role) in request.roles.iter().enumerate() {
        let field = |name: &str| format!("roles[{index}].{name}");
        if plimsoll_types::check_name(&role.name).is_err() {
            refuse(field(&format!("name {:?}", role.name)), role.name.len() as u64, 1);
        }
        if !seen.insert(&role.name) {
            refuse(field(&format!("name {:?}, which another has", role.name)), 2, 1);
        }
        if role.max_members == 0 || role.max_members > MAX_GANG_MEMBERS {
            let nearest = role.max_members.clamp(1, MAX_GANG_MEMBERS);
            refuse(field("max_members"), role.max_members.into(), nearest.into());
        }
        if role.min_members > role.max_members {
            refuse(field("min_members"), role.min_members.into(), role.max_members.into());
        }
        fewest += u64::from(role.min_members);
        most += u64::from(role.max_members);
    }
    // The sums of the roles' own.
    for (field, value, sum) in [
        ("gang.min_members of all roles", request.gang.min_members, fewest),
        ("gang.max_members of all roles", request.gang.max_members, most),
    ] {
        if u64::from(value) != sum {
            refuse(field.to_owned(), value.into(), sum);
        }
    }
    // What they need is said in the roles.
    let needs = &request.requirements;
    for (name, amount) in needs.amounts.iter() {
        refuse(format!("requirements.amounts.{name} beside roles"), amount.0, 0);
    }
    if let Some(gpu) = &needs.gpu {
        refuse("requirements.gpu beside roles".to_owned(), gpu.count.into(), 0);
    }
    for (name, amount) in request.burst.iter() {
        refuse(format!("burst.{name} beside roles"), amount.0, 0);
    }
    if request.topology.slice_size > 0 {
        refuse("topology.slice_size beside roles".to_owned(), request.topology.slice_size.into(), 0);
    }
    bad
}

/// True for what of a request ledgers before [`SINCE_VERSION`] do not know.
pub(crate) fn asks_for_roles(request: &Request) -> bool {
    !request.roles.is_empty()
}

fn charge_each<'a>(
    members: &[MemberPlacement],
    amounts: impl Fn(&MemberPlacement) -> &'a Resources,
) -> Option<Resources> {
    let mut all = Resources::default();
    for member in members {
        all.add_assign(&charge(amounts(member), std::slice::from_ref(member))?).ok()?;
    }
    Some(all)
}

#[cfg(test)]
mod tests {
    use plimsoll_types::NodeId;

    use super::*;
    use crate::GpuAsk;

    fn gang() -> Request {
        let role = |name: &str, cpu_millis: u64, gpus: u32, (min_members, max_members): (u32, u32)| Role {
            name: name.to_owned(),
            requirements: Requirements {
                amounts: Resources::new(cpu_millis, 0),
                gpu: (gpus > 0).then(|| GpuAsk::whole(gpus)),
                ..Requirements::default()
            },
            min_members,
            max_members,
        };
        Request {
            pool: "default".to_owned(),
            class: "standard".to_owned(),
            gang: Gang { min_members: 3, max_members: 5, spread: false },
            roles: vec![role("launcher", 500, 0, (1, 1)), role("worker", 2_000, 1, (2, 4))],
            ..Request::default()
        }
    }

    #[test]
    fn members_come_with_the_fewest_of_each_role_first() {
        let order: Vec<(u16, u32)> = gang().role_order().collect();
        assert_eq!(order, [(0, 1), (1, 2), (0, 0), (1, 2)]);
        let least = gang().least_of(3);
        assert_eq!((least.cpu_millis.0, least.get("gpu").0), (4_500, 2_000));
        assert_eq!(gang().least_of(4).cpu_millis.0, 6_500);
    }

    #[test]
    fn each_member_is_charged_for_its_role() {
        let member = |role| MemberPlacement { node: NodeId(0), devices: Vec::new(), role };
        let taken = gang().charge(&[member(0), member(1), member(1)]).expect("fits");
        assert_eq!(taken.cpu_millis.0, 4_500);
        assert!(role_blockers(&gang(), &[member(0), member(1), member(1)]).is_empty());
        let subjects = |members: &[MemberPlacement]| -> Vec<String> {
            role_blockers(&gang(), members).into_iter().map(|blocker| blocker.subject).collect()
        };
        assert_eq!(subjects(&[member(1), member(1)]), ["placement.members of role launcher"]);
        assert_eq!(
            subjects(&[member(0), member(0), member(1), member(7)]),
            ["placement.members of role launcher", "placement.members of role worker", "placement.role"]
        );
    }

    #[test]
    fn what_makes_no_sense_is_listed_whole() {
        assert!(validate_roles(&gang()).is_empty());
        let mut odd = gang();
        odd.roles[1].name = "launcher".to_owned();
        odd.roles[1].min_members = 9;
        odd.requirements.amounts = Resources::new(1, 0);
        let subjects: Vec<String> = validate_roles(&odd).into_iter().map(|blocker| blocker.subject).collect();
        assert_eq!(
            subjects,
            [
                "roles[1].name \"launcher\", which another has",
                "roles[1].min_members",
                "gang.min_members of all roles",
                "requirements.amounts.cpu beside roles"
            ]
        );
    }
}
