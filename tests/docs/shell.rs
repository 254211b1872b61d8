//! The shell blocks of each document run, in order, in one shell; `console` blocks show what must come out.

use std::fmt::Write as _;
use std::process::Command;
use std::time::Duration;

use crate::blocks::{Block, blocks};
use crate::checker::matches;
use crate::page;
use crate::session::Session;

/// Longest time for the blocks of one document.
const LIMIT: Duration = Duration::from_secs(120);
/// Ends the output of each step.
const MARK: &str = "@@step-ended";

/// Something to run, with what must come out.
struct Step {
    line: usize,
    command: String,
    shown: Vec<String>,
    /// Exit code; `None` where the output is that of the `plimsoll dev` which runs beside.
    exit: Option<i32>,
}

/// The commands of a console block: `$ ` begins one, `> ` goes on, all else is output. `# exit N` at its end says that
/// it fails, and how.
fn console(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for (index, line) in block.text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            let exit = command.rsplit_once("# exit ").and_then(|(_, code)| code.trim().parse().ok());
            let is_dev = command.starts_with("plimsoll dev");
            let exit = if is_dev { None } else { Some(exit.unwrap_or(0)) };
            let line = block.line + 1 + index;
            steps.push(Step { line, command: command.to_owned(), shown: Vec::new(), exit });
        } else {
            let step = steps.last_mut().unwrap_or_else(|| panic!("line {}: output of nothing", block.line));
            match line.strip_prefix("> ").filter(|_| step.shown.is_empty()) {
                Some(more) => write!(step.command, "\n{more}").expect("a string takes it"),
                None => step.shown.push(line.to_owned()),
            }
        }
    }
    steps
}

fn steps(blocks: &[Block]) -> Vec<Step> {
    let mut steps = Vec::new();
    for block in blocks {
        match block.language.as_str() {
            "console" => steps.extend(console(block)),
            _ => steps.push(Step {
                line: block.line,
                command: block.text.clone(),
                shown: Vec::new(),
                exit: Some(0),
            }),
        }
    }
    steps
}

/// Has the shell read the block without running it.
fn check_syntax(path: &str, block: &Block) {
    let text = match block.language.as_str() {
        "console" => console(block).into_iter().map(|step| step.command).collect::<Vec<_>>().join("\n"),
        _ => block.text.clone(),
    };
    let read = Command::new("bash").args(["-n", "-c", &text]).output().expect("bash runs");
    assert!(read.status.success(), "{path}:{}: {}", block.line, String::from_utf8_lossy(&read.stderr));
}

fn is_there(program: &str) -> bool {
    let found = Command::new("bash").args(["-c", &format!("command -v {program}")]).output();
    found.is_ok_and(|found| found.status.success())
}

/// Runs the shell blocks of a document.
fn run_page(path: &str) {
    let text = page::read(path);
    let mut wanted = Vec::new();
    for block in
        blocks(&text).into_iter().filter(|block| ["sh", "console"].contains(&block.language.as_str()))
    {
        check_syntax(path, &block);
        match block.needs() {
            _ if block.no_run().is_some() => {}
            Some(program) if !is_there(program) => eprintln!("{path}:{}: no {program}: skipped", block.line),
            _ => wanted.push(block),
        }
    }
    let steps = steps(&wanted);
    if steps.is_empty() {
        return;
    }
    let mut session = Session::new();
    let uses_dev = !text.contains("<!-- no dev -->");
    let dev = steps.iter().find(|step| step.exit.is_none());
    let arguments = dev.map_or("--fake-gpu a100:2", |step| &step.command["plimsoll dev".len()..]);
    let dev_said = if uses_dev { session.start_dev(arguments) } else { String::new() };

    let mut script = String::from("set -uo pipefail\n");
    for (index, step) in steps.iter().enumerate() {
        let command = if step.exit.is_none() { "true" } else { &session.localize(&step.command) };
        // In this shell, not a nested one: what a block exports or starts, the next one sees.
        writeln!(
            script,
            "set +e\n{{\n{command}\n}}\ncode=$?\nsleep 0.05\necho\necho \"{MARK} {index} $code\""
        )
        .expect("a string takes it");
        writeln!(script, "if [ $code != {} ]; then exit 9; fi", step.exit.unwrap_or(0))
            .expect("a string takes it");
    }
    // A script that a block ends with `exit` must not pass for one that was run.
    script.push_str("exit 33\n");
    let status = session.run(&script, LIMIT);
    let output = session.output();
    let mut rest = output.as_str();
    for (index, step) in steps.iter().enumerate() {
        let place = format!("{path}:{}: $ {}", step.line, step.command);
        let (said, after) = rest
            .split_once(&format!("{MARK} {index} "))
            .unwrap_or_else(|| panic!("{place}\ndid not come to its end:\n{rest}"));
        let (code, after) = after.split_once('\n').unwrap_or((after, ""));
        rest = after;
        let Some(exit) = step.exit else {
            assert_shown(&place, step, &dev_said);
            continue;
        };
        assert_eq!(code.parse(), Ok(exit), "{place}\nended with {code}:\n{said}");
        assert_shown(&place, step, said);
    }
    assert_eq!(status.code(), Some(33), "{path}: the blocks end the shell\n{output}");
}

fn assert_shown(place: &str, step: &Step, said: &str) {
    let shown: Vec<&str> =
        step.shown.iter().map(String::as_str).filter(|line| !line.trim().is_empty()).collect();
    let actual: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    if !shown.is_empty() {
        assert!(matches(&shown, &actual), "{place}\nis shown as\n{}\nbut says\n{said}", shown.join("\n"));
    }
}

/// One test for each document, so that they run beside each other and a failure names its page.
macro_rules! pages {
    ($($name:ident: $path:literal,)*) => {
        /// Documents with a test of their own.
        const NAMED: &[&str] = &[$($path),*];
        $(#[test]
        fn $name() {
            run_page($path);
        })*
    };
}

pages! {
    the_readme_runs: "README.md",
    contributing_runs: "CONTRIBUTING.md",
    the_page_on_encoding_runs: "docs/encoding.md",
    the_page_on_errors_runs: "docs/errors.md",
    the_page_on_exit_codes_runs: "docs/exit-codes.md",
    the_page_on_operations_runs: "docs/operations.md",
    the_page_on_scheduling_runs: "docs/scheduling.md",
    the_page_on_testability_runs: "docs/testability.md",
}

#[test]
fn all_other_documents_run() {
    for path in page::all().iter().filter(|path| !NAMED.contains(&path.as_str())) {
        eprintln!("{path}");
        run_page(path);
    }
}

/// `plimsoll validate` looks at objects without a cluster; until a build has it, only that there is an object is checked.
#[test]
fn yaml_blocks_are_valid_objects() {
    let binary = plimsoll_tests::plimsoll();
    let can_validate = Command::new(&binary).args(["validate", "--help"]).output().expect("it runs");
    for path in page::all() {
        let found = blocks(&page::read(&path));
        let yaml = found.iter().filter(|block| block.language == "yaml" && block.no_run().is_none());
        for block in yaml.filter(|block| block.text.contains("kind:")) {
            if !can_validate.status.success() {
                eprintln!("{path}:{}: not checked, as this build has no `validate`", block.line);
                continue;
            }
            let folder = tempfile::tempdir().expect("a temporary directory");
            let file = folder.path().join("block.yaml");
            std::fs::write(&file, &block.text).expect("a file in it");
            let out = Command::new(&binary)
                .env("PLIMSOLL_HOME", folder.path())
                .args(["validate", "-f"])
                .arg(&file)
                .output()
                .expect("it runs");
            let said = String::from_utf8_lossy(&out.stderr);
            assert!(out.status.success(), "{path}:{}: {said}", block.line);
        }
    }
}
