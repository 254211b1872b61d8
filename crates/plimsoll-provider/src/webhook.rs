//! HTTP POST of JSON. 2xx: done, with the answer as JSON; 408, 429 and 5xx: it may do later; any other: it will not.

use bytes::Bytes;
use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::{Ask, Machines, ProviderError, Started};

/// Longest answer that is read, in bytes.
const MOST_ANSWER: usize = 64 << 10;

/// A URL that is posted to.
pub(crate) struct Webhook {
    uri: Uri,
    authority: String,
}

impl Webhook {
    pub(crate) fn new(url: &str) -> Result<Webhook, ProviderError> {
        let bad = |why: &str| ProviderError::never(format!("{url:?} {why}"));
        let uri: Uri = url.parse().map_err(|_| bad("is not a URL"))?;
        if uri.scheme_str() != Some("http") {
            return Err(bad("is not http://host:port/path"));
        }
        let authority = uri.authority().ok_or_else(|| bad("names no host"))?.to_string();
        Ok(Webhook { uri, authority })
    }

    async fn post(&self, action: &str, ask: &Ask) -> Result<String, ProviderError> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            ProviderError::again(format!("{} {action}: {what}: {error}", self.uri))
        };
        let stream =
            TcpStream::connect(&self.authority).await.map_err(|error| failed("no connection", &error))?;
        let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream))
            .await
            .map_err(|error| failed("no connection", &error))?;
        let path = self.uri.path_and_query().map_or("/", |path| path.as_str());
        let request = Request::post(path)
            .header(header::HOST, &self.authority)
            .header(header::CONTENT_TYPE, "application/json")
            .header("idempotency-key", format!("{}/{action}", ask.key()))
            .body(Full::new(Bytes::from(ask.document(action).to_string())))
            .map_err(|error| failed("no request", &error))?;
        let exchange = async {
            let answer = sender.send_request(request).await.map_err(|error| failed("no answer", &error))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MOST_ANSWER).collect().await;
            let body = body.map_err(|error| failed("the answer is cut", &error))?.to_bytes();
            Ok((status, String::from_utf8_lossy(&body).into_owned()))
        };
        tokio::pin!(exchange);
        // The connection ends by itself or with this call; what it says of its end is no news after an answer.
        let (status, body) = tokio::select! {
            biased;
            answer = &mut exchange => answer?,
            ended = connection => {
                ended.map_err(|error| failed("the connection ended", &error))?;
                exchange.await?
            }
        };
        if status.is_success() {
            return Ok(body);
        }
        let said: String = body.lines().next().unwrap_or_default().chars().take(200).collect();
        let again = status.is_server_error()
            || matches!(status, StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS);
        let message = format!("{} {action}: {status}: {said}", self.uri);
        Err(if again { ProviderError::again(message) } else { ProviderError::never(message) })
    }
}

impl Machines for Webhook {
    fn start<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<Started, ProviderError>> {
        async move { Started::read(&self.post("start", ask).await?, ask) }.boxed()
    }

    fn stop<'a>(&'a self, ask: &'a Ask) -> BoxFuture<'a, Result<(), ProviderError>> {
        async move { self.post("stop", ask).await.map(drop) }.boxed()
    }
}
