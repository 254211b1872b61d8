//! This machine: its name, and its agent where one listens.

use std::path::PathBuf;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::UnixStream;
use tokio::time::{Duration, timeout};

use crate::paths;

/// Longest wait for the agent on this machine.
const AGENT_WAIT: Duration = Duration::from_millis(200);

/// Where the agent of this machine listens, in the environment.
pub(crate) const AGENT_SOCKET: &str = "PLIMSOLL_AGENT_SOCKET";

/// The name that this machine's agent has, unless it is told another one: the host name, as names must be.
pub(crate) fn host_name() -> String {
    let raw = nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default();
    let short = raw.split('.').next().unwrap_or_default().to_lowercase();
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let clean: String = short.chars().map(|c| if allowed(c) { c } else { '-' }).take(63).collect();
    let clean = clean.trim_matches('-');
    if clean.is_empty() { "this-machine".to_owned() } else { clean.to_owned() }
}

/// The socket of this machine's agent.
pub(crate) fn agent_socket() -> PathBuf {
    match std::env::var_os(AGENT_SOCKET).filter(|path| !path.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => paths::runtime_dir().join("agent.sock"),
    }
}

/// Ties a process to a lease, so that the agent ends it with the lease even where this process is gone. No agent on this
/// machine, or one that does not hold the lease, is normal.
pub(crate) async fn attach_to_agent(token: u64, pid: u32) {
    let socket = agent_socket();
    let talk = async {
        let mut stream = UnixStream::connect(&socket).await?;
        let body = format!(r#"{{"token":{token},"pid":{pid}}}"#);
        let request = format!(
            "POST /v1/attach HTTP/1.1\r\nhost: agent\r\ncontent-type: application/json\r\ncontent-length: {}\r\nconnection: close\r\n\r\n{body}",
            body.len()
        );
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 64];
        let read = stream.read(&mut answer).await?;
        std::io::Result::Ok(
            String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned(),
        )
    };
    match timeout(AGENT_WAIT, talk).await {
        Ok(Ok(answer)) => tracing::debug!(%answer, "told the agent of this machine"),
        Ok(Err(error)) => tracing::debug!(%error, socket = %socket.display(), "no agent on this machine"),
        Err(_) => tracing::debug!("the agent of this machine does not answer"),
    }
}
