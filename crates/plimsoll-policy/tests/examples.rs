//! Every example that we ship is valid, is in the canonical values, and shows each kind.

use std::collections::BTreeSet;
use std::path::Path;

use plimsoll_policy::{Source, kind_word, parse, to_yaml};

#[test]
fn every_example_is_valid_and_reads_back() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/examples");
    let mut kinds = BTreeSet::new();
    let mut files = 0;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "yaml") {
            continue;
        }
        files += 1;
        let source =
            Source { name: path.display().to_string(), text: std::fs::read_to_string(&path).unwrap() };
        let shown = |problems: Vec<plimsoll_policy::Problem>| {
            problems.iter().map(|problem| format!("{problem}\n")).collect::<String>()
        };
        let parsed = parse(&[source]).unwrap_or_else(|problems| panic!("{}", shown(problems)));
        let objects: Vec<_> = parsed.into_iter().map(|parsed| parsed.object).collect();
        assert!(!objects.is_empty(), "{}", path.display());
        kinds.extend(objects.iter().map(|object| kind_word(&object.name())));
        let again = Source { name: "again".into(), text: to_yaml(&objects) };
        let again: Vec<_> = parse(&[again]).unwrap().into_iter().map(|parsed| parsed.object).collect();
        assert_eq!(again, objects, "{}", path.display());
    }
    assert!(files >= 4, "{files} files");
    let kinds: Vec<&str> = kinds.into_iter().collect();
    assert_eq!(kinds, ["Class", "NodeLimits", "Pool", "Queue", "Quota", "Schedule", "Validator"]);
}
