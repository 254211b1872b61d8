//! What faults play on: the processes, the network between them, and what is known of them.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use plimsoll_client::{Client, ClientOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::history::Recorder;
use super::nemesis::Failed;
use super::nemesis::full_disk::SmallDisk;
use super::net::Network;
use super::setup::{Carrier, Setup};
use super::{status, workload};
use crate::agents::Agents;
use crate::{Access, Cluster, Layout, plimsoll};

/// Longest wait for a coordinator that was started, or for a leader.
const PATIENCE: Duration = Duration::from_secs(20);

/// The processes and the network between them.
pub struct Stage {
    /// Coordinators.
    pub cluster: Cluster,
    /// The network between them.
    pub network: Network,
    /// Agents.
    pub agents: Agents,
    /// The observer's clock, and where clients write.
    pub recorder: Recorder,
    /// Draws targets and lengths.
    pub random: SmallRng,
    /// Where members have a faked clock: the file that each obeys.
    pub clocks: BTreeMap<u64, std::path::PathBuf>,
    /// Members whose disk is small, with the mount.
    pub small_disks: BTreeMap<u64, SmallDisk>,
    /// What kind of cluster it is.
    pub setup: Setup,
    /// When the present fault struck, where that is known more closely than that it was asked for.
    struck_us: Option<u64>,
    newest_member: u64,
    /// Last, because mounts in it are taken away first.
    folder: tempfile::TempDir,
}

/// What to build.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What kind of cluster.
    pub setup: Setup,
    /// Agents, of four GPUs each.
    pub agents: usize,
    /// Seed of everything drawn.
    pub seed: u64,
    /// Coordinators run under a library that fakes their clocks.
    pub fake_clocks: bool,
    /// Every member has a small disk.
    pub small_disks: bool,
}

impl Stage {
    /// Builds it: everything runs, and all agents are registered.
    ///
    /// # Errors
    /// Where this machine cannot do what is planned.
    pub async fn build(plan: Plan) -> Result<Stage, String> {
        let network = Network::new(plan.setup.carrier)?;
        let mut layout = Layout::default();
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        if plan.setup.carrier == Carrier::Tun {
            // Where others could listen in, coordinators insist on certificates.
            layout.access = Access::with_certificates(folder.path())?;
        }
        let (mut clocks, mut small_disks) = (BTreeMap::new(), BTreeMap::new());
        for id in 1..=plan.setup.members {
            network.attach(id, &mut layout)?;
            // The first begins the cluster, so that its ledger is one that both builds know.
            if let Some(previous) = plan.setup.previous.as_ref().filter(|_| id % 2 == 1) {
                layout.programs.insert(id, previous.clone());
            }
            if plan.fake_clocks {
                let file = folder.path().join(format!("clock-{id}"));
                layout.env.insert(id, super::nemesis::clock::environment(&file)?);
                clocks.insert(id, file);
            }
            if plan.small_disks {
                let disk = SmallDisk::mount(&folder.path().join(format!("disk-{id}")))?;
                layout.data.insert(id, disk.path().join("data"));
                small_disks.insert(id, disk);
            }
        }
        let cluster = Cluster::start_as(plan.setup.members, layout).await;
        let options = cluster.access().options(workload::options());
        let client = Client::new(cluster.addresses(), options).map_err(|error| error.to_string())?;
        let agents = Agents::start(plan.agents, "a100:4", &cluster, &client).await;
        Ok(Stage {
            cluster,
            network,
            agents,
            recorder: Recorder::default(),
            random: SmallRng::seed_from_u64(plan.seed),
            clocks,
            small_disks,
            newest_member: plan.setup.members,
            setup: plan.setup,
            struck_us: None,
            folder,
        })
    }

    /// Ids and addresses of all members.
    pub fn addresses(&self) -> Vec<(u64, String)> {
        self.cluster.members.iter().map(|member| (member.id, member.address.clone())).collect()
    }

    /// Ids of all members.
    pub fn ids(&self) -> Vec<u64> {
        self.cluster.members.iter().map(|member| member.id).collect()
    }

    /// A client of all members.
    ///
    /// # Panics
    /// Never: these addresses were bound.
    pub fn client(&self) -> Client {
        self.client_of(self.cluster.addresses())
    }

    /// A client of these addresses alone.
    ///
    /// # Panics
    /// Where one makes no sense.
    pub fn client_of(&self, addresses: Vec<String>) -> Client {
        Client::new(addresses, self.options()).expect("addresses that were bound")
    }

    /// Options of a client.
    pub fn options(&self) -> ClientOptions {
        self.access().options(workload::options())
    }

    /// How members are reached.
    pub fn access(&self) -> &Access {
        self.cluster.access()
    }

    /// Who leads, as soon as somebody does.
    ///
    /// # Errors
    /// Where nobody does for long.
    pub async fn leader(&self) -> Result<u64, String> {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(leader) = status::leader(self.access(), &self.addresses()).await {
                return Ok(leader);
            }
            if Instant::now() >= until {
                return Err(format!("nobody led for {PATIENCE:?}"));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    /// One that does not lead.
    ///
    /// # Errors
    /// Where nobody leads for long.
    pub async fn follower(&mut self) -> Result<u64, String> {
        let leader = self.leader().await?;
        let others: Vec<u64> = self.ids().into_iter().filter(|id| *id != leader).collect();
        Ok(others[self.random.random_range(0..others.len())])
    }

    /// Starts a member again that is down, and waits until it answers.
    ///
    /// # Errors
    /// Where it does not.
    pub async fn restart(&mut self, id: u64) -> Result<(), String> {
        self.cluster.member_mut(id).restart();
        self.wait_ready(id).await
    }

    /// Waits until a member answers.
    ///
    /// # Errors
    /// Where it does not, with the end of what it printed.
    pub async fn wait_ready(&mut self, id: u64) -> Result<(), String> {
        let until = Instant::now() + PATIENCE;
        let address = self.cluster.member(id).address.clone();
        while status::of(self.access(), &address).await.is_none() {
            let exit = self.cluster.member_mut(id).wait_exit(Duration::ZERO);
            if exit.is_some() || Instant::now() >= until {
                return Err(format!("c{id} does not come back ({exit:?}): {}", self.last_words(id)));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// Asks a member to stop and waits; how long it took.
    ///
    /// # Errors
    /// Where it does not stop, or not well. It runs again in any case.
    pub async fn stop(&mut self, id: u64) -> Result<Duration, Failed> {
        let asked = Instant::now();
        self.cluster.member(id).signal(Signal::SIGTERM);
        let exit = loop {
            match self.cluster.member_mut(id).wait_exit(Duration::ZERO) {
                Some(exit) => break Some(exit),
                None if asked.elapsed() >= PATIENCE => break None,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        let took = asked.elapsed();
        let wrong = match exit {
            Some(exit) if exit.code() == Some(0) => return Ok(took),
            Some(exit) => format!("c{id} ended with {exit} on SIGTERM: {}", self.last_words(id)),
            None => {
                self.cluster.member_mut(id).kill();
                format!("c{id} does not stop within {PATIENCE:?} of SIGTERM")
            }
        };
        self.restart(id).await?;
        Err(Failed::Product(wrong))
    }

    /// The other build than the one that a member runs, where there are two.
    pub fn other_build(&self, id: u64) -> Option<PathBuf> {
        let previous = self.setup.previous.clone()?;
        Some(if self.cluster.member(id).program() == previous { plimsoll() } else { previous })
    }

    /// The end of what a member printed.
    pub fn last_words(&self, id: u64) -> String {
        let log = self.cluster.member(id).log();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(2)..].join("\n")
    }

    /// Puts one more coordinator beside the members, not yet one of them; its id.
    ///
    /// # Errors
    /// Where it does not come up.
    pub async fn spawn(&mut self) -> Result<u64, String> {
        self.newest_member += 1;
        let id = self.newest_member;
        self.network.attach(id, self.cluster.layout_mut())?;
        if !self.small_disks.is_empty() {
            let disk = SmallDisk::mount(&self.folder.path().join(format!("disk-{id}")))?;
            self.cluster.layout_mut().data.insert(id, disk.path().join("data"));
            self.small_disks.insert(id, disk);
        }
        self.cluster.spawn(id, false);
        self.wait_ready(id).await?;
        Ok(id)
    }

    /// Draws a length of time, in milliseconds.
    pub fn between_ms(&mut self, least: u64, most: u64) -> Duration {
        Duration::from_millis(self.random.random_range(least..=most))
    }

    /// The fault strikes now: finding its target took a moment in which clients went on.
    pub fn strikes(&mut self) {
        self.struck_us = Some(self.recorder.now_us());
    }

    /// When the latest fault struck, asked once.
    pub fn struck_us(&mut self) -> Option<u64> {
        self.struck_us.take()
    }

    /// Takes away every fault that is still there.
    pub fn heal(&mut self) {
        self.network.heal();
        for member in &mut self.cluster.members {
            if member.wait_exit(Duration::ZERO).is_none() {
                member.signal(Signal::SIGCONT);
            }
        }
        for agent in &self.agents.all {
            agent.signal(Signal::SIGCONT);
        }
    }
}
