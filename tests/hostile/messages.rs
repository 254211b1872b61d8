//! Messages that make no sense: each is refused by itself, with a code that says whose fault it is.

use bytes::Bytes;
use plimsoll_tests::hostile::{Answer, Rude, framed};

use super::{assert_unharmed, stage};

const RESERVE: &str = "/plimsoll.v1.ReservationService/CreateReservation";
const LIST: &str = "/plimsoll.v1.ReservationService/ListReservations";
const INVALID_ARGUMENT: i32 = 3;
const RESOURCE_EXHAUSTED: i32 = 8;
const OUT_OF_RANGE: i32 = 11;
const UNIMPLEMENTED: i32 = 12;
const INTERNAL: i32 = 13;

/// A field of a message: its number and bytes.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let mut field = vec![number << 3 | 2];
    let mut length = bytes.len();
    while length >= 128 {
        field.push(u8::try_from(length % 128).expect("seven bits") | 128);
        length /= 128;
    }
    field.push(u8::try_from(length).expect("seven bits"));
    field.extend_from_slice(bytes);
    field
}

fn is(answer: &Result<Answer, String>, codes: &[i32], what: &str) {
    println!("{what}: {answer:?}");
    let answer = answer.as_ref().unwrap_or_else(|error| panic!("{what}: {error}"));
    let code = answer.code.unwrap_or_else(|| panic!("{what}: no gRPC status: {answer:?}"));
    assert!(codes.contains(&code), "{what}: {answer:?}, expected one of {codes:?}");
    assert_ne!(code, INTERNAL, "{what} is no fault of ours: {answer:?}");
    assert!(!answer.message.is_empty(), "{what}: nothing was said about it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_message_that_makes_no_sense_is_refused_by_itself() {
    let (mut target, _nodes, pulse) = stage("").await;
    let (before, _) = target.memory_mib();
    let mut client = Rude::connect(&target.address).await;
    let invalid = &[INVALID_ARGUMENT];

    // Four GiB, of which ten bytes come.
    let lie = [&[0, 0xff, 0xff, 0xff, 0xff][..], &[1; 10]].concat();
    is(&client.call(RESERVE, &[], lie.into()).await, &[OUT_OF_RANGE, RESOURCE_EXHAUSTED], "4 GiB announced");
    let large = vec![0; (1 << 20) + 1];
    is(&client.message(RESERVE, &large).await, &[OUT_OF_RANGE, RESOURCE_EXHAUSTED], "1 MiB and a byte");
    let short = [&[0, 0, 0, 1, 0][..], &[1; 10]].concat();
    is(&client.call(RESERVE, &[], short.into()).await, invalid, "a message that ends before its length");
    is(&client.call(RESERVE, &[], Bytes::from_static(&[0, 0])).await, invalid, "half of a head");
    is(&client.call(RESERVE, &[], Bytes::new()).await, invalid, "no message");
    is(
        &client.call(RESERVE, &[], Bytes::from_static(&[9, 0, 0, 0, 0])).await,
        invalid,
        "a flag that is none",
    );

    // As far as 100,000 levels, of a field that exists (spec) and of one that does not (a group).
    let mut deep = Vec::new();
    for _ in 0..100 {
        deep = field(3, &field(6, &field(1, &deep)));
    }
    is(&client.message(RESERVE, &deep).await, invalid, "300 levels of messages");
    is(&client.message(RESERVE, &[0x7b_u8; 100_000]).await, invalid, "100000 levels of groups");
    is(
        &client.message(RESERVE, &field(3, &field(1, &[0xff, 0xfe]))).await,
        invalid,
        "a name that is not UTF-8",
    );
    is(&client.message(RESERVE, &[0xff; 64]).await, invalid, "no field at all");
    is(&client.message(LIST, &field(1, &[0xc3])).await, invalid, "the same for a read");

    // Compressed: said in the head, said in the frame, a bomb.
    let gzip = [("grpc-encoding", "gzip")];
    is(&client.call(RESERVE, &gzip, framed(1, &[0x1f, 0x8b, 8, 0])).await, &[UNIMPLEMENTED], "gzip");
    is(
        &client.call(RESERVE, &[], framed(1, &[0; 100])).await,
        &[INVALID_ARGUMENT, UNIMPLEMENTED],
        "a compressed message without a coding",
    );
    is(
        &client.call(RESERVE, &[("grpc-encoding", "br")], framed(1, &[7; 10])).await,
        &[UNIMPLEMENTED],
        "another coding",
    );

    is(&client.message("/plimsoll.v1.ReservationService/Nothing", b"").await, &[UNIMPLEMENTED], "no method");
    is(&client.message("/", b"").await, &[UNIMPLEMENTED], "no path");
    let long = format!("/{}", "p".repeat(8_000));
    is(&client.message(&long, b"").await, &[UNIMPLEMENTED], "a path of 8 kB");

    for content in ["text/html", "application/json", "application/grpc-web", ""] {
        let answer = client.call(RESERVE, &[("content-type", content)], framed(0, b"")).await;
        println!("content type {content:?}: {answer:?}");
        let answer = answer.expect("an answer");
        assert!(answer.http == 415 || answer.code.is_some(), "{content:?}: {answer:?}");
        assert_ne!(answer.code, Some(INTERNAL), "{content:?}: {answer:?}");
    }

    // Headers that mean something, with values that do not.
    for (name, value) in
        [("grpc-timeout", "99999999999H"), ("grpc-timeout", "-1S"), ("plimsoll-forwarded-by", "1")]
    {
        let answer = client.call(RESERVE, &[(name, value)], framed(0, b"")).await;
        println!("{name}: {value}: {answer:?}");
        let answer = answer.expect("an answer");
        assert!(answer.code.is_some_and(|code| code != 0 && code != INTERNAL), "{name}: {value}: {answer:?}");
    }
    assert_unharmed(&mut target, pulse, before, 48).await;
}
