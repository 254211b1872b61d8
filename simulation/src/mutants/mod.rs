//! Runs every seeded bug against the nets that are to catch it (`docs/seeded-bugs.md`).

mod build;
mod list;
mod net;

use std::collections::BTreeMap;
use std::time::Instant;

pub use build::Built;
pub use list::{NOT_THERE, SEEDED, Seeded};
pub use net::{Catch, MOST_SEEDS, Net};

/// Runs those of these names, or all for none; says which net caught each. With `every_net` the others are tried too.
///
/// # Errors
/// A bug that no net caught, a net that fails without any bug, or one that cannot be run.
pub fn run(only: &[String], every_net: bool) -> Result<(), String> {
    let chosen: Vec<&Seeded> =
        SEEDED.iter().filter(|one| only.is_empty() || only.iter().any(|name| name == one.name)).collect();
    if chosen.is_empty() {
        return Err(format!("no seeded bug is called {}", only.join(" or ")));
    }
    let began = Instant::now();
    let built = Built::new()?;
    let mut sound = BTreeMap::new();
    let mut missed = Vec::new();
    for one in &chosen {
        let mut caught = false;
        for net in one.nets {
            check_sound(&built, *net, &mut sound)?;
            let catch = net.run(&built, Some(one.name))?;
            tell(one, *net, &catch);
            caught |= catch.caught;
            if caught && !every_net {
                break;
            }
        }
        if !caught {
            missed.push(one.name);
        }
    }
    for (what, why) in NOT_THERE {
        println!("not there {what}: {why}");
    }
    println!(
        "{} of {} seeded bugs were caught, in {} s",
        chosen.len() - missed.len(),
        chosen.len(),
        began.elapsed().as_secs()
    );
    if missed.is_empty() { Ok(()) } else { Err(format!("no net caught {}", missed.join(", "))) }
}

/// A net that fails without any seeded bug proves nothing. Seeds are looked at one by one.
fn check_sound(built: &Built, net: Net, sound: &mut BTreeMap<String, ()>) -> Result<(), String> {
    if net == Net::Seeds || sound.contains_key(&net.name()) {
        return Ok(());
    }
    let without = net.run(built, None)?;
    if without.caught {
        return Err(format!("{} fails without any seeded bug: {}", net.name(), without.said));
    }
    sound.insert(net.name(), ());
    Ok(())
}

fn tell(one: &Seeded, net: Net, catch: &Catch) {
    let word = if catch.caught { "caught" } else { "missed" };
    let seeds = match catch.seeds {
        0 => String::new(),
        seeds => format!(", {seeds} seeds"),
    };
    let took_ms = catch.took.as_millis();
    println!(
        "{word}    {:<24} by {:<36} {:>4}.{} s{seeds}: {}",
        one.name,
        net.name(),
        took_ms / 1_000,
        took_ms % 1_000 / 100,
        if catch.said.is_empty() { one.what } else { &catch.said }
    );
}
