//! The coordinator under attack: one process with a configuration file.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use plimsoll_client::{Client, ClientOptions, v1};

use super::Authority;
use crate::{plimsoll, ports};

/// Longest wait for it to serve.
const PATIENCE: Duration = Duration::from_secs(30);

/// One coordinator process, alone in its cluster.
pub struct Target {
    /// Where clients call.
    pub address: String,
    /// Where it serves HTTP.
    pub http: String,
    /// Present where it has TLS.
    pub authority: Option<Authority>,
    data: PathBuf,
    folder: tempfile::TempDir,
    child: Child,
}

impl Target {
    /// Without TLS, with this text in its configuration file, such as `[limits]`.
    pub async fn start(config: &str) -> Target {
        Target::start_at(config, None, false).await
    }

    /// With TLS.
    pub async fn start_tls(config: &str) -> Target {
        Target::start_at(config, None, true).await
    }

    /// With its data in a folder elsewhere.
    pub async fn start_in(config: &str, data: &Path) -> Target {
        Target::start_at(config, Some(data), false).await
    }

    async fn start_at(config: &str, data: Option<&Path>, tls: bool) -> Target {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let authority = tls.then(|| Authority::create(folder.path()));
        let mut text = "cluster = \"hostile\"\nbootstrap = true\n".to_owned();
        text.push_str(config);
        if let Some(authority) = &authority {
            let at = |name: &str| authority.file(name).display().to_string();
            let (ca, cert, key) = (at("ca.pem"), at("server.crt"), at("server.key"));
            // Writing to a string cannot fail.
            let _ = write!(text, "\n[tls]\nca = {ca:?}\ncert = {cert:?}\nkey = {key:?}\n");
        }
        std::fs::write(folder.path().join("config.toml"), text).expect("written");
        let at = || format!("127.0.0.1:{}", ports::free());
        let (address, http) = (at(), at());
        let data = data.map_or_else(|| folder.path().join("data"), Path::to_owned);
        let child = spawn(folder.path(), &data, &address, &http);
        let mut target = Target { address, http, authority, data, folder, child };
        target.wait().await;
        target
    }

    /// Starts it again after it ended, on the same data.
    pub async fn restart(&mut self) {
        self.child = spawn(self.folder.path(), &self.data, &self.address, &self.http);
        self.wait().await;
    }

    /// Waits until it serves.
    async fn wait(&mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            let served = if self.authority.is_some() {
                self.cli(&["cluster", "status"]).status.success()
            } else {
                let options = ClientOptions::default().timeout(Duration::from_secs(2));
                match Client::connect([self.address.clone()], options).await {
                    Ok(client) => client
                        .get_status(v1::GetStatusRequest::default())
                        .await
                        .is_ok_and(|answer| answer.status.is_some_and(|status| status.leader_id > 0)),
                    Err(_) => false,
                }
            };
            if served {
                return;
            }
            assert!(self.exit().is_none(), "it ended: {}", self.log());
            assert!(Instant::now() < until, "it never served: {}", self.log());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// A well-behaved client; without TLS only.
    pub async fn client(&self) -> Client {
        let options = ClientOptions::default().timeout(PATIENCE);
        Client::connect([self.address.clone()], options).await.expect("it answers")
    }

    /// The command line against it.
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        let mut command = Command::new(plimsoll());
        command.env("PLIMSOLL_HOME", self.folder.path().join("home")).args(["--addr", &self.address]);
        if let Some(authority) = &self.authority {
            for (flag, name) in [("--ca", "ca.pem"), ("--cert", "client.crt"), ("--key", "client.key")] {
                command.arg(flag).arg(authority.file(name));
            }
        }
        command.args(arguments).output().expect("the command line runs")
    }

    /// How it ended; `None` while it runs.
    pub fn exit(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is a child of ours")
    }

    /// How it ended, if it ends within `patience`.
    pub async fn wait_exit(&mut self, patience: Duration) -> Option<ExitStatus> {
        let until = Instant::now() + patience;
        while Instant::now() < until {
            if let Some(status) = self.exit() {
                return Some(status);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        None
    }

    /// Memory that it has now, and the most that it ever had, in MiB.
    pub fn memory_mib(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()));
        let status = status.expect("it runs");
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_matches(|c: char| !c.is_ascii_digit()).parse::<u64>().unwrap_or(0)
        };
        (kib("VmRSS:") >> 10, kib("VmHWM:") >> 10)
    }

    /// Its own files: data directory.
    pub fn data(&self) -> &Path {
        &self.data
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.folder.path().join("log.txt")).unwrap_or_default()
    }

    /// One of its numbers, as `/metrics` has it; without TLS only.
    pub async fn metric(&self, name: &str) -> Option<f64> {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let mut stream = tokio::net::TcpStream::connect(&self.http).await.ok()?;
        let request = b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n";
        stream.write_all(request).await.ok()?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await.ok()?;
        let line =
            text.lines().find(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(' ')))?;
        line.rsplit(' ').next()?.parse().ok()
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

fn spawn(folder: &Path, data: &Path, address: &str, http: &str) -> Child {
    let log = std::fs::File::options().create(true).append(true).open(folder.join("log.txt"));
    let log = log.expect("a log file");
    Command::new(plimsoll())
        .env("PLIMSOLL_HOME", folder.join("home"))
        .args(["coordinator", "--node-id", "1", "--listen", address, "--http-listen", http])
        .arg("--config")
        .arg(folder.join("config.toml"))
        .arg("--data-dir")
        .arg(data)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a second handle"))
        .stderr(log)
        .spawn()
        .expect("the coordinator starts")
}
