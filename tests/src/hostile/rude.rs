//! A client with a decent connection and indecent messages: any path, any headers, any bytes.

use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request};
use tokio::net::TcpStream;

/// Longest wait for an answer.
const PATIENCE: Duration = Duration::from_secs(45);

/// How a call ended.
#[derive(Debug)]
pub struct Answer {
    /// HTTP status.
    pub http: u16,
    /// gRPC status, from the head or the trailers.
    pub code: Option<i32>,
    /// What was said with it, decoded from its header form as far as tests need.
    pub message: String,
}

/// One HTTP/2 connection.
pub struct Rude {
    send: h2::client::SendRequest<Bytes>,
}

impl Rude {
    /// Connects.
    ///
    /// # Panics
    /// Where nobody listens.
    pub async fn connect(address: &str) -> Rude {
        let stream = TcpStream::connect(address).await.expect("somebody listens");
        let (send, connection) = h2::client::handshake(stream).await.expect("HTTP/2");
        tokio::spawn(connection);
        Rude { send }
    }

    /// A call with these bytes as its body, frame heads of gRPC included.
    pub async fn call(
        &mut self,
        path: &str,
        headers: &[(&'static str, &str)],
        body: Bytes,
    ) -> Result<Answer, String> {
        let mut request = Request::post(format!("http://coordinator.plimsoll{path}"));
        let has_type = headers.iter().any(|(name, _)| *name == "content-type");
        if !has_type {
            request = request.header("content-type", "application/grpc");
        }
        request = request.header("te", "trailers");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(()).map_err(|error| error.to_string())?;
        let answer = async {
            let mut send = self.send.clone().ready().await.map_err(|error| error.to_string())?;
            let (response, mut stream) =
                send.send_request(request, false).map_err(|error| error.to_string())?;
            // An answer that does not wait for the body is an answer too.
            let _ = stream.send_data(body, true);
            let response = response.await.map_err(|error| error.to_string())?;
            let http = response.status().as_u16();
            let mut found = of(response.headers());
            let mut body = response.into_body();
            while let Some(part) = body.data().await {
                let part = part.map_err(|error| error.to_string())?;
                let _ = body.flow_control().release_capacity(part.len());
            }
            if let Some(trailers) = body.trailers().await.map_err(|error| error.to_string())? {
                found = of(&trailers).or(found);
            }
            let (code, message) =
                found.map_or((None, String::new()), |(code, message)| (Some(code), message));
            Ok(Answer { http, code, message })
        };
        tokio::time::timeout(PATIENCE, answer).await.unwrap_or_else(|_| Err("no answer in time".to_owned()))
    }

    /// A call with one message.
    pub async fn message(&mut self, path: &str, message: &[u8]) -> Result<Answer, String> {
        self.call(path, &[], framed(0, message)).await
    }
}

/// A message as gRPC frames it; `flag` 1 says that it is compressed.
///
/// # Panics
/// Where it is longer than four bytes can say.
pub fn framed(flag: u8, message: &[u8]) -> Bytes {
    let length = u32::try_from(message.len()).expect("a message's length").to_be_bytes();
    [&[flag][..], &length, message].concat().into()
}

fn of(headers: &HeaderMap) -> Option<(i32, String)> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let message = text("grpc-message").unwrap_or_default().replace("%20", " ");
    Some((text("grpc-status")?.parse().ok()?, message))
}
