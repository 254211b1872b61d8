//! Which of several kinds of machines is bought for those who wait: each that would do is an option, and a list of rules picks one.
//!
//! The rules are asked one after the other, and each leaves those that are best by it; where several are left in the end, the one that was
//! declared first is it. An option whose template failed lately is looked at only where no other would do.

use std::cmp::Ordering;
use std::fmt;

/// A rule by which an option is better than another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Expander {
    /// Less of what is bought stays unused.
    LeastWaste,
    /// What is served costs less.
    Price,
    /// Its template has the higher priority.
    Priority,
}

impl Expander {
    /// All of them, by the names that people write.
    pub const NAMED: [(&str, Expander); 3] =
        [("leastWaste", Expander::LeastWaste), ("price", Expander::Price), ("priority", Expander::Priority)];

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        Expander::NAMED.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

/// What buying machines of one template would come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScaleOption {
    /// Name of the template.
    pub template: String,
    /// So many machines.
    pub machines: u64,
    /// Requests that they would hold; 0 where machines are bought for none in particular.
    pub fits: u64,
    /// What these machines have: thousandths of cores, bytes of memory, thousandths of GPUs.
    pub offered: [u64; 3],
    /// What of it those requests ask.
    pub asked: [u64; 3],
    /// What these machines cost, in whatever unit all options are counted in.
    pub cost: u64,
    /// Of the template; the higher the better.
    pub priority: u32,
    /// The template failed lately, and its back-off is not over.
    pub resting: bool,
}

impl ScaleOption {
    /// What stays unused, in thousandths: the mean, over those of cores, memory and GPUs that the machines have, of the share that is not asked;
    /// rounded down.
    #[must_use]
    pub fn waste_permille(&self) -> u64 {
        let unused = self.offered.iter().zip(self.asked).filter(|(offered, _)| **offered > 0).map(
            |(offered, asked)| {
                let left = u128::from(offered.saturating_sub(asked));
                u64::try_from(left * 1_000 / u128::from(*offered)).unwrap_or(1_000)
            },
        );
        let (sum, count) = unused.fold((0, 0), |(sum, count), one| (sum + one, count + 1));
        sum.checked_div(count).unwrap_or(0)
    }

    /// What its cost is shared among: the requests that it holds, or the machines where there are none.
    fn served(&self) -> u64 {
        if self.fits > 0 { self.fits } else { self.machines.max(1) }
    }

    /// Less is better.
    fn compare(&self, other: &ScaleOption, by: Expander) -> Ordering {
        match by {
            Expander::LeastWaste => self.waste_permille().cmp(&other.waste_permille()),
            Expander::Price => {
                let own = u128::from(self.cost) * u128::from(other.served());
                own.cmp(&(u128::from(other.cost) * u128::from(self.served())))
            }
            Expander::Priority => other.priority.cmp(&self.priority),
        }
    }
}

/// The option that was picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which of the options, counted from 0.
    pub index: usize,
    /// Why.
    pub by: ChosenBy,
}

/// What singled an option out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChosenBy {
    /// No other would do now.
    Alone,
    /// The last rule that was needed.
    Rule(Expander),
    /// It was declared before others that are as good.
    Order,
}

impl fmt::Display for ChosenBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChosenBy::Alone => f.write_str("no other would do now"),
            ChosenBy::Rule(rule) => write!(f, "by {}", rule.name()),
            ChosenBy::Order => f.write_str("declared first"),
        }
    }
}

/// Picks one of the options; `None` where there are none. Options that hold nothing, beside others that do, are no options: leave them out.
#[must_use]
pub fn choose(options: &[ScaleOption], expanders: &[Expander]) -> Option<Choice> {
    let fresh = |index: &usize| options.get(*index).is_some_and(|option| !option.resting);
    let mut left: Vec<usize> = (0..options.len()).filter(fresh).collect();
    if left.is_empty() {
        left = (0..options.len()).collect();
    }
    let mut by = if left.len() == 1 { ChosenBy::Alone } else { ChosenBy::Order };
    for rule in expanders {
        if left.len() < 2 {
            break;
        }
        let best = left
            .iter()
            .filter_map(|index| options.get(*index))
            .reduce(|best, option| if option.compare(best, *rule) == Ordering::Less { option } else { best });
        let Some(best) = best else { break };
        let is_as_good = |index: &usize| {
            options.get(*index).is_some_and(|option| option.compare(best, *rule) == Ordering::Equal)
        };
        left.retain(is_as_good);
        if left.len() == 1 {
            by = ChosenBy::Rule(*rule);
        }
    }
    left.first().map(|index| Choice { index: *index, by })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn option(template: &str, machines: u64, fits: u64, cost: u64) -> ScaleOption {
        ScaleOption { template: template.to_owned(), machines, fits, cost, ..ScaleOption::default() }
    }

    #[test]
    fn waste_is_the_mean_share_that_nobody_asks() {
        let half = ScaleOption { offered: [4_000, 1_000, 0], asked: [2_000, 500, 0], ..option("a", 1, 1, 1) };
        assert_eq!(half.waste_permille(), 500);
        // A whole GPU that nobody wants weighs as much as the other two.
        let gpu = ScaleOption { offered: [4_000, 1_000, 1_000], ..half.clone() };
        assert_eq!(gpu.waste_permille(), (500 + 500 + 1_000) / 3);
        let full = ScaleOption { asked: [9_000, 9_000, 0], ..half };
        assert_eq!((full.waste_permille(), option("b", 1, 1, 1).waste_permille()), (0, 0));
    }

    #[test]
    fn the_price_is_that_of_one_who_is_served() {
        let options = [option("dear", 1, 2, 700), option("cheap", 1, 2, 200), option("large", 2, 9, 800)];
        let choice = choose(&options, &[Expander::Price]);
        assert_eq!(choice, Some(Choice { index: 2, by: ChosenBy::Rule(Expander::Price) }));
        // Without anybody who waits, that of one machine.
        let idle = [option("dear", 3, 0, 900), option("cheap", 1, 0, 200)];
        assert_eq!(choose(&idle, &[Expander::Price]).map(|choice| choice.index), Some(1));
    }

    #[test]
    fn later_rules_break_ties_and_the_order_the_last() {
        let mut options = vec![option("a", 1, 1, 5), option("b", 1, 1, 3), option("c", 1, 1, 3)];
        let rules = [Expander::Price, Expander::Priority];
        let by_order = Choice { index: 1, by: ChosenBy::Order };
        assert_eq!(choose(&options, &rules), Some(by_order));
        options[2].priority = 1;
        let by_priority = Choice { index: 2, by: ChosenBy::Rule(Expander::Priority) };
        assert_eq!(choose(&options, &rules), Some(by_priority));
        assert_eq!(choose(&options, &[]).map(|choice| choice.index), Some(0));
        assert_eq!(choose(&[], &rules), None);
    }

    #[test]
    fn one_that_failed_lately_is_taken_where_no_other_would_do() {
        let mut options = vec![option("a", 1, 1, 1), option("b", 1, 1, 9)];
        options[0].resting = true;
        assert_eq!(choose(&options, &[Expander::Price]), Some(Choice { index: 1, by: ChosenBy::Alone }));
        options[1].resting = true;
        assert_eq!(choose(&options, &[Expander::Price]).map(|choice| choice.index), Some(0));
    }

    fn options() -> impl Strategy<Value = Vec<ScaleOption>> {
        let amounts = || (0..4u64, 0..4u64, 0..3u64).prop_map(|(cpu, memory, gpu)| [cpu, memory, gpu]);
        let one = (1..5u64, 0..4u64, amounts(), amounts(), 0..6u64, 0..3u32, any::<bool>()).prop_map(
            |(machines, fits, offered, asked, cost, priority, resting)| ScaleOption {
                template: String::new(),
                machines,
                fits,
                offered,
                asked,
                cost,
                priority,
                resting,
            },
        );
        vec(one, 0..8)
    }

    /// Better by the first rule that tells them apart, in fractions as one learns them at school.
    fn beats(one: &ScaleOption, other: &ScaleOption, rules: &[Expander]) -> bool {
        if one.resting != other.resting {
            return other.resting;
        }
        let waste = |option: &ScaleOption| {
            let kinds: Vec<usize> = (0..3).filter(|kind| option.offered[*kind] > 0).collect();
            let unused = |kind: &usize| {
                let (offered, asked) =
                    (option.offered[*kind], option.asked[*kind].min(option.offered[*kind]));
                (offered - asked) * 1_000 / offered
            };
            kinds.iter().map(unused).sum::<u64>() / kinds.len().max(1) as u64
        };
        let people = |option: &ScaleOption| if option.fits == 0 { option.machines } else { option.fits };
        for rule in rules {
            let (mine, theirs) = match rule {
                Expander::LeastWaste => (waste(one), waste(other)),
                Expander::Price => (one.cost * people(other), other.cost * people(one)),
                Expander::Priority => (u64::from(other.priority), u64::from(one.priority)),
            };
            if mine != theirs {
                return mine < theirs;
            }
        }
        false
    }

    proptest! {
        #[test]
        fn nobody_beats_the_one_that_is_picked(
            options in options(),
            rules in vec(select(Expander::NAMED.map(|(_, rule)| rule).to_vec()), 0..4),
        ) {
            let unbeaten = |one: &&ScaleOption| !options.iter().any(|other| beats(other, one, &rules));
            let oracle = options.iter().find(unbeaten);
            let picked = choose(&options, &rules);
            prop_assert_eq!(picked.and_then(|choice| options.get(choice.index)), oracle);
            let first = options.iter().position(|one| unbeaten(&one));
            prop_assert_eq!(picked.map(|choice| choice.index), first);
        }
    }
}
