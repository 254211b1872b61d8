//! Notices of a provider that takes this machine back: where they are looked for, and what they say.
//!
//! The forms are those that the providers document: Amazon EC2's metadata service answers `spot/instance-action` with 404 until there is a notice, and
//! then with JSON that has a `time` (behind a session token, IMDSv2); Google Compute Engine's answers `instance/preempted` with `TRUE` or `FALSE`. A file
//! is for whoever has another source: it is there once there is a notice, and says how long is left.

use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use plimsoll_calendar::parse_moment_ms;
use plimsoll_types::quantity::parse_duration_ms;
use tokio::net::TcpStream;

/// Between two looks. EC2's guide advises five seconds.
pub const LOOK_EVERY: Duration = Duration::from_secs(5);
/// Time that is left where a notice does not say: Compute Engine's documented notice.
const GCP_NOTICE_MS: u64 = 30_000;
/// The same of a file that says nothing: EC2's documented notice.
const FILE_NOTICE_MS: u64 = 120_000;
/// Where instances reach their metadata service.
const AWS_HOST: &str = "169.254.169.254:80";
const GCP_HOST: &str = "metadata.google.internal:80";
/// Longest answer that is read, in bytes.
const MOST_ANSWER: usize = 16 << 10;
/// Longest wait for an answer.
const ANSWER_WITHIN: Duration = Duration::from_secs(3);

/// Where notices are looked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoticeSource {
    /// EC2's metadata service at this host and port.
    Aws(String),
    /// Compute Engine's at this host and port.
    Gcp(String),
    /// A file.
    File(PathBuf),
}

/// A text that names no source.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no source of notices: write aws, gcp, aws@HOST:PORT, gcp@HOST:PORT or file:PATH")]
pub struct NoSource(String);

impl FromStr for NoticeSource {
    type Err = NoSource;

    fn from_str(text: &str) -> Result<NoticeSource, NoSource> {
        let (kind, host) = text.split_once('@').map_or((text, None), |(kind, host)| (kind, Some(host)));
        match (kind, host, text.strip_prefix("file:")) {
            (.., Some(path)) if !path.is_empty() => Ok(NoticeSource::File(path.into())),
            ("aws", host, _) => Ok(NoticeSource::Aws(host.unwrap_or(AWS_HOST).to_owned())),
            ("gcp", host, _) => Ok(NoticeSource::Gcp(host.unwrap_or(GCP_HOST).to_owned())),
            _ => Err(NoSource(text.to_owned())),
        }
    }
}

impl NoticeSource {
    /// Looks once. How many milliseconds are left where there is a notice, by the wall clock `now_ms` (since the epoch).
    ///
    /// # Errors
    /// Why it cannot be known, in a sentence.
    pub async fn look(&self, now_ms: u64) -> Result<Option<u64>, String> {
        match self {
            NoticeSource::File(path) => match tokio::fs::read_to_string(path).await {
                Ok(text) => said(text.trim(), now_ms).map(Some),
                Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
                Err(error) => Err(format!("{}: {error}", path.display())),
            },
            NoticeSource::Aws(host) => {
                let ttl = [("x-aws-ec2-metadata-token-ttl-seconds", "60")];
                let (status, token) = ask(host, Method::PUT, "/latest/api/token", &ttl).await?;
                if !status.is_success() {
                    return Err(format!("{host} gives no session token: {status}"));
                }
                let session = [("x-aws-ec2-metadata-token", token.as_str())];
                let path = "/latest/meta-data/spot/instance-action";
                match ask(host, Method::GET, path, &session).await? {
                    (StatusCode::NOT_FOUND, _) => Ok(None),
                    (StatusCode::OK, body) => {
                        let time = serde_json::from_str::<serde_json::Value>(&body)
                            .ok()
                            .and_then(|said| Some(said.get("time")?.as_str()?.to_owned()))
                            .ok_or_else(|| format!("{host} answers without a time: {body:?}"))?;
                        said(&time, now_ms).map(Some)
                    }
                    (status, _) => Err(format!("{host} answers {status}")),
                }
            }
            NoticeSource::Gcp(host) => {
                let flavor = [("metadata-flavor", "Google")];
                let path = "/computeMetadata/v1/instance/preempted";
                match ask(host, Method::GET, path, &flavor).await? {
                    (StatusCode::OK, body) if body.trim() == "TRUE" => Ok(Some(GCP_NOTICE_MS)),
                    (StatusCode::OK, body) if body.trim() == "FALSE" => Ok(None),
                    (status, body) => Err(format!("{host} answers {status}: {body:?}")),
                }
            }
        }
    }
}

/// Milliseconds left by a moment, a length, or nothing at all.
fn said(text: &str, now_ms: u64) -> Result<u64, String> {
    if text.is_empty() {
        return Ok(FILE_NOTICE_MS);
    }
    if let Ok(moment_ms) = parse_moment_ms(text) {
        return Ok(moment_ms.saturating_sub(now_ms));
    }
    parse_duration_ms(text).map_err(|_| format!("{text:?} is neither a moment nor a length of time"))
}

/// One question on a connection of its own.
async fn ask(
    host: &str,
    method: Method,
    path: &str,
    headers: &[(&'static str, &str)],
) -> Result<(StatusCode, String), String> {
    let failed = |error: &dyn std::fmt::Display| format!("{host}: {error}");
    let exchange = async {
        let stream = TcpStream::connect(host).await.map_err(|error| failed(&error))?;
        let (mut sender, connection) =
            http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::default()).map_err(|error| failed(&error))?;
        let answer = async {
            let answer = sender.send_request(request).await.map_err(|error| failed(&error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
            let body = body.map_err(|error| failed(&error))?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(answer);
        tokio::select! {
            biased;
            answer = &mut answer => answer,
            ended = connection => {
                ended.map_err(|error| failed(&error))?;
                answer.await
            }
        }
    };
    tokio::time::timeout(ANSWER_WITHIN, exchange).await.unwrap_or_else(|_| Err(failed(&"no answer in time")))
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::http::HeaderMap;
    use axum::routing::{get, put};

    use super::*;

    /// Serves these routes on a loopback port.
    async fn serve(routes: Router) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let host = listener.local_addr().unwrap().to_string();
        tokio::spawn(async move { axum::serve(listener, routes).await });
        host
    }

    #[test]
    fn sources_are_read_as_people_write_them() {
        assert_eq!("aws".parse(), Ok(NoticeSource::Aws(AWS_HOST.into())));
        assert_eq!("gcp@127.0.0.1:9".parse(), Ok(NoticeSource::Gcp("127.0.0.1:9".into())));
        assert_eq!("file:/run/notice".parse(), Ok(NoticeSource::File("/run/notice".into())));
        for text in ["", "azure", "file:", "aws:1"] {
            assert_eq!(text.parse::<NoticeSource>(), Err(NoSource(text.into())));
        }
    }

    #[tokio::test]
    async fn a_file_says_how_long_is_left() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notice");
        let source = NoticeSource::File(path.clone());
        assert_eq!(source.look(0).await, Ok(None));
        for (text, left) in [("", 120_000), ("45s\n", 45_000), ("1970-01-01T00:02:00Z", 119_000)] {
            std::fs::write(&path, text).unwrap();
            assert_eq!(source.look(1_000).await, Ok(Some(left)), "{text:?}");
        }
        std::fs::write(&path, "soon").unwrap();
        assert!(source.look(0).await.unwrap_err().contains("soon"));
    }

    #[tokio::test]
    async fn ec2_is_asked_with_a_session_token_and_says_when() {
        let notice = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
        let shown = std::sync::Arc::clone(&notice);
        let action = move |headers: HeaderMap| {
            let is_there = shown.load(std::sync::atomic::Ordering::Relaxed);
            async move {
                match headers.get("x-aws-ec2-metadata-token").map(|token| token.as_bytes()) {
                    Some(b"secret") if is_there => {
                        (StatusCode::OK, r#"{"action":"terminate","time":"1970-01-01T00:02:00Z"}"#)
                    }
                    Some(b"secret") => (StatusCode::NOT_FOUND, ""),
                    _ => (StatusCode::UNAUTHORIZED, ""),
                }
            }
        };
        let routes = Router::new()
            .route("/latest/api/token", put(|| async { "secret" }))
            .route("/latest/meta-data/spot/instance-action", get(action));
        let source = NoticeSource::Aws(serve(routes).await);
        assert_eq!(source.look(0).await, Ok(None));
        notice.store(true, std::sync::atomic::Ordering::Relaxed);
        assert_eq!(source.look(20_000).await, Ok(Some(100_000)));
    }

    #[tokio::test]
    async fn compute_engine_says_true_or_false_and_nobody_else_is_believed() {
        let google = |headers: HeaderMap| async move {
            let known = headers.get("metadata-flavor").is_some_and(|flavor| flavor == "Google");
            if known { (StatusCode::OK, "TRUE") } else { (StatusCode::FORBIDDEN, "") }
        };
        let path = "/computeMetadata/v1/instance/preempted";
        let source = NoticeSource::Gcp(serve(Router::new().route(path, get(google))).await);
        assert_eq!(source.look(0).await, Ok(Some(30_000)));
        let other = NoticeSource::Gcp(serve(Router::new().route(path, get(|| async { "<html>" }))).await);
        assert!(other.look(0).await.is_err());
    }
}
