//! Numbers about calls: how many, how they ended, how long they took.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// Numbers about calls. Labels are bounded: methods are those of the API, codes those of gRPC.
#[derive(Clone, Debug)]
pub struct Calls {
    ended: Family<Ended, Counter>,
    seconds: Family<Method, Histogram, fn() -> Histogram>,
    forwarded: Family<Method, Counter>,
    open: Gauge,
    grant_seconds: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Ended {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Method {
    method: &'static str,
}

/// A call that is open for as long as this lives.
pub struct OpenCall(Gauge);

impl Calls {
    pub(super) fn register(registry: &mut Registry) -> Calls {
        let calls = Calls {
            ended: Family::default(),
            seconds: Family::new_with_constructor(seconds_histogram),
            forwarded: Family::default(),
            open: Gauge::default(),
            grant_seconds: seconds_histogram(),
        };
        registry.register("rpc_calls", "Calls answered, by method and gRPC code", calls.ended.clone());
        registry.register(
            "rpc_duration_seconds",
            "Time to the first answer of a call",
            calls.seconds.clone(),
        );
        registry.register("rpc_forwarded", "Calls passed on to the leader", calls.forwarded.clone());
        registry.register("rpc_open", "Calls that are being answered", calls.open.clone());
        let help = "Time from taking a request in to its applied answer";
        registry.register("grant_duration_seconds", help, calls.grant_seconds.clone());
        calls
    }

    /// A call was answered after `took`.
    pub fn ended(&self, method: &'static str, code: tonic::Code, took: Duration) {
        self.ended.get_or_create(&Ended { method, code: code_name(code) }).inc();
        self.seconds.get_or_create(&Method { method }).observe(took.as_secs_f64());
    }

    /// A call was passed on to the leader.
    pub fn forwarded(&self, method: &'static str) {
        self.forwarded.get_or_create(&Method { method }).inc();
    }

    /// A call is open from now until the guard is dropped.
    pub fn open(&self) -> OpenCall {
        self.open.inc();
        OpenCall(self.open.clone())
    }

    /// Commands were taken in and answered after `took`, `count` of them together.
    pub fn granted(&self, took: Duration, count: usize) {
        for _ in 0..count {
            self.grant_seconds.observe(took.as_secs_f64());
        }
    }
}

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.dec();
    }
}

/// 0.1 ms to 30 s.
pub(super) fn seconds_histogram() -> Histogram {
    Histogram::new([
        0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0,
        10.0, 30.0,
    ])
}

/// Names of the gRPC specification.
fn code_name(code: tonic::Code) -> &'static str {
    use tonic::Code;
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}
