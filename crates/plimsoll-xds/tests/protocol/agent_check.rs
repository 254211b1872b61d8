//! Agent checks over real sockets.

use std::net::SocketAddr;
use std::time::Duration;

use plimsoll_xds::{AgentAnswer, AgentLimits, serve_agent_checks};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{Instant, timeout};

async fn start(limits: AgentLimits) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(serve_agent_checks(listener, limits, |question| match question.service.as_str() {
        "model-a" if question.endpoint.port() == 1 => AgentAnswer::Serving { weight_percent: 25 },
        "model-a" => AgentAnswer::Draining,
        _ => AgentAnswer::Down("no such service"),
    }));
    address
}

async fn ask(address: SocketAddr, parts: &[&str], then_end: bool) -> String {
    let mut stream = TcpStream::connect(address).await.expect("connected");
    for part in parts {
        stream.write_all(part.as_bytes()).await.expect("sent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    if then_end {
        stream.shutdown().await.expect("ended");
    }
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.expect("an answer");
    answer
}

#[tokio::test]
async fn an_endpoint_is_named_by_the_line_that_haproxy_sends() {
    let address = start(AgentLimits::default()).await;
    assert_eq!(ask(address, &["model-a/127.0.0.1:1\n"], false).await, "ready up 25%\n");
    assert_eq!(ask(address, &["model-a/", "127.0.0.1:2\r\n"], false).await, "drain up\n");
    assert_eq!(ask(address, &["model-b/[::1]:2\n"], false).await, "down #no such service\n");
}

#[tokio::test]
async fn what_is_no_question_is_answered_with_what_is_wrong() {
    let address = start(AgentLimits { line_bytes: 64, ..AgentLimits::default() }).await;
    assert_eq!(ask(address, &["model-a\n"], false).await, "down #the question is not SERVICE/ADDRESS:PORT\n");
    assert!(ask(address, &[], true).await.starts_with("down #no question: set agent-send"));
    let long = "x".repeat(64);
    assert_eq!(ask(address, &[long.as_str()], false).await, "down #the question has more than 64 bytes\n");
}

#[tokio::test]
async fn one_that_says_nothing_is_closed_and_keeps_its_place_no_longer() {
    let limits =
        AgentLimits { connections: 1, deadline: Duration::from_millis(300), ..AgentLimits::default() };
    let address = start(limits).await;
    let begun = Instant::now();
    let mut silent = TcpStream::connect(address).await.expect("connected");
    // Waits for the place of the silent one.
    assert_eq!(ask(address, &["model-a/127.0.0.1:1\n"], false).await, "ready up 25%\n");
    assert!(begun.elapsed() >= limits.deadline, "{:?}", begun.elapsed());
    let mut nothing = Vec::new();
    let closed = timeout(Duration::from_secs(5), silent.read_to_end(&mut nothing)).await;
    assert!(closed.is_ok() && nothing.is_empty());
}
