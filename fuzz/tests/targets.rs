//! Every target on its seeds, on the corpus, on inputs near both, and on what bolero's engine makes.

use plimsoll_fuzz::mutate::{Dice, near};
use plimsoll_fuzz::{TARGETS, Target};

/// Inputs near the seeds that are tried of each target, without an engine that is guided by coverage.
/// `PLIMSOLL_FUZZ_MUTATIONS` asks for more.
const MUTATIONS: u64 = 1_500;

fn target(name: &str) -> Target {
    TARGETS.into_iter().find(|target| target.name == name).expect("a target of this name")
}

/// What was kept because it found something once.
fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/corpus/{name}", env!("CARGO_MANIFEST_DIR"));
    let Ok(files) = std::fs::read_dir(&folder) else { return Vec::new() };
    let mut paths: Vec<_> = files.map(|file| file.expect("it can be listed").path()).collect();
    paths.sort();
    paths.into_iter().map(|path| std::fs::read(path).expect("it can be read")).collect()
}

/// Seeds, corpus, and inputs near them.
fn replay(target: Target) {
    let known = [(target.seeds)(), corpus(target.name)].concat();
    assert!(known.len() > 5, "{} has hardly any seeds", target.name);
    for input in &known {
        (target.run)(input);
    }
    let mutations = std::env::var("PLIMSOLL_FUZZ_MUTATIONS").ok().and_then(|text| text.parse().ok());
    let mut dice = Dice::new(known.len() as u64);
    for _ in 0..mutations.unwrap_or(MUTATIONS) {
        let input = near(&known[dice.below(known.len())], &known[dice.below(known.len())], &mut dice);
        if let Err(panic) = std::panic::catch_unwind(|| (target.run)(&input)) {
            // In a form that can be put into the corpus.
            let hex: String = input.iter().map(|byte| format!("{byte:02x}")).collect();
            eprintln!("{}: found with input {hex}", target.name);
            std::panic::resume_unwind(panic);
        }
    }
}

macro_rules! fuzz {
    ($($name:ident),*) => {$(
        #[test]
        fn $name() {
            let target = target(stringify!($name));
            replay(target);
            bolero::check!().for_each(|input: &[u8]| (target.run)(input));
        }
    )*};
}

fuzz!(api_messages, coordinator_config, expressions, ledger_commands, log_bytes, policy_files, quantities);

#[test]
fn the_sequences_reach_what_they_shall() {
    let seeds = plimsoll_fuzz::ledger::seeds();
    let granting = seeds.iter().filter(|input| plimsoll_fuzz::ledger::grants(input)).count();
    assert!(granting * 2 > seeds.len(), "{granting} of {} seeds grant something", seeds.len());
}
