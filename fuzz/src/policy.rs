//! Policy files: YAML of people and of programs.

use plimsoll_policy::{Source, parse, parse_with, to_yaml};

/// Reads the input as a policy file. What is accepted means the same when it is written again; what is refused is refused
/// with a place and words.
pub fn run(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let source = |text: &str| [Source { name: "input.yaml".to_owned(), text: text.to_owned() }];
    let _ = parse_with(&source(text), &|name| (name == "SET").then(|| "a\"b: {".to_owned()));
    match parse(&source(text)) {
        Ok(parsed) => {
            let objects: Vec<_> = parsed.into_iter().map(|parsed| parsed.object).collect();
            let written = to_yaml(&objects);
            match parse(&source(&written)) {
                Ok(again) => {
                    let again: Vec<_> = again.into_iter().map(|parsed| parsed.object).collect();
                    assert_eq!(again, objects, "written as\n{written}");
                }
                Err(problems) => panic!("{problems:?} in what was written:\n{written}"),
            }
        }
        Err(problems) => assert!(!problems.is_empty(), "a refusal without a reason"),
    }
}

/// Files of every kind, and ones that are wrong.
pub fn seeds() -> Vec<Vec<u8>> {
    let files = [
        "apiVersion: plimsoll/v1\nkind: Pool\nmetadata:\n  name: research\nspec:\n  strategy: best_fit\n",
        "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: {name: a}\nspec:\n  select:\n  - key: zone\n    operator: In\n    values: [x, \"y\"]\n  countables:\n    license/matlab: 3\n",
        "apiVersion: plimsoll/v1\nkind: Class\nmetadata:\n  name: urgent\nspec:\n  priority: 900\n  preemptible: false\n",
        "apiVersion: plimsoll/v1\nkind: NodeLimits\nmetadata:\n  name: half\nspec:\n  max:\n    cpu: 1500m\n    memory: 1.5Gi\n",
        "- apiVersion: plimsoll/v1\n  kind: Class\n  metadata: {name: x}\n  spec: {priority: ${P:-3}}\n",
        "a: &x [*x]\n",
        "--- \n...\n---\n",
        "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: {name: a, name: b}\nspec: 5\n",
        "{\"apiVersion\":\"plimsoll/v1\",\"kind\":\"Pool\",\"metadata\":{\"name\":\"j\"},\"spec\":{}}",
        "[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[",
    ];
    files.iter().map(|file| file.as_bytes().to_vec()).collect()
}
