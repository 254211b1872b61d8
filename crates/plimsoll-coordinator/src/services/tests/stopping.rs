//! A coordinator that stops: open streams are told, and nobody at the other end of a connection can hold it up.

use std::time::{Duration, Instant};

use plimsoll_proto::v1;
use plimsoll_proto::v1::watch_service_client::WatchServiceClient;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Code;

use super::harness::*;

/// Far below the time after which a stop cuts what is still open.
const SOON: Duration = Duration::from_secs(2);

#[tokio::test]
async fn streams_that_wait_for_their_callers_are_told_and_end() {
    let served = single().await;
    let (requests, queue) = mpsc::channel(1);
    let answers = served.reservations().stream_reservations(ReceiverStream::new(queue)).await;
    let mut answers = answers.expect("open").into_inner();
    let mut watches = WatchServiceClient::new(served.channel.clone());
    let mut watch = watches.watch(v1::WatchRequest::default()).await.expect("open").into_inner();
    let began = Instant::now();
    served.stop().await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    let told = within(answers.message()).await.expect_err("the stream ended as if all were well");
    assert_eq!(told.code(), Code::Unavailable, "{told}");
    let told = within(async {
        while watch.message().await?.is_some() {}
        Ok::<_, tonic::Status>(())
    })
    .await;
    assert_eq!(told.expect_err("the watch ended as if all were well").code(), Code::Unavailable);
    drop(requests);
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_hold_it() {
    let served = single().await;
    let silent = TcpStream::connect(&served.address).await.expect("connects");
    let mut frozen = TcpStream::connect(&served.address).await.expect("connects");
    // A client that began well, and never answers a ping.
    frozen.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.expect("sent");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let began = Instant::now();
    served.stop().await;
    assert!(began.elapsed() < SOON, "it took {:?}", began.elapsed());
    drop((silent, frozen));
}
