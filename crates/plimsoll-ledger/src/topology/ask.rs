//! What a request asks of the places of its members.

/// How near each other the members of a request have to be. Levels are those of its pool, or `node`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Topology {
    /// All members in one domain of this level; empty where any will do.
    pub required: String,
    /// Rather all in one domain of this level, or of the next outer one, and so on up to `required`; empty for no wish.
    pub preferred: String,
    /// Members in groups of so many, in their order, each group in one domain of `slice_level`; 0 for no groups.
    pub slice_size: u32,
    /// Level of the groups; empty for no groups.
    pub slice_level: String,
}

/// A rule about other work: requests of the same pool that carry a label and hold something.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Affinity {
    /// Key of the label that the others carry.
    pub key: String,
    /// Its value.
    pub value: String,
    /// Level of the domain in which they are looked for.
    pub level: String,
    /// 0: it must hold. 1 to 100: it should, and a place where it does scores so much more.
    pub weight: u32,
    /// Keep apart from them, in place of together with them.
    pub anti: bool,
}

impl Topology {
    /// True where any place will do.
    pub fn is_unconstrained(&self) -> bool {
        *self == Topology::default()
    }

    /// The levels that it names, with what they are named for.
    pub fn levels(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let named = [
            ("topology.required", self.required.as_str()),
            ("topology.preferred", self.preferred.as_str()),
            ("topology.slice_level", self.slice_level.as_str()),
        ];
        named.into_iter().filter(|(_, level)| !level.is_empty())
    }

    /// Members of a group: 1 where there are no groups.
    pub fn group(&self) -> u32 {
        self.slice_size.max(1)
    }
}

impl Affinity {
    /// True for a rule that must hold.
    pub fn is_required(&self) -> bool {
        self.weight == 0
    }
}

impl std::fmt::Display for Affinity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}={}@{}", self.key, self.value, self.level)
    }
}
