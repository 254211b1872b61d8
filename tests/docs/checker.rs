//! Does an output look as the document shows it?

/// Compares lines. A line `...` stands for any lines, `...` in a line for any text; how much space is between two words
/// does not matter, as tables are as wide as what they hold.
pub(crate) fn matches(shown: &[&str], actual: &[&str]) -> bool {
    match shown.split_first() {
        None => actual.iter().all(|line| line.trim().is_empty()),
        Some((line, rest)) if line.trim() == "..." => {
            (0..=actual.len()).any(|skipped| matches(rest, &actual[skipped..]))
        }
        Some((line, rest)) => {
            actual.split_first().is_some_and(|(is, more)| line_matches(line, is) && matches(rest, more))
        }
    }
}

fn line_matches(shown: &str, actual: &str) -> bool {
    let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let (shown, actual) = (words(shown), words(actual));
    let mut parts = shown.split("...");
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = actual.strip_prefix(first) else { return false };
    let parts: Vec<&str> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn dots_stand_for_text_and_lines() {
    assert!(line_matches("r-...  held ... ok", "r-0005   held  x y  ok"));
    assert!(!line_matches("r-... held", "r-0005 active"));
    assert!(!line_matches("same", "same and more"));
    assert!(matches(&["a", "...", "d"], &["a", "b", "c", "d"]));
    assert!(matches(&["a", "..."], &["a"]));
    assert!(!matches(&["a", "d"], &["a", "c", "d"]));
    assert!(!matches(&["a"], &["a", "b"]));
}
