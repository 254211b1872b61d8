//! `docs/exit-codes.md` has the table that the binary itself prints.

use std::process::Command;

use crate::page;

#[test]
fn the_table_of_exit_codes_is_that_of_the_binary() {
    let out = Command::new(plimsoll_tests::plimsoll()).args(["man", "exit-codes"]).output().expect("it runs");
    let manual = String::from_utf8(out.stdout).expect("the manual is text");
    let lines: Vec<&str> = manual.lines().collect();
    let printed: Vec<String> = lines
        .windows(2)
        .filter_map(|pair| Some(format!("| {} | {} |", pair[0].strip_prefix(".B ")?, pair[1])))
        .collect();
    assert!(printed.len() > 10, "{manual}");
    let text = page::read("docs/exit-codes.md");
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| {
            line.strip_prefix("| ").is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()))
        })
        .collect();
    assert_eq!(rows, printed);
}
