//! Numbers about connections of gRPC listeners.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Numbers about connections.
#[derive(Clone, Debug)]
pub(crate) struct Connections {
    open: Gauge,
    refused: Family<Why, Counter>,
}

/// Why a connection was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Its source has too many.
    Source,
    /// Its TLS handshake failed, or took too long.
    Handshake,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Why {
    reason: &'static str,
}

/// A connection that is open for as long as this lives.
pub(crate) struct OpenConnection(Gauge);

impl Refused {
    const ALL: [Refused; 2] = [Refused::Source, Refused::Handshake];

    fn name(self) -> &'static str {
        match self {
            Refused::Source => "source",
            Refused::Handshake => "handshake",
        }
    }
}

impl Connections {
    pub(super) fn register(registry: &mut Registry) -> Connections {
        let connections = Connections { open: Gauge::default(), refused: Family::default() };
        for why in Refused::ALL {
            drop(connections.refused.get_or_create(&Why { reason: why.name() }));
        }
        registry.register("connections", "Open connections of gRPC listeners", connections.open.clone());
        let help = "Connections not taken: too many of one source, or a TLS handshake that failed";
        registry.register("connections_refused", help, connections.refused.clone());
        connections
    }

    /// A connection is open from now until the guard is dropped.
    pub(crate) fn open(&self) -> OpenConnection {
        self.open.inc();
        OpenConnection(self.open.clone())
    }

    /// A connection was not taken.
    pub(crate) fn refused(&self, why: Refused) {
        self.refused.get_or_create(&Why { reason: why.name() }).inc();
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.dec();
    }
}
