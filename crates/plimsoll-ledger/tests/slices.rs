//! Devices that are cut into slices: what fits, where, and as how much it counts.

mod fixture;

use std::collections::BTreeSet;

use fixture::mig::{cut_in_eight, mig};
use fixture::{
    Fixture, GIB, active, at_start, cut_registration, gpu_request, on_device, registration, reservation,
};
use plimsoll_ledger::{
    Command, Device, DeviceGrant, DeviceUsage, GpuShare, LATEST_VERSION, MigLayout, MigSlices, Outcome,
    Placement, ProfileName, Reason, Request, Verdict, best_grant, instances_left, validate_registration,
};
use plimsoll_types::DeviceIndex;
use proptest::prelude::*;

const NAMES: [&str; 6] = ["1g.10gb", "1g.20gb", "2g.20gb", "3g.40gb", "4g.40gb", "7g.80gb"];

/// A ledger of the newest version; the first device of its only node is cut.
fn cut() -> Fixture {
    let mut f = Fixture::new(0);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    f.run(Command::RegisterNode(cut_registration(0, 1)));
    f
}

fn submit(name: &str, start: u8) -> Command {
    Command::Submit { request: instance(name), verdict: Verdict::Place(at_start(0, name, start)) }
}

fn instance(name: &str) -> Request {
    let mut request = active(gpu_request(mig(name)));
    request.requirements.amounts = plimsoll_types::Resources::default();
    request
}

fn board() -> Device {
    Device {
        uuid: "GPU-0".into(),
        model: "a100".into(),
        memory_bytes: 80 * GIB,
        failed: false,
        mig: Some(cut_in_eight()),
    }
}

fn named(name: &str) -> ProfileName {
    ProfileName::new(name).expect("a name")
}

fn best(usage: &DeviceUsage, name: &str) -> Option<DeviceGrant> {
    best_grant(DeviceIndex(0), &board(), usage, mig(name)).map(|(_, grant)| grant)
}

/// First free memory slices of instances that come one after the other.
fn starts_of(names: &[&str]) -> Vec<u8> {
    let mut usage = DeviceUsage::default();
    let mut starts = Vec::new();
    for name in names {
        let grant = best(&usage, name).expect("there is room");
        usage.add(&grant);
        starts.extend(grant.slices.map(|slices| slices.start));
    }
    starts
}

#[test]
fn a_device_that_is_cut_is_granted_by_profile_and_only_so() {
    let mut f = cut();
    for share in [GpuShare::Whole, GpuShare::Milli(500), GpuShare::Memory(GIB)] {
        let verdict = Verdict::Place(on_device(0, 0, share));
        let request = active(gpu_request(share));
        assert_eq!(f.refused(Command::Submit { request, verdict }), Reason::DeviceMismatch);
    }
    // The second device is not cut.
    let mut elsewhere = at_start(0, "1g.10gb", 0);
    elsewhere.members[0].devices[0].device = DeviceIndex(1);
    let verdict = Verdict::Place(elsewhere);
    assert_eq!(f.refused(Command::Submit { request: instance("1g.10gb"), verdict }), Reason::DeviceMismatch);
    let verdict = Verdict::Place(at_start(0, "1g.10gb", 0));
    assert_eq!(f.refused(Command::Submit { request: instance("1g.5gb"), verdict }), Reason::DeviceMismatch);
    let granted = reservation(f.run(submit("1g.10gb", 6)));
    let usage = f.ledger.usage(granted.members[0].node).expect("it is there").devices[0];
    assert_eq!((usage.milli, usage.memory_bytes, usage.memory_mask), (133, 10 * GIB, 1 << 6));
    f.run(Command::Release { reservation: granted.id, token: granted.token });
    let usage = f.ledger.usage(granted.members[0].node).expect("it is there").devices[0];
    assert_eq!(usage, DeviceUsage::default());
}

#[test]
fn an_instance_begins_where_the_hardware_lets_it_and_overlaps_nobody() {
    let mut f = cut();
    assert_eq!(f.refused(submit("3g.40gb", 2)), Reason::DeviceMismatch);
    assert_eq!(f.refused(submit("1g.10gb", 7)), Reason::DeviceMismatch, "the eighth slice is no start");
    reservation(f.run(submit("3g.40gb", 4)));
    assert_eq!(f.refused(submit("1g.10gb", 6)), Reason::NoCapacity);
    assert_eq!(f.refused(submit("7g.80gb", 0)), Reason::NoCapacity);
    reservation(f.run(submit("4g.40gb", 0)));
    assert_eq!(f.refused(submit("1g.10gb", 3)), Reason::NoCapacity);
    let usage = f.ledger.usage(plimsoll_types::NodeId(0)).expect("it is there").devices[0];
    assert_eq!((usage.compute_slices, usage.memory_slices, usage.milli), (7, 8, 999));
    // A lie about the slices is none that the profile allows.
    let mut f = cut();
    for change in [|slices: &mut MigSlices| slices.memory = 1, |slices: &mut MigSlices| slices.compute = 1] {
        let mut placement = at_start(0, "2g.20gb", 0);
        placement.members[0].devices[0].slices.as_mut().map(change).expect("it is an instance");
        let verdict = Verdict::Place(placement);
        let command = Command::Submit { request: instance("2g.20gb"), verdict };
        assert_eq!(f.refused(command), Reason::DeviceMismatch);
    }
}

#[test]
fn compute_may_run_out_before_memory_does() {
    let mut f = cut();
    for start in [0, 2, 4] {
        reservation(f.run(submit("2g.20gb", start)));
    }
    // One compute slice and two memory slices are left.
    reservation(f.run(submit("1g.20gb", 6)));
    let usage = f.ledger.usage(plimsoll_types::NodeId(0)).expect("it is there").devices[0];
    assert_eq!((usage.compute_slices, usage.memory_slices), (7, 8));
    let mut f = cut();
    for (name, start) in [("3g.40gb", 0), ("3g.40gb", 4)] {
        reservation(f.run(submit(name, start)));
    }
    let left = |name| {
        instances_left(&board(), &f.ledger.usage(plimsoll_types::NodeId(0)).unwrap().devices[0], named(name))
    };
    assert_eq!(NAMES.map(left), [0; 6], "the seventh compute slice has no memory beside it");
}

#[test]
fn a_device_changes_its_mode_only_when_empty() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: LATEST_VERSION });
    let half = GpuShare::Milli(500);
    let request = active(gpu_request(half));
    let shared = f.submit(request.clone(), on_device(0, 0, half));
    assert!(matches!(f.run(Command::RegisterNode(cut_registration(0, 1))), Outcome::Node(_)));
    assert_eq!(f.refused(submit("1g.10gb", 6)), Reason::NoCapacity, "a share is still there");
    f.run(Command::Release { reservation: shared.id, token: shared.token });
    let sliced = reservation(f.run(submit("1g.10gb", 6)));
    f.run(Command::RegisterNode(registration(0, 1)));
    let verdict = || Verdict::Place(on_device(0, 0, half));
    let again = || Command::Submit { request: request.clone(), verdict: verdict() };
    assert_eq!(f.refused(again()), Reason::NoCapacity, "an instance is still there");
    f.run(Command::Release { reservation: sliced.id, token: sliced.token });
    reservation(f.run(again()));
}

#[test]
fn before_version_5_nothing_is_cut() {
    let mut f = Fixture::new(1);
    f.run(Command::Upgrade { to: 4 });
    let register = Command::RegisterNode(cut_registration(0, 1));
    assert_eq!((register.since_version(), submit("1g.10gb", 0).since_version()), (5, 5));
    assert_eq!(f.refused(register), Reason::UnsupportedVersion);
    assert_eq!(f.refused(submit("1g.10gb", 0)), Reason::UnsupportedVersion);
    let known = cut_registration(0, 1).for_version(4);
    assert!(known.devices[0].failed && known.devices[0].mig.is_none() && !known.devices[1].failed);
    assert_eq!(Command::RegisterNode(known).since_version(), 1);
    let newest = cut_registration(0, 1).for_version(5);
    assert_eq!(newest, cut_registration(0, 1));
}

#[test]
fn layouts_that_make_no_sense_are_refused_with_what_is_wrong() {
    let wrong = |change: &dyn Fn(&mut MigLayout)| {
        let mut bad = cut_registration(0, 1);
        change(bad.devices[0].mig.as_mut().expect("it is cut"));
        let found = validate_registration(&bad);
        found.into_iter().map(|blocker| blocker.subject).collect::<Vec<_>>()
    };
    let of = |field: &str| format!("devices.mig.profiles[1g.10gb].{field}");
    assert_eq!(wrong(&|_| {}), Vec::<String>::new());
    assert_eq!(wrong(&|layout| layout.profiles[0].starts = vec![7, 8]), [of("starts")]);
    assert_eq!(wrong(&|layout| layout.profiles[0].starts = vec![3, 2]), [of("starts")]);
    assert_eq!(wrong(&|layout| layout.profiles[0].starts.clear()), [of("starts")]);
    assert_eq!(wrong(&|layout| layout.profiles[0].memory_bytes += 1), [of("memory_bytes")]);
    assert_eq!(wrong(&|layout| layout.profiles[0].compute_slices = 8), [of("compute_slices")]);
    assert_eq!(
        wrong(&|layout| layout.profiles[0].memory_slices = 0),
        [of("memory_slices"), of("memory_bytes")]
    );
    assert_eq!(wrong(&|layout| layout.profiles[1].name = layout.profiles[0].name), [of("name")]);
    assert_eq!(wrong(&|layout| layout.profiles.clear()), ["devices.mig.profiles"]);
    assert_eq!(wrong(&|layout| layout.compute_slices = 17), ["devices.mig.compute_slices"]);
}

#[test]
fn names_are_short_and_plain() {
    for good in ["1g.10gb", "1g.10gb+me", "2g.48gb-me", "x"] {
        assert_eq!(named(good).as_str(), good);
    }
    for bad in ["", "1G.10gb", "1g 10gb", "1g.10gb+me.all.and.much.more", "ü"] {
        assert_eq!(ProfileName::new(bad), None, "{bad}");
    }
    assert_eq!((named("3g.40gb").named_slices(), named("half").named_slices()), (Some(3), None));
    assert!(named("1g.10gb") < named("1g.20gb") && named("1g.1") < named("1g.10"));
}

#[test]
fn small_instances_go_to_the_end_and_keep_room_for_large_ones() {
    // As the driver itself places them: the last slices first, and the first half is kept for 4g.
    assert_eq!(starts_of(&["1g.10gb"; 7]), [6, 4, 5, 0, 1, 2, 3]);
    assert_eq!(starts_of(&["2g.20gb"; 3]), [4, 0, 2]);
    assert_eq!(starts_of(&["3g.40gb", "4g.40gb"]), [4, 0]);
    assert_eq!(starts_of(&["1g.10gb", "2g.20gb", "4g.40gb"]), [6, 4, 0]);
}

#[test]
fn slices_that_come_free_in_the_wrong_places_are_filled_first() {
    let mut usage = DeviceUsage::default();
    let grants: Vec<DeviceGrant> = (0..7)
        .map(|_| {
            let grant = best(&usage, "1g.10gb").expect("there is room");
            usage.add(&grant);
            grant
        })
        .collect();
    let at = |start: u8| {
        let starts = |grant: &&DeviceGrant| grant.slices.is_some_and(|slices| slices.start == start);
        *grants.iter().find(starts).expect("all seven are there")
    };
    for start in [0, 1, 2, 3, 5] {
        usage.remove(&at(start));
    }
    // 5 lies between two that stay: whoever takes 0 breaks the place of a 4g.
    assert_eq!(best(&usage, "1g.10gb").and_then(|grant| grant.slices).map(|slices| slices.start), Some(5));
    usage.add(&at(5));
    assert_eq!(instances_left(&board(), &usage, named("4g.40gb")), 1);
}

/// Arrivals and departures at random: how many of the large ones find no place, where the start is chosen by `choose`.
fn refused_large(seed: u64, choose: impl Fn(&DeviceUsage, &str) -> Option<DeviceGrant>) -> u32 {
    let mut random = seed;
    let mut draw = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    let (mut usage, mut there, mut refused) = (DeviceUsage::default(), Vec::new(), 0);
    for _ in 0..400 {
        // The same draws whatever was refused.
        let (leaves, who, which) = (draw(10) < 5, draw(7) as usize, draw(12) as usize);
        if leaves {
            if who < there.len() {
                usage.remove(&there.swap_remove(who));
            }
            continue;
        }
        let name = ["1g.10gb", "1g.10gb", "1g.10gb", "1g.10gb", "1g.20gb", "2g.20gb", "2g.20gb", "3g.40gb"]
            .get(which)
            .unwrap_or(&"4g.40gb");
        match choose(&usage, name) {
            Some(grant) => {
                usage.add(&grant);
                there.push(grant);
            }
            None => refused += u32::from(name.starts_with(['3', '4'])),
        }
    }
    refused
}

#[test]
fn the_rule_for_starts_refuses_fewer_large_instances_than_the_first_that_fits() {
    let layout = cut_in_eight();
    let first_fit = |usage: &DeviceUsage, name: &str| {
        let profile = layout.profile(named(name))?;
        let at = |start: &u8| at_start(0, name, *start).members[0].devices[0];
        let free = |grant: &DeviceGrant| grant.slices.is_some_and(|slices| layout.is_free(usage, slices));
        profile.starts.iter().map(at).find(free)
    };
    let ours: u32 = (0..200).map(|seed| refused_large(seed, best)).sum();
    let first: u32 = (0..200).map(|seed| refused_large(seed, first_fit)).sum();
    assert!(ours * 100 < first * 97, "{ours} were refused, {first} by first fit");
}

/// What the hardware allows, by trying every slice: slices of an instance from a start, where none is taken and compute is left.
fn naive(taken: &[(u8, u8, u8)], start: u8, memory: u8, compute: u8) -> bool {
    let slices = |start: u8, memory: u8| (start..start + memory).collect::<BTreeSet<u8>>();
    let all: BTreeSet<u8> = taken.iter().flat_map(|(start, memory, _)| slices(*start, *memory)).collect();
    let compute_taken: u8 = taken.iter().map(|(.., compute)| compute).sum();
    all.is_disjoint(&slices(start, memory)) && compute_taken + compute <= 7
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_ledger_grants_what_a_naive_packer_would_and_the_planners_choice_is_refused_only_where_no_start_is_left(
        steps in prop::collection::vec((0usize..6, 0u8..9, prop::bool::weighted(0.3), any::<usize>()), 1..40),
    ) {
        let mut f = cut();
        let mut held = Vec::new();
        for (kind, start, leaves, which) in steps {
            if leaves && !held.is_empty() {
                let (granted, _): (std::sync::Arc<plimsoll_ledger::Reservation>, _) =
                    held.swap_remove(which % held.len());
                f.run(Command::Release { reservation: granted.id, token: granted.token });
                continue;
            }
            let name = NAMES[kind];
            let profile = cut_in_eight().profile(named(name)).expect("it has such").clone();
            let (memory, compute) = (profile.memory_slices, profile.compute_slices);
            let taken: Vec<(u8, u8, u8)> = held.iter().map(|(_, place)| *place).collect();
            let usage = f.ledger.usage(plimsoll_types::NodeId(0)).expect("it is there").devices[0];
            let open: Vec<u8> =
                profile.starts.iter().copied().filter(|start| naive(&taken, *start, memory, compute)).collect();
            let chosen = best(&usage, name).and_then(|grant| grant.slices).map(|slices| slices.start);
            prop_assert_eq!(chosen.is_some(), !open.is_empty(), "{} beside {:?}", name, taken);
            prop_assert!(chosen.is_none_or(|chosen| open.contains(&chosen)));
            // No start leaves more of the largest that could still come, and so on down.
            let after = |start: u8| {
                let mut then = taken.clone();
                then.push((start, memory, 0));
                [8u8, 4, 2, 1].map(|size| {
                    let layout = cut_in_eight();
                    let of_size = layout.profiles.iter().filter(|other| other.memory_slices == size);
                    of_size.flat_map(|other| other.starts.clone()).filter(|at| naive(&then, *at, size, 0)).count()
                })
            };
            if let Some(chosen) = chosen {
                prop_assert!(open.iter().all(|other| after(*other) <= after(chosen)));
            }
            // A start of the caller's, allowed or not.
            let outcome = f.run(submit(name, start));
            let allowed = open.contains(&start);
            match outcome {
                Outcome::Reservation(granted) => {
                    prop_assert!(allowed, "{} from {} beside {:?}", name, start, taken);
                    held.push((granted, (start, memory, compute)));
                }
                Outcome::Refused(refusal) => {
                    prop_assert!(!allowed);
                    let is_start = profile.starts.contains(&start);
                    prop_assert_eq!(
                        refusal.reason, if is_start { Reason::NoCapacity } else { Reason::DeviceMismatch });
                }
                other => prop_assert!(false, "{:?}", other),
            }
            let usage = f.ledger.usage(plimsoll_types::NodeId(0)).expect("it is there").devices[0];
            prop_assert!(usage.milli <= 1_000 && usage.memory_bytes <= 80 * GIB);
        }
    }
}

#[test]
fn what_lies_on_a_device_counts_for_no_more_than_the_device() {
    let layout = cut_in_eight();
    let milli = |name: &str| layout.milli_of(layout.profile(named(name)).expect("it has such"));
    assert_eq!(NAMES.map(milli), [133, 196, 267, 464, 535, 1_000]);
    let placed = |names: &[&str]| {
        let mut usage = DeviceUsage::default();
        names.iter().for_each(|name| usage.add(&best(&usage, name).expect("there is room")));
        usage.milli
    };
    assert_eq!((placed(&["1g.10gb"; 7]), placed(&["4g.40gb", "3g.40gb"])), (931, 999));
}

#[test]
fn a_gang_lies_side_by_side_on_one_device() {
    let mut f = cut();
    let mut request = instance("2g.20gb");
    request.gang = plimsoll_ledger::Gang { min_members: 2, max_members: 2, spread: false };
    let both = |starts: [u8; 2]| {
        let members = starts.iter().flat_map(|start| at_start(0, "2g.20gb", *start).members).collect();
        Command::Submit { request: request.clone(), verdict: Verdict::Place(Placement { members }) }
    };
    assert_eq!(f.refused(both([2, 2])), Reason::NoCapacity);
    let granted = reservation(f.run(both([2, 4])));
    assert_eq!(granted.members.len(), 2);
}
