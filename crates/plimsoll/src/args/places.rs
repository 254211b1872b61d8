//! Where members are: levels of the pool's topology, and other work that they are with or apart from.

use clap::Args;
use plimsoll_client::v1::{Affinity, Topology};

use crate::error::CliError;

/// Where members are beside each other and beside other work.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Resources")]
pub(crate) struct PlaceArgs {
    /// Members together: required=zone, preferred=rack, slices=8@rack; with commas between (repeatable)
    #[arg(long, value_name = "HOW=LEVEL")]
    pub(crate) topology: Vec<String>,
    /// With work that carries a label, on the same node or in the same domain of a level: app=db, app=db@rack; a wish with a weight: 50:app=db@rack (repeatable)
    #[arg(long, value_name = "[WEIGHT:]KEY=VALUE[@LEVEL]")]
    pub(crate) affinity: Vec<String>,
    /// Apart from work that carries a label: app=web, app=web@rack; a wish with a weight: 50:app=web@rack (repeatable)
    #[arg(long, value_name = "[WEIGHT:]KEY=VALUE[@LEVEL]")]
    pub(crate) anti_affinity: Vec<String>,
}

impl PlaceArgs {
    /// How near each other members have to be; `None` where nothing is said.
    pub(crate) fn topology(&self) -> Result<Option<Topology>, CliError> {
        let mut topology = Topology::default();
        for part in self.topology.iter().flat_map(|text| text.split(',')) {
            match part.split_once('=') {
                Some(("required", level)) if !level.is_empty() => topology.required = level.to_owned(),
                Some(("preferred", level)) if !level.is_empty() => topology.preferred = level.to_owned(),
                Some(("slices", slices)) => {
                    let parts =
                        slices.split_once('@').and_then(|(size, level)| Some((size.parse().ok()?, level)));
                    let Some((size @ 1.., level)) = parts else {
                        return Err(CliError::usage(format!(
                            "--topology {part:?}: slices are SIZE@LEVEL, as 8@rack"
                        )));
                    };
                    (topology.slice_size, topology.slice_level) = (size, level.to_owned());
                }
                _ => {
                    let error = format!(
                        "--topology {part:?} is not required=LEVEL, preferred=LEVEL or slices=SIZE@LEVEL"
                    );
                    return Err(CliError::usage(error));
                }
            }
        }
        Ok((topology != Topology::default()).then_some(topology))
    }

    /// Rules about other work.
    pub(crate) fn affinity(&self) -> Result<Vec<Affinity>, CliError> {
        let with = self.affinity.iter().map(|text| rule("--affinity", text, false));
        with.chain(self.anti_affinity.iter().map(|text| rule("--anti-affinity", text, true))).collect()
    }
}

fn rule(flag: &str, text: &str, anti: bool) -> Result<Affinity, CliError> {
    let weighed = text.split_once(':').and_then(|(weight, rest)| Some((weight.parse::<u32>().ok()?, rest)));
    let (weight, rest) = weighed.unwrap_or((0, text));
    let bad = || {
        CliError::usage(format!("{flag} {text:?} is not [WEIGHT:]KEY=VALUE[@LEVEL], WEIGHT from 1 to 100"))
    };
    if weighed.is_some() && !(1..=100).contains(&weight) {
        return Err(bad());
    }
    let (key, value) = rest.split_once('=').filter(|(key, _)| !key.is_empty()).ok_or_else(bad)?;
    let (value, level) = value.rsplit_once('@').unwrap_or((value, ""));
    Ok(Affinity { key: key.to_owned(), value: value.to_owned(), level: level.to_owned(), weight, anti })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_say_levels_and_rules() {
        let words = |texts: &[&str]| texts.iter().map(|text| (*text).to_owned()).collect::<Vec<_>>();
        let args = PlaceArgs {
            topology: words(&["required=block,preferred=rack", "slices=8@rack"]),
            affinity: words(&["app=db@rack", "50:app=cache"]),
            anti_affinity: words(&["app=web@zone"]),
        };
        let topology = args.topology().unwrap().unwrap();
        assert_eq!((topology.required.as_str(), topology.preferred.as_str()), ("block", "rack"));
        assert_eq!((topology.slice_size, topology.slice_level.as_str()), (8, "rack"));
        let rules: Vec<_> =
            args.affinity().unwrap().into_iter().map(|r| (r.value, r.level, r.weight, r.anti)).collect();
        let rule =
            |value: &str, level: &str, weight, anti| (value.to_owned(), level.to_owned(), weight, anti);
        assert_eq!(
            rules,
            [rule("db", "rack", 0, false), rule("cache", "", 50, false), rule("web", "zone", 0, true)]
        );
        assert_eq!(PlaceArgs::default().topology().unwrap(), None);
        for bad in ["rack", "wanted=rack", "slices=rack", "slices=0@rack", "required="] {
            assert!(
                PlaceArgs { topology: words(&[bad]), ..PlaceArgs::default() }.topology().is_err(),
                "{bad}"
            );
        }
        for bad in ["web", "0:app=web", "101:app=web@rack", "=web"] {
            assert!(
                PlaceArgs { affinity: words(&[bad]), ..PlaceArgs::default() }.affinity().is_err(),
                "{bad}"
            );
        }
    }
}
