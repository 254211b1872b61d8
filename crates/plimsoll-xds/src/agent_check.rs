//! HAProxy's agent check: HAProxy connects, names an endpoint, and is told whether to use it and how much.
//!
//! One line each way: `SERVICE/ADDRESS:PORT` (its `agent-send`), and the answer. Operators' words are those of HAProxy's configuration manual, `agent-check`:
//! `ready` undoes an earlier `drain` or `maint`, `up` an earlier `down`, a percentage is of the weight in HAProxy's own file.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use crate::catalog::{Catalog, Health};

/// Most of the usual weight, in percent: HAProxy has no weights above 256.
const MOST_PERCENT: u32 = 256;
/// Pause after the system has no more file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);

/// An endpoint by the words that HAProxy sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentQuestion {
    /// The service.
    pub service: String,
    /// One of its endpoints.
    pub endpoint: SocketAddr,
}

/// What HAProxy is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AgentAnswer {
    /// To use it, with this percentage of the usual weight.
    Serving {
        /// At least 1.
        weight_percent: u32,
    },
    /// To send nothing new there.
    Draining,
    /// To leave it alone, checks included.
    Maintenance,
    /// That it is failing, or not there.
    Down(&'static str),
}

impl fmt::Display for AgentAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AgentAnswer::Serving { weight_percent } => write!(f, "ready up {weight_percent}%"),
            AgentAnswer::Draining => f.write_str("drain up"),
            AgentAnswer::Maintenance => f.write_str("maint"),
            // Without the space HAProxy 2.6 takes it for a word that it does not know, and leaves the server up.
            AgentAnswer::Down(reason) => write!(f, "down #{reason}"),
        }
    }
}

impl AgentAnswer {
    /// What the catalog says. An endpoint that is not in it is down: its lease is over.
    pub fn of(catalog: &Catalog, question: &AgentQuestion) -> AgentAnswer {
        let Some(service) = catalog.services().get(&question.service) else {
            return AgentAnswer::Down("no such service");
        };
        let named = service.endpoints.iter().find(|endpoint| endpoint.socket_address() == question.endpoint);
        match named.map(|endpoint| (endpoint.health, endpoint.weight_milli)) {
            None => AgentAnswer::Down("no such endpoint"),
            Some((Health::Unhealthy, _)) => AgentAnswer::Down("unhealthy"),
            Some((Health::Draining, _) | (Health::Serving, 0)) => AgentAnswer::Draining,
            Some((Health::Serving, weight_milli)) => {
                AgentAnswer::Serving { weight_percent: weight_milli.div_ceil(10).min(MOST_PERCENT) }
            }
        }
    }
}

/// What the agent check takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AgentLimits {
    /// Connections at once; more wait in the system's queue.
    pub connections: usize,
    /// Bytes of a question.
    pub line_bytes: usize,
    /// Time for a question and its answer.
    pub deadline: Duration,
}

impl Default for AgentLimits {
    fn default() -> AgentLimits {
        AgentLimits { connections: 1_000, line_bytes: 512, deadline: Duration::from_secs(1) }
    }
}

/// Answers until it is dropped.
pub async fn serve_agent_checks<F>(listener: TcpListener, limits: AgentLimits, lookup: F)
where
    F: Fn(&AgentQuestion) -> AgentAnswer + Send + Sync + 'static,
{
    let lookup = Arc::new(lookup);
    let room = Arc::new(Semaphore::new(limits.connections));
    let mut connections = tokio::task::JoinSet::new();
    loop {
        // Never closed.
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        while connections.try_join_next().is_some() {}
        let Ok((stream, _)) = listener.accept().await else {
            sleep(ACCEPT_AGAIN).await;
            continue;
        };
        let lookup = Arc::clone(&lookup);
        connections.spawn(async move {
            // HAProxy keeps what it knew where no answer comes, as after any failed connection.
            let _ = timeout(limits.deadline, answer(stream, limits.line_bytes, &*lookup)).await;
            drop(place);
        });
    }
}

async fn answer(
    mut stream: TcpStream,
    most: usize,
    lookup: &(impl Fn(&AgentQuestion) -> AgentAnswer + Sync),
) -> std::io::Result<()> {
    let mut line = Vec::with_capacity(most.min(128));
    let answer = loop {
        if let Some(end) = line.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            break question(&line[..end])
                .map_or_else(|problem| problem, |question| lookup(&question).to_string());
        }
        if line.len() >= most {
            break format!("down #the question has more than {most} bytes");
        }
        let mut chunk = [0; 128];
        let room = chunk.len().min(most - line.len());
        match stream.read(&mut chunk[..room]).await? {
            0 => break "down #no question: set agent-send \"SERVICE/ADDRESS:PORT\\n\"".to_owned(),
            read => line.extend_from_slice(&chunk[..read]),
        }
    };
    stream.write_all(answer.as_bytes()).await?;
    stream.write_all(b"\n").await?;
    stream.shutdown().await
}

/// What the line asks, or the answer to one that asks nothing.
fn question(line: &[u8]) -> Result<AgentQuestion, String> {
    let asked = || {
        let (service, endpoint) = std::str::from_utf8(line).ok()?.trim().rsplit_once('/')?;
        Some(AgentQuestion { service: service.to_owned(), endpoint: endpoint.parse().ok()? })
    };
    asked().ok_or_else(|| "down #the question is not SERVICE/ADDRESS:PORT".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::{Endpoint, Service};

    #[test]
    fn the_catalog_answers_for_its_endpoints_and_the_others_are_down() {
        let endpoint = |port| Endpoint::serving(([127, 0, 0, 1], port).into());
        let endpoints = vec![
            Endpoint { weight_milli: 250, ..endpoint(1) },
            Endpoint { health: Health::Draining, ..endpoint(2) },
            Endpoint { health: Health::Unhealthy, ..endpoint(3) },
            Endpoint { weight_milli: 0, ..endpoint(4) },
            Endpoint { weight_milli: 1, ..endpoint(5) },
            Endpoint { weight_milli: 9_000, ..endpoint(6) },
        ];
        let service = Arc::new(Service { endpoints, ..Service::default() });
        let catalog = Catalog::new(1, [("a".to_owned(), service)]).expect("a catalog");
        let ask = |service: &str, port: u16| {
            let question =
                AgentQuestion { service: service.to_owned(), endpoint: ([127, 0, 0, 1], port).into() };
            AgentAnswer::of(&catalog, &question).to_string()
        };
        let answers: Vec<String> = (1..=7).map(|port| ask("a", port)).collect();
        let expected = [
            "ready up 25%",
            "drain up",
            "down #unhealthy",
            "drain up",
            "ready up 1%",
            "ready up 256%",
            "down #no such endpoint",
        ];
        assert_eq!(answers, expected);
        assert_eq!(ask("b", 1), "down #no such service");
        assert_eq!(AgentAnswer::Maintenance.to_string(), "maint");
    }
}
