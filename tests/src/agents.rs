//! Real agent processes with pretended GPUs.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plimsoll_client::{Client, v1};

use crate::{Access, Cluster, plimsoll, ports};

/// Compute that each pretends to have, in cores.
const CORES: &str = "cpu=64";
/// Longest wait until all are registered.
const PATIENCE: Duration = Duration::from_secs(20);

/// One agent process.
pub struct Agent {
    /// Name of its node.
    pub name: String,
    /// Loopback address of its local API.
    pub local: String,
    child: Child,
}

/// Several.
pub struct Agents {
    /// The processes.
    pub all: Vec<Agent>,
}

impl Agents {
    /// Starts `count` agents named `agent-0` and so on, with these GPUs each (`a100:4`), and waits until the ledger has them.
    pub async fn start(count: usize, gpus: &str, cluster: &Cluster, client: &Client) -> Agents {
        let addresses = cluster.addresses().join(",");
        let start = |index: usize| {
            Agent::start(&format!("agent-{index}"), gpus, &addresses, cluster.root(), cluster.access())
        };
        let agents = Agents { all: (0..count).map(start).collect() };
        agents.wait(client).await;
        agents
    }

    /// Waits until the ledger takes all of them for available.
    pub async fn wait(&self, client: &Client) {
        let until = Instant::now() + PATIENCE;
        loop {
            let nodes =
                client.list_nodes(v1::ListNodesRequest { page_size: 1_000, ..Default::default() }).await;
            let nodes = nodes.map(|page| page.nodes).unwrap_or_default();
            let ready = |agent: &Agent| {
                nodes.iter().any(|node| node.id == agent.name && node.state() == v1::NodeState::Available)
            };
            if self.all.iter().all(ready) {
                return;
            }
            assert!(Instant::now() < until, "agents are missing: {nodes:?}");
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }
}

impl Agent {
    fn start(name: &str, gpus: &str, addresses: &str, dir: &Path, access: &Access) -> Agent {
        let dir = dir.join(name);
        std::fs::create_dir_all(&dir).expect("a folder");
        let log = std::fs::File::options().create(true).append(true).open(dir.join("log.txt"));
        let log = log.expect("a log file");
        let local = format!("127.0.0.1:{}", ports::free());
        let child = Command::new(plimsoll())
            .env("PLIMSOLL_HOME", dir.join("home"))
            .args(["--addr", addresses])
            .args(access.client_flags())
            .args(["agent", "--name", name, "--fake-gpu", gpus])
            .args(["--res", CORES, "--heartbeat", "1s", "--local-listen", &local])
            .arg("--socket")
            .arg(dir.join("agent.sock"))
            .arg("--storage")
            .arg(&dir)
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the agent starts");
        Agent { name: name.to_owned(), local, child }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, signal).expect("it was running");
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
