//! `apply`, `diff`, `delete` and `validate` against a real `plimsoll dev`: what they do, print, and how they end.

mod common;

use std::io::Write as _;
use std::path::PathBuf;
use std::process::{Output, Stdio};

use common::{Dev, command};
use serde_json::Value;

impl Dev {
    fn file(&self, name: &str, text: &str) -> String {
        let path = self.home.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    fn run(&self, arguments: &[&str]) -> Output {
        command(self.home.path(), arguments).output().unwrap()
    }

    /// stdout and stderr; it must end with `code`.
    fn both(&self, code: i32, arguments: &[&str]) -> (String, String) {
        let output = self.run(arguments);
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{arguments:?}: {stderr}");
        (String::from_utf8(output.stdout).unwrap(), stderr)
    }

    fn text(&self, code: i32, arguments: &[&str]) -> String {
        self.both(code, arguments).0
    }

    fn json(&self, arguments: &[&str]) -> Value {
        serde_json::from_str(&self.text(0, &[arguments, &["-o", "json"]].concat())).unwrap()
    }

    fn names(&self, noun: &str) -> Vec<String> {
        self.text(0, &["get", noun, "-o", "name"]).lines().map(str::to_owned).collect()
    }
}

fn examples() -> String {
    let folder: PathBuf = [env!("CARGO_MANIFEST_DIR"), "../../deploy/examples"].iter().collect();
    folder.canonicalize().unwrap().display().to_string()
}

fn pool(name: &str, spec: &str) -> String {
    format!("apiVersion: plimsoll/v1\nkind: Pool\nmetadata: {{ name: {name} }}\nspec: {{ {spec} }}\n")
}

#[test]
fn files_are_applied_compared_and_deleted() {
    let dev = Dev::start(&[]);
    let folder = examples();
    assert_eq!(dev.text(10, &["diff", "-f", &folder, "--exit-code", "-o", "name"]).lines().count(), 22);
    let (told, said) = dev.both(0, &["apply", "-f", &folder]);
    assert!(told.contains("class/batch configured\n"), "{told}");
    assert!(told.contains("class/nightly created\n"), "{told}");
    assert!(told.contains("pool/training created\n"), "{told}");
    assert!(said.contains("19 created") && said.contains("at revision"), "{said}");
    let (told, said) = dev.both(0, &["apply", "-f", &folder]);
    assert!(told.lines().all(|line| line.ends_with(" unchanged")), "{told}");
    assert!(said.contains("Nothing was changed"), "{said}");
    assert_eq!(dev.text(0, &["diff", "-f", &folder, "--exit-code"]), "");

    // What `get -o yaml` shows is a file.
    for noun in ["pools", "classes", "limits", "queues", "quotas", "validators"] {
        let shown = dev.file("shown.yaml", &dev.text(0, &["get", noun, "-o", "yaml"]));
        let rows = dev.json(&["apply", "-f", &shown]);
        assert!(rows.as_array().unwrap().iter().all(|row| row["result"] == "unchanged"), "{rows}");
        assert_eq!(rows.as_array().unwrap().len(), dev.names(noun).len(), "{noun}");
    }

    let changed = dev.file("scratch.yaml", &pool("scratch", "strategy: random, maxPending: 5"));
    let told = dev.text(0, &["diff", "-f", &changed]);
    for line in [
        "--- cluster/pool/scratch\n",
        "-  strategy: first_fit\n",
        "+  strategy: random\n",
        "+  maxPending: 5\n",
    ] {
        assert!(told.contains(line), "{told}");
    }
    let rows = dev.json(&["diff", "-f", &changed]);
    assert_eq!(rows[0]["changes"][0]["field"], "spec.strategy");
    assert_eq!(
        (&rows[0]["changes"][0]["from"], &rows[0]["changes"][0]["to"]),
        (&"first_fit".into(), &"random".into())
    );

    assert_eq!(dev.text(0, &["delete", "-f", &changed]), "pool/scratch deleted\n");
    let (_, said) = dev.both(5, &["delete", "-f", &changed]);
    assert!(said.contains("exit 5"), "{said}");
    assert_eq!(dev.text(0, &["delete", "-f", &changed, "--ignore-not-found"]), "pool/scratch absent\n");
    assert_eq!(dev.text(0, &["delete", "limits", "edge", "large-hosts", "edge"]).lines().count(), 2);
    assert_eq!(dev.names("limits"), Vec::<String>::new());
}

#[test]
fn a_step_is_all_or_nothing() {
    let dev = Dev::start(&[]);
    let file = dev.file("two.yaml", &format!("{}---\n{}", pool("one", ""), pool("two", "")));
    dev.text(0, &["apply", "-f", &file]);
    let (told, said) = dev.both(1, &["delete", "pool", "one", "default"]);
    assert!(told.is_empty() && said.contains("default"), "{told}{said}");
    assert_eq!(dev.names("pools"), ["default", "one", "two"], "nothing was deleted");
    // One document of two is wrong: the good one is not applied either.
    let file =
        dev.file("bad.yaml", &format!("{}---\n{}", pool("three", ""), pool("four", "strategy: bestfit")));
    let (told, said) = dev.both(2, &["apply", "-f", &file]);
    assert!(told.is_empty(), "{told}");
    assert!(
        said.contains("bad.yaml:9:19: spec.strategy \"bestfit\" is not known; did you mean \"best_fit\"?"),
        "{said}"
    );
    assert!(!dev.names("pools").contains(&"three".to_owned()));
}

#[test]
fn dry_runs_and_old_revisions_change_nothing() {
    let dev = Dev::start(&[]);
    let file = dev.file("one.yaml", &pool("one", ""));
    for place in ["client", "server"] {
        let option = format!("--dry-run={place}");
        assert_eq!(dev.text(0, &["apply", "-f", &file, &option]), "pool/one created (dry run)\n");
        assert_eq!(dev.names("pools"), ["default"]);
    }
    assert_eq!(dev.text(0, &["apply", "-f", &file]), "pool/one created\n");
    let changed = dev.file("one.yaml", &pool("one", "maxPending: 3"));
    let (_, said) = dev.both(6, &["apply", "-f", &changed, "--if-revision", "1"]);
    assert!(said.contains("REVISION_MOVED"), "{said}");
    for place in ["client", "server"] {
        let option = format!("--dry-run={place}");
        assert_eq!(dev.text(0, &["delete", "pool", "one", &option]), "pool/one deleted (dry run)\n");
        assert!(dev.run(&["delete", "pool", "none", &option]).status.code() == Some(5));
    }
    assert_eq!(dev.names("pools"), ["default", "one"]);
    let pool = &dev.json(&["get", "pool", "one"])[0];
    let revision = pool["revision"].as_str().map_or_else(|| pool["revision"].to_string(), str::to_owned);
    dev.text(0, &["apply", "-f", &changed, "--if-revision", &revision]);
}

#[test]
fn validate_needs_no_cluster_and_tells_everything() {
    let home = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str], stdin: &str| {
        let mut child = command(home.path(), arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        let output = child.wait_with_output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    let (code, told, _) = run(&["validate", "-f", &examples(), "-f", "-"], &pool("piped", ""));
    assert_eq!((code, told.lines().count()), (Some(0), 23), "{told}");
    assert!(told.ends_with("pool/piped valid\n"), "{told}");

    let wrong = "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: { name: gpu }\nspec:\n  stratgy: best_fit\n  maxPending: x\n";
    let (code, told, said) = run(&["validate", "-f", "-"], wrong);
    assert_eq!((code, told.as_str()), (Some(2), ""));
    let expected = "\
error: not valid: 2 things are wrong
  · stdin:5:3: unknown key \"stratgy\" in spec; did you mean \"strategy\"?
    5 |   stratgy: best_fit
      |   ^^^^^^^
  · stdin:6:15: spec.maxPending is \"x\", a whole number is expected
    6 |   maxPending: x
      |               ^
  (INVALID_ARGUMENT, exit 2)
";
    assert_eq!(said, expected);
    let (_, _, said) = run(&["validate", "-f", "-", "-o", "json"], wrong);
    let status: Value = serde_json::from_str(&said).unwrap();
    let fields = &status["details"][1]["fieldViolations"];
    assert_eq!(fields[0]["field"], "stdin:5:3");
    assert_eq!(fields.as_array().unwrap().len(), 2);

    for (code, arguments) in [
        (2, &["validate"][..]),
        (2, &["validate", "-f", "-"]),
        (2, &["delete"]),
        (2, &["delete", "node", "x"]),
        (2, &["delete", "pool"]),
        (1, &["apply", "-f", "no-such-file.yaml"]),
        (8, &["--addr", "127.0.0.1:1", "--timeout", "300ms", "diff", "-f", &examples()]),
    ] {
        let (ended, _, said) = run(arguments, "");
        assert_eq!(ended, Some(code), "{arguments:?}: {said}");
    }
}

#[test]
fn variables_are_filled_in_where_the_file_is_read() {
    let home = tempfile::tempdir().unwrap();
    let file = home.path().join("p.yaml");
    let text = "apiVersion: plimsoll/v1\nkind: Pool\nmetadata:\n  name: ${TEAM}-gpu\nspec:\n  maxPending: ${MOST:-7}\n";
    std::fs::write(&file, text).unwrap();
    let validate = |set: bool| {
        let mut command = command(home.path(), &["validate", "-f", "p.yaml"]);
        if set {
            command.env("TEAM", "vision");
        }
        let output = command.stdin(Stdio::null()).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    };
    assert_eq!(validate(true).1, "pool/vision-gpu valid\n");
    let (code, told, said) = validate(false);
    assert_eq!((code, told.as_str()), (Some(2), ""));
    assert!(said.contains("p.yaml:4:9: the variable TEAM is not set"), "{said}");
}

#[test]
fn pruning_deletes_what_is_selected_and_in_no_file() {
    let dev = Dev::start(&[]);
    let of = |name: &str, owner: &str| {
        format!(
            "apiVersion: plimsoll/v1\nkind: Pool\nmetadata: {{ name: {name}, labels: {{ owner: {owner} }} }}\n"
        )
    };
    let three = format!("{}---\n{}---\n{}", of("one", "a"), of("two", "a"), of("three", "b"));
    dev.text(0, &["apply", "-f", &dev.file("three.yaml", &three)]);
    let one = dev.file("one.yaml", &of("one", "a"));
    let dry = dev.text(0, &["apply", "-f", &one, "--prune", "-l", "owner=a", "--dry-run"]);
    assert_eq!(dry, "pool/one unchanged (dry run)\npool/two pruned (dry run)\n");
    assert_eq!(dev.names("pools").len(), 4);
    let told = dev.text(0, &["apply", "-f", &one, "--prune", "-l", "owner=a"]);
    assert_eq!(told, "pool/one unchanged\npool/two pruned\n");
    assert_eq!(dev.names("pools"), ["default", "one", "three"]);
    dev.text(2, &["apply", "-f", &one, "--prune"]);
}
