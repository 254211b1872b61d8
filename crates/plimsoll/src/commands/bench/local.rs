//! Coordinator processes of the benchmark's own: real data directories, every write synced, gone afterwards.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_client::v1::GetStatusRequest;
use plimsoll_client::{Client, ClientOptions};

use crate::error::CliError;

/// Longest wait for a process to serve.
const START_WAIT: Duration = Duration::from_secs(60);

/// Coordinators on loopback ports, one group.
pub(super) struct LocalCluster {
    members: Vec<Member>,
    root: tempfile::TempDir,
}

struct Member {
    id: u64,
    address: String,
    process: Option<Child>,
}

impl LocalCluster {
    /// Starts `count` coordinators with data under `folder` (the system's temporary folder for `None`) and joins them.
    pub(super) async fn start(count: u64, folder: Option<&Path>) -> Result<LocalCluster, CliError> {
        let made = folder.map_or_else(tempfile::tempdir, tempfile::tempdir_in);
        let root = made.map_err(|error| CliError::local("cannot make a data folder", error))?;
        let mut cluster = LocalCluster { members: Vec::new(), root };
        for id in 1..=count.max(1) {
            let free = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
            let port = free.map_err(|error| CliError::local("no free port", error))?.port();
            let address = format!("127.0.0.1:{port}");
            cluster.members.push(Member { id, address, process: None });
            cluster.spawn(id, id == 1)?;
            if id == 1 {
                cluster.leader().await?;
            } else {
                cluster.join(id).await?;
            }
        }
        Ok(cluster)
    }

    /// `HOST:PORT` of every member.
    pub(super) fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// Addresses of all members but one.
    pub(super) fn others(&self, id: u64) -> Vec<String> {
        self.members.iter().filter(|member| member.id != id).map(|member| member.address.clone()).collect()
    }

    /// Folder that holds the data.
    pub(super) fn folder(&self) -> &Path {
        self.root.path()
    }

    /// Process ids of the running members.
    pub(super) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| Some(member.process.as_ref()?.id())).collect()
    }

    /// CPU time of all members so far, in microseconds.
    pub(super) fn cpu_us(&self) -> u64 {
        self.pids().into_iter().filter_map(plimsoll_load::cpu_us).sum()
    }

    /// Ids of the members.
    pub(super) fn ids(&self) -> Vec<u64> {
        self.members.iter().map(|member| member.id).collect()
    }

    /// Waits until somebody leads; its id.
    pub(super) async fn leader(&self) -> Result<u64, CliError> {
        let client = self.client()?;
        let until = Instant::now() + START_WAIT;
        loop {
            if let Ok(answer) = client.get_status(GetStatusRequest {}).await
                && let Some(leader) = answer.status.map(|status| status.leader_id).filter(|id| *id > 0)
                && self.members.iter().any(|member| member.id == leader && member.process.is_some())
            {
                return Ok(leader);
            }
            if Instant::now() >= until {
                return Err(CliError::local("the benchmark's coordinators", self.log(1)));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// A client of all members.
    pub(super) fn client(&self) -> Result<Client, CliError> {
        client_of(self.addresses())
    }

    /// Kills a member without a word.
    pub(super) fn kill(&mut self, id: u64) -> Result<(), CliError> {
        let member = self.member_mut(id);
        if let Some(mut process) = member.process.take() {
            let ended = process.kill().and_then(|()| process.wait());
            ended.map_err(|error| CliError::local("cannot kill a coordinator", error))?;
        }
        Ok(())
    }

    /// Starts a member again on its data.
    pub(super) fn restart(&mut self, id: u64) -> Result<(), CliError> {
        self.spawn(id, false)
    }

    /// The last of what a member printed.
    fn log(&self, id: u64) -> String {
        let text = std::fs::read_to_string(self.folder_of(id).join("log.txt")).unwrap_or_default();
        let lines: Vec<&str> = text.lines().rev().take(20).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }

    fn folder_of(&self, id: u64) -> PathBuf {
        self.root.path().join(id.to_string())
    }

    fn member_mut(&mut self, id: u64) -> &mut Member {
        self.members.iter_mut().find(|member| member.id == id).expect("ids come from this list")
    }

    fn spawn(&mut self, id: u64, bootstrap: bool) -> Result<(), CliError> {
        let folder = self.folder_of(id);
        let doing = |error| CliError::local("cannot start a coordinator", error);
        std::fs::create_dir_all(&folder).map_err(doing)?;
        let log = std::fs::File::options().create(true).append(true).open(folder.join("log.txt"));
        let log = log.map_err(doing)?;
        let mut command = Command::new(std::env::current_exe().map_err(doing)?);
        let address = self.member_mut(id).address.clone();
        command.env("PLIMSOLL_HOME", folder.join("home")).args(["coordinator", "--cluster", "bench"]);
        command.args(["--listen", &address, "--node-id", &id.to_string()]);
        command.arg("--data-dir").arg(folder.join("data"));
        if bootstrap {
            command.arg("--bootstrap");
        }
        command.stdin(Stdio::null()).stdout(log.try_clone().map_err(doing)?).stderr(log);
        self.member_mut(id).process = Some(command.spawn().map_err(doing)?);
        Ok(())
    }

    /// `plimsoll cluster join`, again until the process serves.
    async fn join(&self, id: u64) -> Result<(), CliError> {
        let address = |member: &Member| member.address.clone();
        let joining = self.members.iter().find(|member| member.id == id).map(address);
        let joining = joining.expect("ids come from this list");
        let exe = std::env::current_exe().map_err(|error| CliError::local("cannot join", error))?;
        let until = Instant::now() + START_WAIT;
        loop {
            let mut command = tokio::process::Command::new(&exe);
            command.env("PLIMSOLL_HOME", self.folder().join("cli"));
            command.args(["--addr", &self.members[0].address, "cluster", "join", &joining]);
            let out = command.output().await.map_err(|error| CliError::local("cannot join", error))?;
            if out.status.success() {
                return Ok(());
            }
            if Instant::now() >= until {
                let said = String::from_utf8_lossy(&out.stderr).into_owned();
                return Err(CliError::local("a coordinator cannot join", said));
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Drop for LocalCluster {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            // They may be gone already; nothing is left to save either way.
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// A client with a deadline long enough for a loaded machine.
pub(super) fn client_of(addresses: Vec<String>) -> Result<Client, CliError> {
    let options = ClientOptions::default().timeout(Duration::from_secs(60));
    Client::new(addresses, options).map_err(super::failed("the cluster"))
}
