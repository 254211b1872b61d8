//! HTTP/2 as bytes: frames made by hand, so that they can be wrong, and what comes back.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

/// What a client says first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's head, in bytes.
const HEAD: usize = 9;

/// Kinds of frames.
pub mod kind {
    /// Part of a body.
    pub const DATA: u8 = 0;
    /// Begins or ends a stream.
    pub const HEADERS: u8 = 1;
    /// Who goes first; nobody heeds it.
    pub const PRIORITY: u8 = 2;
    /// A stream is given up.
    pub const RST_STREAM: u8 = 3;
    /// How the sender wants to be spoken to.
    pub const SETTINGS: u8 = 4;
    /// Are you there?
    pub const PING: u8 = 6;
    /// No new streams.
    pub const GOAWAY: u8 = 7;
    /// More may be sent.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More of a list of headers.
    pub const CONTINUATION: u8 = 9;
}

/// Flags: the answer to SETTINGS or PING, the end of a stream, the end of a list of headers.
const ACK: u8 = 1;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

/// A frame as it came.
#[derive(Clone, Debug)]
pub struct Frame {
    /// See [`kind`].
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Stream; 0 is the connection.
    pub stream: u32,
    /// What is in it.
    pub payload: Vec<u8>,
}

/// How the other side ended a connection.
#[derive(Clone, Debug, Default)]
pub struct Ended {
    /// Time from the question to the end.
    pub after: Duration,
    /// Code and words of the last GOAWAY.
    pub goaway: Option<(u32, String)>,
    /// Bytes that came before the end.
    pub bytes: usize,
}

/// The bytes of a frame.
///
/// # Panics
/// Where the payload is longer than a frame can say.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a frame's length").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A list of headers, each written out in full.
fn headers(list: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in list {
        block.push(0);
        for text in [name, value] {
            integer(&mut block, text.len());
            block.extend_from_slice(text.as_bytes());
        }
    }
    block
}

/// A number with a prefix of seven bits.
fn integer(block: &mut Vec<u8>, number: usize) {
    const MOST: usize = 127;
    if number < MOST {
        block.push(u8::try_from(number).expect("below 127"));
        return;
    }
    block.push(127);
    let mut rest = number - MOST;
    while rest >= 128 {
        block.push(u8::try_from(rest % 128).expect("seven bits") | 128);
        rest /= 128;
    }
    block.push(u8::try_from(rest).expect("seven bits"));
}

/// The frame that begins a gRPC call. With `more`, these headers too.
pub fn request_head(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut list = vec![
        (":method", "POST"),
        (":scheme", "http"),
        (":path", path),
        (":authority", "coordinator.plimsoll"),
        ("content-type", "application/grpc"),
        ("te", "trailers"),
    ];
    list.extend_from_slice(more);
    frame(kind::HEADERS, END_HEADERS, stream, &headers(&list))
}

/// One connection.
pub struct Wire {
    stream: TcpStream,
    buffer: Vec<u8>,
}

impl Wire {
    /// A connection on which nothing was said yet.
    ///
    /// # Panics
    /// Where nobody listens.
    pub async fn connect(address: &str) -> Wire {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        stream.set_nodelay(true).expect("TCP");
        Wire { stream, buffer: Vec::new() }
    }

    /// A connection that has begun as it should, with these settings (id and value).
    pub async fn open(address: &str, settings: &[(u16, u32)]) -> Wire {
        let mut wire = Wire::connect(address).await;
        let mut payload = Vec::new();
        for (id, value) in settings {
            payload.extend_from_slice(&id.to_be_bytes());
            payload.extend_from_slice(&value.to_be_bytes());
        }
        let begin = [PREFACE.to_vec(), frame(kind::SETTINGS, 0, 0, &payload)].concat();
        assert!(wire.send(&begin).await, "a connection that was just made takes its beginning");
        wire
    }

    /// Begins a call and sends a whole message, with which the request ends.
    pub async fn call(&mut self, stream: u32, path: &str, message: &[u8]) -> bool {
        let length = u32::try_from(message.len()).expect("a message's length").to_be_bytes();
        let body = [&[0][..], &length, message].concat();
        let bytes = [request_head(stream, path, &[]), frame(kind::DATA, END_STREAM, stream, &body)].concat();
        self.send(&bytes).await
    }

    /// Sends bytes; false where the other side no longer takes any, within a second.
    pub async fn send(&mut self, bytes: &[u8]) -> bool {
        let sent = tokio::time::timeout(Duration::from_secs(1), self.stream.write_all(bytes)).await;
        matches!(sent, Ok(Ok(())))
    }

    /// The next frame; `None` at the end of the connection, or at the deadline.
    pub async fn frame(&mut self, until: Instant) -> Option<Frame> {
        loop {
            if let Some(frame) = self.take_frame() {
                return Some(frame);
            }
            let mut chunk = vec![0; 16 << 10];
            match timeout_at(until, self.stream.read(&mut chunk)).await {
                Ok(Ok(read)) if read > 0 => self.buffer.extend_from_slice(&chunk[..read]),
                _ => return None,
            }
        }
    }

    /// Reads and answers what HTTP/2 wants answered, pings and settings, and never grants a byte more; until the end of the
    /// connection or for `patience`. Frames of other kinds are given to `each`.
    pub async fn be_polite(&mut self, patience: Duration, mut each: impl FnMut(&Frame)) -> Option<Ended> {
        let began = Instant::now();
        let until = began + patience;
        let mut ended = Ended::default();
        while let Some(frame) = self.frame(until).await {
            ended.bytes += frame.payload.len();
            match frame.kind {
                kind::PING | kind::SETTINGS if frame.flags & ACK == 0 => {
                    let payload = if frame.kind == kind::PING { &frame.payload[..] } else { &[] };
                    let _ = self.send(&self::frame(frame.kind, ACK, 0, payload)).await;
                }
                kind::GOAWAY if frame.payload.len() >= 8 => {
                    let code = frame.payload[4..8].try_into().expect("four bytes");
                    let words = String::from_utf8_lossy(&frame.payload[8..]).into_owned();
                    ended.goaway = Some((u32::from_be_bytes(code), words));
                }
                _ => each(&frame),
            }
        }
        ended.after = began.elapsed();
        (Instant::now() < until).then_some(ended)
    }

    /// Waits until the other side closes, answering nothing; `None` where it does not within `patience`.
    pub async fn ended(&mut self, patience: Duration) -> Option<Ended> {
        let began = Instant::now();
        let until = began + patience;
        let mut ended = Ended::default();
        loop {
            // Not by frames: what comes back for garbage may be garbage too.
            let mut chunk = vec![0; 16 << 10];
            match timeout_at(until, self.stream.read(&mut chunk)).await {
                Ok(Ok(read)) if read > 0 => {
                    ended.bytes += read;
                    self.buffer.extend_from_slice(&chunk[..read]);
                }
                Ok(_) => break,
                Err(_) => return None,
            }
        }
        ended.after = began.elapsed();
        while let Some(frame) = self.take_frame() {
            if frame.kind == kind::GOAWAY && frame.payload.len() >= 8 {
                let code = frame.payload[4..8].try_into().expect("four bytes");
                let words = String::from_utf8_lossy(&frame.payload[8..]).into_owned();
                ended.goaway = Some((u32::from_be_bytes(code), words));
            }
        }
        Some(ended)
    }

    fn take_frame(&mut self) -> Option<Frame> {
        let head = self.buffer.get(..HEAD)?;
        let length = usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2]);
        let (kind, flags) = (head[3], head[4]);
        let stream = u32::from_be_bytes(head[5..9].try_into().expect("four bytes")) & 0x7fff_ffff;
        let payload = self.buffer.get(HEAD..HEAD + length)?.to_vec();
        self.buffer.drain(..HEAD + length);
        Some(Frame { kind, flags, stream, payload })
    }
}
