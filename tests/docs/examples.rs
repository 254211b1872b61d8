//! The Rust blocks of the documents: each must stand here, line by line, in code that is compiled and run.

use std::time::Duration;

use plimsoll_client::{Client, ClientOptions, Error};

use crate::blocks::blocks;
use crate::page;
use crate::session::Session;

/// The README's example of the SDK.
async fn readme(address: &str) -> Result<u64, Error> {
    let client = Client::connect([address], ClientOptions::default()).await?;
    let pool = client.pool("default");
    let lease = pool.request().gpu("1").memory("256Mi").ttl(Duration::from_secs(30)).acquire().await?;
    println!("granted {} under token {}", lease.id(), lease.token());
    let token = lease.token();
    lease.release().await?;
    Ok(token)
}

#[tokio::test]
async fn the_example_of_the_sdk_gets_a_grant() {
    let mut session = Session::new();
    let said = session.start_dev("--fake-gpu a100:2");
    let mut words = said.split_whitespace().skip_while(|word| *word != "coordinator");
    let address = words.nth(1).expect("the address follows").to_owned();
    assert!(readme(&address).await.expect("it is granted") > 0);
}

#[test]
fn rust_blocks_are_quotes_of_this_file() {
    let words = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let source = words(include_str!("examples.rs"));
    for path in page::all() {
        for block in blocks(&page::read(&path)).iter().filter(|block| block.language == "rust") {
            assert!(
                source.contains(&words(&block.text)),
                "{path}:{}: not in tests/docs/examples.rs",
                block.line
            );
        }
    }
}
