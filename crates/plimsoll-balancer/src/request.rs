//! What a request tells the picker, and what the picker remembers of it until it ends.

use crate::endpoint::EndpointIndex;
use crate::predictive::Expected;

/// What is known of a request when its endpoint is chosen. Most policies read nothing of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Request<'a> {
    /// What ties requests together: equal keys go to one endpoint where [`Policy::Affinity`](crate::Policy) can have it so.
    pub key: u64,
    /// Its size in units of work: tokens of the prompt, bytes, or 1.
    pub units: u64,
    /// Ids of the blocks of its prompt, each standing for all before it too. Empty where it has none.
    pub blocks: &'a [u64],
    /// The model that it needs.
    pub model: Option<u64>,
    /// How long that model takes to load where it is not.
    pub model_load_us: u64,
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It was answered.
    Success {
        /// Size of the answer, in units of its own: tokens, messages, bytes; 1 where nobody counts.
        output_units: u64,
    },
    /// The endpoint failed it: what gRFC A50 counts against an endpoint. A request that its caller gave up is a [`Flight`] that is
    /// [cancelled](crate::Picker::cancelled).
    Failure,
}

/// A request on its way. Given back once, with [`Picker::finished`](crate::Picker::finished) or
/// [`Picker::cancelled`](crate::Picker::cancelled).
#[derive(Debug)]
#[must_use = "a request that never ends counts as outstanding for ever"]
pub struct Flight {
    pub(crate) endpoint: EndpointIndex,
    pub(crate) started_us: u64,
    pub(crate) expected: Expected,
    pub(crate) answered_us: Option<u64>,
}

impl Flight {
    /// Where it is.
    #[must_use]
    pub const fn endpoint(&self) -> EndpointIndex {
        self.endpoint
    }
}
