//! `docs/cli.md` is what `plimsoll COMMAND --help` says, for every command.

use std::process::Command;

use crate::page;

const PATH: &str = "docs/cli.md";
const INTRODUCTION: &str = "\
# Command line

Every command with its arguments and flags, as `plimsoll COMMAND --help` prints them. The flags under *Connection* and *Output*
belong to every command and stand only under `plimsoll`. stdout is data, stderr is talk. Exit codes are in
[exit-codes.md](exit-codes.md), reasons of refusals in [errors.md](errors.md).

This page is written by its test: `PLIMSOLL_UPDATE_DOCS=1 cargo nextest run --workspace -E 'binary(docs)'`.
";

#[test]
fn the_page_is_the_help_of_every_command() {
    let mut wanted = INTRODUCTION.to_owned();
    add(&mut wanted, &[]);
    page::expect(PATH, &wanted);
}

/// A command and all below it.
fn add(page: &mut String, path: &[&str]) {
    let help = help(path);
    let own = match path {
        [] => help.as_str(),
        _ => own_part(&help),
    };
    let title = std::iter::once("plimsoll").chain(path.iter().copied()).collect::<Vec<_>>().join(" ");
    page.push_str(&format!("\n## {title}\n\n```text\n{}\n```\n", own.trim_end()));
    for name in commands(&help) {
        add(page, &[path, &[name]].concat());
    }
}

fn help(path: &[&str]) -> String {
    let mut command = Command::new(plimsoll_tests::plimsoll());
    // What the environment says must not be on the page.
    for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("PLIMSOLL")) {
        command.env_remove(name);
    }
    let out = command.env("COLUMNS", "100").args(path).arg("--help").output().expect("the binary runs");
    assert!(out.status.success(), "plimsoll {} --help", path.join(" "));
    let text = String::from_utf8(out.stdout).expect("help is text");
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

/// Without the flags of every command.
fn own_part(help: &str) -> &str {
    help.split_once("\nConnection:\n").map_or(help, |(own, _)| own)
}

/// Names in the list of commands.
fn commands(help: &str) -> Vec<&str> {
    let Some((_, list)) = help.split_once("\nCommands:\n") else { return Vec::new() };
    let lines = list.lines().take_while(|line| !line.is_empty());
    let entries = lines.filter_map(|line| line.strip_prefix("  ").filter(|rest| !rest.starts_with(' ')));
    entries.filter_map(|line| line.split_whitespace().next()).filter(|name| *name != "help").collect()
}
