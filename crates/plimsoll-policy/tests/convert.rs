//! The free-form blocks that the product was asked for in, one by one: what they become, and what is said of the rest.
//!
//! `PLIMSOLL_UPDATE_DATA=1` writes the expected files anew.

use std::path::{Path, PathBuf};

use plimsoll_policy::{Converted, Source, convert, parse};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/seed-004")
}

fn blocks() -> Vec<(String, Source)> {
    let mut paths: Vec<PathBuf> = std::fs::read_dir(folder())
        .expect("the folder is there")
        .map(|entry| entry.expect("it can be listed").path())
        .filter(|path| path.extension().is_some_and(|end| end == "yaml"))
        .collect();
    paths.sort();
    let read = |path: &PathBuf| {
        let name = path.file_stem().expect("a name").to_string_lossy().into_owned();
        let text = std::fs::read_to_string(path).expect("it can be read");
        (name.clone(), Source { name: format!("{name}.yaml"), text })
    };
    paths.iter().map(read).collect()
}

fn shown(source: &Source) -> String {
    let converted = convert(std::slice::from_ref(source)).expect("it is YAML");
    let mut text = converted.to_yaml();
    for remark in &converted.remarks {
        text.push_str(&format!("# {remark}\n"));
    }
    text
}

#[test]
fn every_block_becomes_what_is_expected() {
    let blocks = blocks();
    assert_eq!(blocks.len(), 21, "every block of the seed");
    let update = std::env::var_os("PLIMSOLL_UPDATE_DATA").is_some();
    for (name, source) in &blocks {
        let path = folder().join(format!("{name}.expected"));
        let text = shown(source);
        if update {
            std::fs::write(&path, &text).expect("it can be written");
        }
        let expected =
            std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text, expected, "{name}");
    }
}

#[test]
fn what_comes_out_is_a_valid_file_for_the_kinds_that_exist() {
    let mut kinds = std::collections::BTreeMap::<String, usize>::new();
    for (name, source) in blocks() {
        let converted = convert(&[source]).expect("it is YAML");
        let mut known = Converted::default();
        for document in converted.documents {
            let kind = document["kind"].as_str().expect("a kind").to_owned();
            if !matches!(kind.as_str(), "Schedule" | "Quota") {
                known.documents.push(document);
            }
            *kinds.entry(kind).or_default() += 1;
        }
        let text = known.to_yaml();
        let parsed = parse(&[Source { name: name.clone(), text: text.clone() }]);
        let parsed = parsed.unwrap_or_else(|problems| panic!("{name}: {problems:?}\n{text}"));
        assert_eq!(parsed.len(), known.documents.len());
    }
    let kinds: Vec<&str> = kinds.keys().map(String::as_str).collect();
    assert_eq!(kinds, ["Class", "Pool", "Queue", "Quota", "Schedule", "Validator"]);
}

#[test]
fn every_value_is_in_a_document_or_told() {
    // A block that nobody knows is told as a whole, and the values of a known one that nobody looks at one by one.
    let source = |text: &str| [Source { name: "f".to_owned(), text: text.to_owned() }];
    let told = |text: &str| {
        let remarks = convert(&source(text)).unwrap().remarks;
        remarks.into_iter().map(|remark| remark.to_string()).collect::<Vec<_>>()
    };
    assert_eq!(told("colours: { red: 1, blue: [2, 3] }\n"), ["f:1:10: colours: has no counterpart yet"]);
    assert_eq!(
        told("queues:\n  configuration:\n    a: { max_size: 5, colour: red }\n    b: { max_size: many }\n"),
        [
            "f:3:31: queues.configuration.a.colour: has no counterpart yet",
            "f:4:20: queues.configuration.b.max_size: is not a whole number"
        ]
    );
    assert_eq!(told("just text\n"), ["f:1:1: the document: has no counterpart yet"]);
    assert!(convert(&source("a: [1")).is_err());
}
