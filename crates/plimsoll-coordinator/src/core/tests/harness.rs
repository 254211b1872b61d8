//! What the tests of the core share: a clock that follows tokio's, stores that outlive a core, short ways to submit.

use std::sync::Arc;
use std::time::Duration;

use plimsoll_consensus::Dialer;
use plimsoll_ledger::{
    Answer, Command, Device, Entry, GpuAsk, Outcome, Registration, Request, Requirements, Reservation, State,
    Verdict, Wait,
};
use plimsoll_store::memory::{MemoryEngine, MemoryWal};
use plimsoll_types::{ReservationId, Resources, Revision};
use tonic::transport::{Channel, Endpoint};

use crate::clock::Clock;
use crate::core::{Core, CoreConfig, Data, Stores, SubmitError};

/// Follows tokio's clock from a fixed moment, so that paused tests have their own time.
pub(super) struct TokioClock {
    begun: tokio::time::Instant,
}

impl TokioClock {
    pub(super) fn new() -> Arc<TokioClock> {
        Arc::new(TokioClock { begun: tokio::time::Instant::now() })
    }
}

impl Clock for TokioClock {
    fn now_ms(&self) -> u64 {
        1_700_000_000_000 + u64::try_from(self.begun.elapsed().as_millis()).expect("short tests")
    }
}

/// Plain connections.
pub(super) struct PlainDialer;

impl Dialer for PlainDialer {
    fn channel(&self, address: &str) -> Channel {
        Endpoint::from_shared(format!("http://{address}")).expect("an address").connect_lazy()
    }
}

pub(super) fn stores() -> Stores {
    Stores {
        wal: Arc::new(MemoryWal::new()),
        engine: Arc::new(MemoryEngine::new()),
        history: Arc::new(MemoryEngine::new()),
    }
}

/// A single voter on `stores`, serving.
pub(super) async fn single(stores: &Stores, clock: &Arc<TokioClock>) -> Core {
    single_with(stores, clock, |_| ()).await
}

/// The same with another configuration.
pub(super) async fn single_with(
    stores: &Stores,
    clock: &Arc<TokioClock>,
    change: impl FnOnce(&mut CoreConfig),
) -> Core {
    let mut config = CoreConfig {
        bootstrap: true,
        ..CoreConfig::new(1, "test", "127.0.0.1:1", Data::Custom(stores.clone()))
    };
    change(&mut config);
    let core = Core::start(config, Arc::new(PlainDialer), Arc::clone(clock) as _).await.expect("starts");
    serving(&core).await;
    core
}

pub(super) async fn serving(core: &Core) {
    until("the core serves", || core.status().serving).await;
}

/// Waits until `condition` holds; fails after a minute of tokio's time.
pub(super) async fn until(what: &str, mut condition: impl FnMut() -> bool) {
    for _ in 0..6_000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("never: {what}");
}

pub(super) fn entry(command: Command) -> Entry {
    Entry { actor: "ada".to_owned(), request_id: String::new(), request_hash: [0; 32], command }
}

/// The same under a request id.
pub(super) fn keyed(request_id: &str, hash: u8, command: Command) -> Entry {
    Entry { request_id: request_id.to_owned(), request_hash: [hash; 32], ..entry(command) }
}

pub(super) fn registration(name: &str, incarnation: u64, cpu_millis: u64, gpus: u16) -> Registration {
    let device = |index| Device {
        uuid: format!("GPU-{name}-{index}"),
        model: "h100".to_owned(),
        memory_bytes: 80 << 30,
        failed: false,
        mig: None,
    };
    Registration {
        name: name.to_owned(),
        incarnation,
        capacity: Resources::new(cpu_millis, 1 << 40),
        devices: (0..gpus).map(device).collect(),
        self_fencing: true,
        ..Registration::default()
    }
}

/// A request for cpu alone, active at once, with a lease of a minute.
pub(super) fn request(cpu_millis: u64) -> Request {
    Request {
        pool: "default".to_owned(),
        class: "standard".to_owned(),
        requirements: Requirements {
            amounts: Resources::new(cpu_millis, 1 << 30),
            ..Requirements::default()
        },
        ttl_ms: 60_000,
        hold_ms: 30_000,
        auto_confirm: true,
        ..Request::default()
    }
}

pub(super) fn gpu_request(gpus: u32) -> Request {
    let mut request = request(1_000);
    request.requirements.gpu = Some(GpuAsk::whole(gpus));
    request
}

pub(super) fn queued(mut request: Request) -> Request {
    request.wait = Wait::Queue { deadline_ms: 0 };
    request
}

pub(super) fn submit(request: Request) -> Command {
    Command::Submit { request, verdict: Verdict::Blocked(Vec::new()) }
}

pub(super) async fn do_it(core: &Core, command: Command) -> Outcome {
    core.submit(entry(command)).await.expect("applied").outcome
}

pub(super) async fn register(core: &Core, name: &str, cpu_millis: u64, gpus: u16) {
    let outcome = do_it(core, Command::RegisterNode(registration(name, 1, cpu_millis, gpus))).await;
    assert!(matches!(outcome, Outcome::Node(_)), "{outcome:?}");
}

pub(super) async fn reserve(core: &Core, request: Request) -> Arc<Reservation> {
    granted(core.submit(entry(submit(request))).await)
}

pub(super) fn granted(answer: Result<Answer, SubmitError>) -> Arc<Reservation> {
    match answer.expect("applied").outcome {
        Outcome::Reservation(reservation) => reservation,
        other => panic!("no reservation: {other:?}"),
    }
}

pub(super) async fn release(core: &Core, reservation: &Reservation) -> Outcome {
    do_it(core, Command::Release { reservation: reservation.id, token: reservation.token }).await
}

pub(super) fn state(core: &Core, id: ReservationId) -> State {
    core.local().reservation(id).expect("is there").state
}

pub(super) fn revision(core: &Core) -> Revision {
    core.local().revision()
}
