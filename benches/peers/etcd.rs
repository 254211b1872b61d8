//! Three etcd members of the benchmark's own, with their defaults.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tonic::transport::{Channel, Endpoint};

use crate::{Error, wire};

/// Bytes of a reservation's value.
const VALUE_BYTES: usize = 160;

/// Three members; killed when dropped.
pub(crate) struct Etcd {
    members: Vec<Member>,
    root: tempfile::TempDir,
    cluster: String,
}

struct Member {
    name: String,
    client: String,
    peer: String,
    process: Option<Child>,
}

impl Etcd {
    pub(crate) async fn start() -> Result<Etcd, Error> {
        let mut members = Vec::new();
        for index in 0..3 {
            let (client, peer) = (free_address()?, free_address()?);
            members.push(Member { name: format!("m{index}"), client, peer, process: None });
        }
        let one = |member: &Member| format!("{}=http://{}", member.name, member.peer);
        let cluster = members.iter().map(one).collect::<Vec<_>>().join(",");
        let mut etcd = Etcd { members, root: tempfile::tempdir()?, cluster };
        for index in 0..3 {
            etcd.spawn(index)?;
        }
        etcd.leader().await?;
        Ok(etcd)
    }

    /// Starts a member, for the first time or again.
    pub(crate) fn spawn(&mut self, index: usize) -> Result<(), Error> {
        let member = &self.members[index];
        let folder = self.root.path().join(&member.name);
        let log = std::fs::File::create(self.root.path().join(format!("{}.log", member.name)))?;
        let (client, peer) = (format!("http://{}", member.client), format!("http://{}", member.peer));
        let mut command = Command::new("etcd");
        command.args(["--name", &member.name, "--data-dir"]).arg(folder);
        command.args(["--listen-client-urls", &client, "--advertise-client-urls", &client]);
        command.args(["--listen-peer-urls", &peer, "--initial-advertise-peer-urls", &peer]);
        command.args(["--initial-cluster", &self.cluster, "--initial-cluster-token", "peers"]);
        // A million reservations are more than its default of 2 GiB likes to hold with history.
        command.args(["--quota-backend-bytes", "8589934592"]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let process = command.spawn().map_err(|error| {
            format!("etcd cannot be started ({error}): install it (Debian: apt-get install etcd-server)")
        })?;
        self.members[index].process = Some(process);
        Ok(())
    }

    pub(crate) fn kill(&mut self, index: usize) -> Result<(), Error> {
        if let Some(mut process) = self.members[index].process.take() {
            process.kill()?;
            process.wait()?;
        }
        Ok(())
    }

    /// Index of the leader, once there is one.
    pub(crate) async fn leader(&self) -> Result<usize, Error> {
        let until = Instant::now() + Duration::from_secs(60);
        let channels = self.channels(None)?;
        while Instant::now() < until {
            for (index, channel) in channels.iter().enumerate() {
                if let Ok(status) = wire::status(channel).await
                    && status
                        .header
                        .is_some_and(|header| header.member_id == status.leader && status.leader != 0)
                {
                    return Ok(index);
                }
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Err("etcd never had a leader".into())
    }

    /// A connection to each member but one.
    pub(crate) fn channels(&self, without: Option<usize>) -> Result<Vec<Channel>, Error> {
        let others = self.members.iter().enumerate().filter(|(index, _)| Some(*index) != without);
        let channel = |(_, member): (usize, &Member)| {
            let endpoint = Endpoint::from_shared(format!("http://{}", member.client))?;
            Ok(endpoint.connect_timeout(Duration::from_millis(200)).connect_lazy())
        };
        others.map(channel).collect()
    }

    pub(crate) fn pids(&self) -> Vec<u32> {
        self.members.iter().filter_map(|member| Some(member.process.as_ref()?.id())).collect()
    }

    pub(crate) fn cpu_us(&self) -> u64 {
        self.pids().into_iter().filter_map(plimsoll_load::cpu_us).sum()
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        for process in self.members.iter_mut().filter_map(|member| member.process.as_mut()) {
            drop(process.kill());
            drop(process.wait());
        }
    }
}

/// The two puts of one reservation, under the condition that the node's key is as known.
pub(crate) fn reserve(node: u64, turn: u64, known: i64, lease: i64) -> wire::Txn {
    let key = format!("node/{node}").into_bytes();
    let compare = wire::Compare {
        result: wire::CompareResult::Equal.into(),
        target: wire::CompareTarget::Mod.into(),
        key: key.clone(),
        mod_revision: known,
    };
    let success = vec![
        wire::RequestOp::put(key, turn.to_be_bytes().to_vec(), 0),
        wire::RequestOp::put(
            format!("reservation/{node}/{turn}").into_bytes(),
            vec![b'r'; VALUE_BYTES],
            lease,
        ),
    ];
    wire::Txn { compare: vec![compare], success }
}

fn free_address() -> Result<String, Error> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string())
}
