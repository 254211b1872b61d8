//! The policies by name, and all that can be set.

use std::fmt;
use std::str::FromStr;

use crate::ejection::EjectionSettings;
use crate::ewma::LatencySettings;
use crate::levels::LevelSettings;
use crate::predictive::PredictiveSettings;
use crate::report::ReportSettings;
use crate::ring::AffinitySettings;
use crate::slow_start::SlowStart;
use crate::subset::Subset;

/// How one endpoint is chosen among those of a level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// In turns, by weight: earliest deadline first.
    RoundRobin,
    /// The one with fewer outstanding requests for its weight, of two at random.
    LeastLoaded,
    /// The one with the lower peak EWMA of latency × (outstanding + 1), of two at random.
    Latency,
    /// In turns, by weights that follow from load reports.
    Weighted,
    /// The one that the request's key belongs to, while it is not given more than its bound.
    Affinity,
    /// The one that is expected to be done first.
    Predictive,
}

impl Policy {
    /// All, in the order of the documentation.
    pub const ALL: [Policy; 6] = [
        Policy::RoundRobin,
        Policy::LeastLoaded,
        Policy::Latency,
        Policy::Weighted,
        Policy::Affinity,
        Policy::Predictive,
    ];

    /// The name in policy files and on the command line.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Policy::RoundRobin => "round_robin",
            Policy::LeastLoaded => "least_loaded",
            Policy::Latency => "latency",
            Policy::Weighted => "weighted",
            Policy::Affinity => "affinity",
            Policy::Predictive => "predictive",
        }
    }
}

impl fmt::Display for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// No policy has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no load balancing policy is called {0:?}")]
pub struct UnknownPolicy(pub String);

impl FromStr for Policy {
    type Err = UnknownPolicy;

    fn from_str(name: &str) -> Result<Policy, UnknownPolicy> {
        let known = Policy::ALL.into_iter().find(|policy| policy.name() == name);
        known.ok_or_else(|| UnknownPolicy(name.to_owned()))
    }
}

/// What can be set. The defaults are those of the sources that each part names. Nothing is refused: what makes no sense counts as the
/// nearest value that does, as each field says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Spill-over between priority levels, and panic.
    pub levels: LevelSettings,
    /// Ejection of endpoints that fail; `None` for never.
    pub ejection: Option<EjectionSettings>,
    /// The ramp of new endpoints.
    pub slow_start: SlowStart,
    /// The part of the endpoints that this client uses; `None` for all.
    pub subset: Option<Subset>,
    /// Of [`Policy::Latency`].
    pub latency: LatencySettings,
    /// Of [`Policy::Weighted`].
    pub reports: ReportSettings,
    /// Of [`Policy::Affinity`].
    pub affinity: AffinitySettings,
    /// Of [`Policy::Predictive`].
    pub predictive: PredictiveSettings,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            levels: LevelSettings::default(),
            ejection: Some(EjectionSettings::default()),
            slow_start: SlowStart::default(),
            subset: None,
            latency: LatencySettings::default(),
            reports: ReportSettings::default(),
            affinity: AffinitySettings::default(),
            predictive: PredictiveSettings::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_lead_back_to_their_policies() {
        for policy in Policy::ALL {
            assert_eq!(policy.to_string().parse(), Ok(policy));
        }
        assert_eq!("".parse::<Policy>(), Err(UnknownPolicy(String::new())));
    }
}
