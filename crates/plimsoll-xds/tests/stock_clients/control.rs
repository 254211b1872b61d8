//! The control plane of a test: discovery, load reports and agent checks, on ports of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use plimsoll_xds::{
    AdsServer, AgentAnswer, AgentLimits, Catalog, Limits, LoadReport, LrsServer, Service, USUAL_INTERVAL,
    serve_agent_checks,
};
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::TcpListenerStream;

/// The service of these tests.
pub(crate) const SERVICE: &str = "model-a";

pub(crate) struct Control {
    /// Discovery and load reports.
    pub(crate) address: SocketAddr,
    /// Agent checks.
    pub(crate) agent: SocketAddr,
    pub(crate) ads: AdsServer,
    catalogs: watch::Sender<Arc<Catalog>>,
    reports: mpsc::Receiver<LoadReport>,
}

impl Control {
    pub(crate) async fn start() -> Control {
        let (catalogs, receiver) = watch::channel(Arc::new(Catalog::empty()));
        let (sender, reports) = mpsc::channel(10_000);
        let ads = AdsServer::new(receiver.clone(), Limits::default());
        let lrs = LrsServer::new(receiver.clone(), sender, USUAL_INTERVAL, Limits::default());
        let router = tonic::transport::Server::builder()
            .add_service(ads.clone().into_service())
            .add_service(lrs.into_service());
        let (listener, address) = bind().await;
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        let (listener, agent) = bind().await;
        let answer = move |question: &_| AgentAnswer::of(&receiver.borrow(), question);
        tokio::spawn(serve_agent_checks(listener, AgentLimits::default(), answer));
        Control { address, agent, ads, catalogs, reports }
    }

    /// Publishes the one service, and says when.
    pub(crate) fn publish(&self, service: &Service) -> Instant {
        let revision = self.catalogs.borrow().revision() + 1;
        let services = [(SERVICE.to_owned(), Arc::new(service.clone()))];
        let catalog = Catalog::new(revision, services).expect("a catalog");
        let now = Instant::now();
        self.catalogs.send_replace(Arc::new(catalog));
        now
    }

    /// Reports that came since the last look.
    pub(crate) fn reports(&mut self) -> Vec<LoadReport> {
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }

    /// No client rejected anything.
    pub(crate) fn assert_all_accepted(&self) {
        let status = self.ads.status();
        assert_eq!(status.nacks(), (0, None), "{status:#?}");
    }
}

pub(crate) async fn bind() -> (tokio::net::TcpListener, SocketAddr) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    (listener, address)
}

/// Waits for what must come to be.
pub(crate) async fn until(what: &str, patience: Duration, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + patience;
    while !holds() {
        assert!(Instant::now() < deadline, "not in {patience:?}: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
