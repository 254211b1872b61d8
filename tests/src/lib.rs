//! Fixtures of the end-to-end tests: real coordinator processes on loopback ports, and the traces where they are at hand.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use plimsoll_client::{Client, ClientOptions, v1};

/// The binary under test: beside the test's own executable.
pub fn plimsoll() -> PathBuf {
    let mut path = std::env::current_exe().expect("a test has an executable");
    path.pop();
    path.pop();
    path.push("plimsoll");
    assert!(path.exists(), "{} is not built: cargo build --workspace --bins", path.display());
    path
}

/// A file of `../shared/traces`, unpacked into `dir`; `None` (with a message) where the folder is absent.
pub fn trace(name: &str, dir: &Path) -> Option<PathBuf> {
    let packed =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/traces").join(format!("{name}.csv.gz"));
    if !packed.exists() {
        eprintln!("skipped: {} is not there", packed.display());
        return None;
    }
    let path = dir.join(format!("{name}.csv"));
    let out = std::fs::File::create(&path).expect("a file in a temporary directory");
    let status = Command::new("gzip").arg("-dc").arg(&packed).stdout(out).status().expect("gzip runs");
    assert!(status.success());
    Some(path)
}

/// One coordinator process.
pub struct Coordinator {
    /// Its id.
    pub id: u64,
    /// Where it listens.
    pub address: String,
    dir: PathBuf,
    child: Child,
}

/// Several of one group.
pub struct Cluster {
    /// The processes.
    pub members: Vec<Coordinator>,
    root: tempfile::TempDir,
}

impl Coordinator {
    fn start(id: u64, address: &str, dir: &Path, bootstrap: bool) -> Coordinator {
        std::fs::create_dir_all(dir).expect("a data directory");
        let log =
            std::fs::File::options().create(true).append(true).open(dir.join("log.txt")).expect("a log file");
        let mut command = Command::new(plimsoll());
        command.env("PLIMSOLL_HOME", dir.join("home"));
        command.args(["coordinator", "--cluster", "e2e", "--listen", address, "--node-id", &id.to_string()]);
        command.arg("--data-dir").arg(dir.join("data"));
        if bootstrap {
            command.arg("--bootstrap");
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("a second handle"))
            .stderr(log)
            .spawn()
            .expect("the coordinator starts");
        Coordinator { id, address: address.to_owned(), dir: dir.to_owned(), child }
    }

    /// Kills it without a word.
    pub fn kill(&mut self) {
        self.child.kill().expect("it was running");
        self.child.wait().expect("it is a child of ours");
    }

    /// Asks it to stop and waits; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let pid = nix::unistd::Pid::from_raw(i32::try_from(self.child.id()).expect("a pid"));
        nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("it was running");
        self.child.wait().expect("it is a child of ours").code()
    }

    /// Starts it again on the same data.
    pub fn restart(&mut self) {
        let (id, address, dir) = (self.id, self.address.clone(), self.dir.clone());
        self.child = Coordinator::start(id, &address, &dir, false).child;
    }

    /// Empties its data directory. It must not be running.
    pub fn wipe(&self) {
        std::fs::remove_dir_all(self.dir.join("data")).expect("it had data");
    }

    /// What it printed.
    pub fn log(&self) -> String {
        std::fs::read_to_string(self.dir.join("log.txt")).unwrap_or_default()
    }
}

impl Cluster {
    /// `count` coordinators, joined to one group, with a leader.
    pub async fn start(count: u64) -> Cluster {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster { members: Vec::new(), root };
        for id in 1..=count {
            cluster.spawn(id, id == 1);
        }
        let client = Client::connect([cluster.members[0].address.clone()], options())
            .await
            .expect("the first answers");
        wait_for_leader(&client).await;
        for id in 2..=count {
            cluster.join(id);
        }
        cluster
    }

    /// Starts one more process, not yet a member.
    pub fn spawn(&mut self, id: u64, bootstrap: bool) {
        let port = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").port();
        let dir = self.root.path().join(id.to_string());
        self.members.push(Coordinator::start(id, &format!("127.0.0.1:{port}"), &dir, bootstrap));
    }

    /// `plimsoll cluster join` of a running process.
    pub fn join(&self, id: u64) {
        let address = self.member(id).address.clone();
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            let out = self.cli(&["cluster", "join", &address]);
            if out.status.success() {
                return;
            }
            let said = String::from_utf8_lossy(&out.stderr).into_owned();
            assert!(Instant::now() < deadline, "cannot join {id}: {said}\n{}", self.member(id).log());
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// Runs the command line against this cluster.
    pub fn cli(&self, arguments: &[&str]) -> std::process::Output {
        Command::new(plimsoll())
            .env("PLIMSOLL_HOME", self.root.path().join("cli"))
            .args(["--addr", &self.addresses().join(",")])
            .args(arguments)
            .output()
            .expect("the command line runs")
    }

    /// A client of all members.
    pub async fn client(&self) -> Client {
        Client::connect(self.addresses(), options()).await.expect("somebody answers")
    }

    /// All addresses.
    pub fn addresses(&self) -> Vec<String> {
        self.members.iter().map(|member| member.address.clone()).collect()
    }

    /// One member by id.
    pub fn member(&self, id: u64) -> &Coordinator {
        self.members.iter().find(|member| member.id == id).expect("it was started")
    }

    /// One member by id.
    pub fn member_mut(&mut self, id: u64) -> &mut Coordinator {
        self.members.iter_mut().find(|member| member.id == id).expect("it was started")
    }

    /// Id of the leader, as somebody knows it.
    pub async fn leader(&self) -> u64 {
        let client = self.client().await;
        wait_for_leader(&client).await
    }

    /// State digest and chain hash of every member, once they are all at one revision: they must be equal.
    pub async fn assert_digests_equal(&self) {
        for _ in 0..100 {
            let mut digests = Vec::new();
            for member in &self.members {
                digests.push(digest(&member.address).await);
            }
            if digests.windows(2).all(|pair| pair[0].revision == pair[1].revision) {
                let equal = |pair: &[v1::GetStateDigestResponse]| pair[0].digest == pair[1].digest;
                assert!(digests.windows(2).all(equal), "replicas differ: {digests:?}");
                assert!(!digests[0].digest.is_empty());
                return;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("the replicas never came to one revision");
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        for member in &mut self.members {
            drop(member.child.kill());
            drop(member.child.wait());
        }
    }
}

fn options() -> ClientOptions {
    ClientOptions::default().timeout(Duration::from_secs(30))
}

async fn wait_for_leader(client: &Client) -> u64 {
    for _ in 0..300 {
        if let Ok(status) = client.get_status(v1::GetStatusRequest::default()).await
            && let Some(leader) = status.status.map(|status| status.leader_id).filter(|leader| *leader > 0)
        {
            return leader;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("nobody leads");
}

async fn digest(address: &str) -> v1::GetStateDigestResponse {
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{address}")).expect("an address");
    let mut audit = v1::audit_service_client::AuditServiceClient::new(endpoint.connect_lazy());
    // A member that was just started needs a moment.
    for _ in 0..200 {
        match audit.get_state_digest(v1::GetStateDigestRequest { at_revision: 0 }).await {
            Ok(response) => return response.into_inner(),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("{address} never answered");
}
