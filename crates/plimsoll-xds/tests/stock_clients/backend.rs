//! A model server: a gRPC server that notes when it is called, and reports its load with each answer.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http_body_util::BodyExt;
use parking_lot::Mutex;
use plimsoll_xds::{Endpoint, EndpointLoad, TRAILER};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::body::Body;
use tonic::metadata::MetadataMap;
use tonic::server::{Grpc, NamedService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// The header that affinity hashes.
pub(crate) const SESSION: &str = "x-session";

#[derive(Clone)]
pub(crate) struct Backend {
    pub(crate) address: SocketAddr,
    calls: Arc<Mutex<Vec<Call>>>,
    load: Arc<EndpointLoad>,
}

#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) at: Instant,
    pub(crate) session: Option<String>,
}

impl Backend {
    /// One that calls itself this busy, at a hundred requests a second.
    pub(crate) async fn start(utilization: f64) -> Backend {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let load = EndpointLoad {
            application_utilization: utilization,
            requests_per_second: 100.0,
            named_metrics: [("queue".to_owned(), 3.0)].into(),
            ..EndpointLoad::default()
        };
        let address = listener.local_addr().expect("bound");
        let backend = Backend { address, calls: Arc::default(), load: Arc::new(load) };
        let router = tonic::transport::Server::builder().add_service(backend.clone());
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        backend
    }

    pub(crate) async fn fleet(count: usize) -> Vec<Backend> {
        let mut fleet = Vec::new();
        for _ in 0..count {
            fleet.push(Backend::start(0.5).await);
        }
        fleet
    }

    pub(crate) fn endpoint(&self) -> Endpoint {
        Endpoint::serving(self.address)
    }

    /// Calls that arrived at this time or later.
    pub(crate) fn since(&self, begin: Instant) -> Vec<Call> {
        self.calls.lock().iter().filter(|call| call.at >= begin).cloned().collect()
    }

    /// How many calls arrived at this time or later.
    pub(crate) fn count_since(&self, begin: Instant) -> usize {
        self.calls.lock().iter().filter(|call| call.at >= begin).count()
    }

    /// From then to the last call that arrived; zero where none did.
    pub(crate) fn last_after(&self, begin: Instant) -> Duration {
        self.since(begin).iter().map(|call| call.at - begin).max().unwrap_or_default()
    }
}

impl NamedService for Backend {
    const NAME: &'static str = "test.Backend";
}

impl tower::Service<http::Request<Body>> for Backend {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let backend = self.clone();
        Box::pin(async move {
            let session =
                request.headers().get(SESSION).and_then(|value| value.to_str().ok()).map(str::to_owned);
            backend.calls.lock().push(Call { at: Instant::now(), session });
            let mut report = MetadataMap::new();
            report.insert_bin(TRAILER, backend.load.to_trailer().expect("in range"));
            let name = backend.address.to_string();
            let method = tower::service_fn(move |_: Request<()>| {
                let name = name.clone();
                async move { Ok::<_, Status>(Response::new(name)) }
            });
            let response = Grpc::new(ProstCodec::<String, ()>::default()).unary(method, request).await;
            // Trailers of an answer that went well are the transport's; the report is put among them.
            Ok(response.map(|body| {
                Body::new(body.map_frame(move |frame| match frame.into_trailers() {
                    Ok(mut trailers) => {
                        trailers.extend(report.clone().into_headers());
                        http_body::Frame::trailers(trailers)
                    }
                    Err(frame) => frame,
                }))
            }))
        })
    }
}
