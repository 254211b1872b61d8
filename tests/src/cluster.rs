//! Several coordinators of one group.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use plimsoll_client::{Client, ClientOptions, v1};

use crate::access::Access;
use crate::coordinator::{Coordinator, Launch};
use crate::{plimsoll, ports};

/// Longest wait for a member to join or a leader to be found.
const PATIENCE: Duration = Duration::from_secs(30);

/// Several coordinators of one group.
pub struct Cluster {
    /// The processes.
    pub members: Vec<Coordinator>,
    layout: Layout,
    root: tempfile::TempDir,
}

/// What is special about the members of a cluster. The default: nothing.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Where members listen, by id; a free port of loopback without.
    pub listen: BTreeMap<u64, String>,
    /// Addresses by which members reach each other, by id, where those are not the ones they listen at: proxies stand between.
    pub advertised: BTreeMap<u64, String>,
    /// Data directories elsewhere than under the cluster's own folder, by id.
    pub data: BTreeMap<u64, PathBuf>,
    /// Environment of members, by id.
    pub env: BTreeMap<u64, Vec<(String, String)>>,
    /// Commands that become members, by id, such as one that first enters a network namespace.
    pub prefix: BTreeMap<u64, Vec<String>>,
    /// Builds other than the present one, by id.
    pub programs: BTreeMap<u64, PathBuf>,
    /// How members are reached.
    pub access: Access,
}

impl Cluster {
    /// `count` coordinators, joined to one group, with a leader.
    pub async fn start(count: u64) -> Cluster {
        Cluster::start_as(count, Layout::default()).await
    }

    /// The same with something special about its members.
    pub async fn start_as(count: u64, layout: Layout) -> Cluster {
        let root = tempfile::tempdir().expect("a temporary directory");
        let mut cluster = Cluster { members: Vec::new(), layout, root };
        for id in 1..=count {
            cluster.spawn(id, id == 1);
        }
        let client = Client::connect([cluster.members[0].address.clone()], cluster.options())
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
        let dir = self.root.path().join(id.to_string());
        let free = || format!("127.0.0.1:{}", ports::free());
        let launch = Launch {
            id,
            address: self.layout.listen.get(&id).cloned().unwrap_or_else(free),
            advertise: self.layout.advertised.get(&id).cloned(),
            data: self.layout.data.get(&id).cloned().unwrap_or_else(|| dir.join("data")),
            env: self.layout.env.get(&id).cloned().unwrap_or_default(),
            prefix: self.layout.prefix.get(&id).cloned().unwrap_or_default(),
            program: self.layout.programs.get(&id).cloned().unwrap_or_else(plimsoll),
            access: self.layout.access.clone(),
            dir,
            bootstrap,
        };
        self.members.push(Coordinator::start(launch));
    }

    /// What is special about its members, to be changed for one that is yet to be spawned.
    pub fn layout_mut(&mut self) -> &mut Layout {
        &mut self.layout
    }

    /// How its members are reached.
    pub fn access(&self) -> &Access {
        &self.layout.access
    }

    fn options(&self) -> ClientOptions {
        self.layout.access.options(ClientOptions::default().timeout(PATIENCE))
    }

    /// Its folder.
    pub fn root(&self) -> &Path {
        self.root.path()
    }

    /// `plimsoll cluster join` of a running process.
    pub fn join(&self, id: u64) {
        let address = self.member(id).reachable().to_owned();
        let deadline = Instant::now() + PATIENCE;
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
        self.command(arguments).output().expect("the command line runs")
    }

    /// The command line against this cluster, yet to be run.
    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(plimsoll());
        command.env("PLIMSOLL_HOME", self.root.path().join("cli"));
        command.args(["--addr", &self.addresses().join(",")]).args(self.layout.access.client_flags());
        command.args(arguments);
        command
    }

    /// A client of all members.
    pub async fn client(&self) -> Client {
        Client::connect(self.addresses(), self.options()).await.expect("somebody answers")
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

    /// Starts a member again on its data, and waits until it answers by itself and knows who leads.
    pub async fn restart(&mut self, id: u64) {
        self.member_mut(id).restart();
        let channel = self.access().channel(&self.member(id).address);
        let mut service = v1::cluster_service_client::ClusterServiceClient::new(channel);
        let until = Instant::now() + PATIENCE;
        loop {
            let answer = service.get_status(v1::GetStatusRequest::default()).await;
            let status = answer.map(|answer| answer.into_inner().status.unwrap_or_default());
            if status.as_ref().is_ok_and(|status| status.leader_id > 0) {
                return;
            }
            let log = self.member(id).log();
            assert!(Instant::now() < until, "c{id} does not come back: {status:?}\n{log}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// State digest and chain hash of every member, once they are all at one revision: they must be equal.
    pub async fn assert_digests_equal(&self) {
        for _ in 0..100 {
            let mut digests = Vec::new();
            for member in &self.members {
                digests.push(digest(&self.layout.access, &member.address).await);
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
        self.members.iter_mut().for_each(Coordinator::end);
    }
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

async fn digest(access: &Access, address: &str) -> v1::GetStateDigestResponse {
    let mut audit = v1::audit_service_client::AuditServiceClient::new(access.channel(address));
    // A member that was just started needs a moment.
    for _ in 0..200 {
        match audit.get_state_digest(v1::GetStateDigestRequest { at_revision: 0 }).await {
            Ok(response) => return response.into_inner(),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
    panic!("{address} never answered");
}
