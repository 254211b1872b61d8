//! Which member a connection on this machine belongs to: the kernel says which process has it, and its command line which member that is.

use std::fs;
use std::path::Path;

/// The member whose process has the end with local port `theirs` of the connection to port `ours`.
pub(super) fn of(theirs: u16, ours: u16) -> Option<u64> {
    let (_, id) = process(theirs, ours, |line| member(line).is_some())?;
    id
}

/// Process and member of a connection, among the processes whose command line is of interest.
fn process(theirs: u16, ours: u16, is_of_interest: impl Fn(&[u8]) -> bool) -> Option<(u32, Option<u64>)> {
    let table = fs::read_to_string("/proc/net/tcp").ok()?;
    let inode = table.lines().skip(1).find_map(|line| inode_of(line, theirs, ours))?;
    let socket = format!("socket:[{inode}]");
    for entry in fs::read_dir("/proc").ok()?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if is_of_interest(&line) && has(&entry.path(), &socket) {
            return Some((pid, member(&line)));
        }
    }
    None
}

fn has(process: &Path, socket: &str) -> bool {
    let Ok(entries) = fs::read_dir(process.join("fd")) else { return false };
    entries.flatten().any(|entry| fs::read_link(entry.path()).is_ok_and(|to| to.as_os_str() == socket))
}

/// The value of `--node-id` in a command line, whose arguments end with zero bytes.
fn member(line: &[u8]) -> Option<u64> {
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.find(|argument| *argument == b"--node-id")?;
    std::str::from_utf8(arguments.next()?).ok()?.parse().ok()
}

/// Columns: number, local address, remote address, state, queues, timer, retransmissions, uid, timeout, inode.
fn inode_of(line: &str, local: u16, remote: u16) -> Option<u64> {
    let columns: Vec<&str> = line.split_whitespace().collect();
    let port = |column: usize| u16::from_str_radix(columns.get(column)?.rsplit(':').next()?, 16).ok();
    if port(1)? != local || port(2)? != remote {
        return None;
    }
    columns.get(9)?.parse().ok().filter(|inode| *inode > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let stream = std::net::TcpStream::connect(("127.0.0.1", port)).unwrap();
        let theirs = stream.local_addr().unwrap().port();
        let _accepted = listener.accept().unwrap();
        assert_eq!(process(theirs, port, |_| true), Some((std::process::id(), None)));
        assert_eq!(of(theirs, port), None, "this is no member");
    }

    #[test]
    fn a_member_is_known_by_its_command_line() {
        assert_eq!(member(b"plimsoll\0coordinator\0--node-id\x0012\0--listen\0"), Some(12));
        assert_eq!(member(b"plimsoll\0agent\0"), None);
    }
}
