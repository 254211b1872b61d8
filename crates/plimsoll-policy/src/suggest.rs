//! "Did you mean": the known word that is nearest to what was written.

/// The known word nearest to `word`, if one is near enough to be meant. Case, `_` and `-` do not count.
pub fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let plain = plain(word);
    if plain.is_empty() {
        return None;
    }
    let near = known
        .iter()
        .map(|candidate| (strsim::damerau_levenshtein(&plain, &self::plain(candidate)), *candidate))
        .min_by_key(|(distance, _)| *distance);
    near.filter(|(distance, _)| *distance <= (plain.chars().count() / 3).max(1))
        .map(|(_, candidate)| candidate)
}

/// `; did you mean "x"?`, or what there is where nothing is near.
pub(crate) fn hint(word: &str, known: &[&str]) -> String {
    match (nearest(word, known), known) {
        (Some(candidate), _) => format!("; did you mean {candidate:?}?"),
        (None, []) => String::new(),
        (None, _) => format!("; there are: {}", known.join(", ")),
    }
}

fn plain(word: &str) -> String {
    word.chars().filter(|c| !matches!(c, '_' | '-')).flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_words_are_found_and_far_ones_are_not() {
        let known = ["strategy", "select", "maxPending", "best_fit", "first_fit"];
        for (word, expected) in [
            ("stratgy", Some("strategy")),
            ("max_pending", Some("maxPending")),
            ("maxpendign", Some("maxPending")),
            ("BestFit", Some("best_fit")),
            ("colour", None),
            ("", None),
            ("-", None),
        ] {
            assert_eq!(nearest(word, &known), expected, "{word:?}");
        }
        assert_eq!(hint("colour", &["a", "b"]), "; there are: a, b");
        assert_eq!(hint("colour", &[]), "");
    }
}
