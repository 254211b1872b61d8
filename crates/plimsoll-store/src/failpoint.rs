//! Places at which a test lets the process die. Only test builds have them: elsewhere `failpoint!` is nothing at all.
//!
//! `PLIMSOLL_FAILPOINT=NAME:N` kills the process when it comes to `NAME` for the N-th time. With
//! `PLIMSOLL_FAILPOINT=list` it writes `failpoint NAME` to stdout each time instead, so that a test knows how often it can die
//! where.

use std::collections::BTreeMap;
use std::sync::{LazyLock, Mutex};

/// The variable that says where to die.
pub(crate) const VARIABLE: &str = "PLIMSOLL_FAILPOINT";
/// What it holds where passing through is to be told.
pub(crate) const LIST: &str = "list";

enum Wanted {
    Nothing,
    List,
    Die { name: String, hit: u64 },
}

static WANTED: LazyLock<Wanted> = LazyLock::new(|| match std::env::var(VARIABLE).as_deref() {
    Ok(LIST) => Wanted::List,
    Ok(text) => {
        let (name, hit) = text.rsplit_once(':').expect("NAME:N");
        Wanted::Die { name: name.to_owned(), hit: hit.parse().expect("a number") }
    }
    Err(_) => Wanted::Nothing,
});

static HITS: Mutex<BTreeMap<&'static str, u64>> = Mutex::new(BTreeMap::new());

/// The process has come to `name`.
pub(crate) fn hit(name: &'static str) {
    match &*WANTED {
        Wanted::Nothing => {}
        Wanted::List => println!("\nfailpoint {name}"),
        Wanted::Die { name: wanted, hit } => {
            if wanted == name {
                let mut hits = HITS.lock().expect("nothing panics while it is held");
                let hits = hits.entry(name).or_default();
                *hits += 1;
                if hits == hit {
                    std::process::abort();
                }
            }
        }
    }
}
