//! Who calls: by certificate where there is TLS, "local" where there is none (loopback listeners only).

use std::sync::Arc;

use http::Extensions;
use http::header::{HeaderMap, HeaderName, HeaderValue};

use crate::services::connections::{ConnectionInfo, Holder};

/// Set by a coordinator that passes a call on: who called there. Believed from coordinators only.
pub(super) const ACTOR: HeaderName = HeaderName::from_static("plimsoll-actor");
/// Actor of callers on a listener without TLS.
const LOCAL: &str = "local";

/// Who calls, as the ledger calls them. In the extensions of every request that reaches a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Actor(pub(crate) Arc<str>);

/// What the edge knows of a caller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Caller {
    /// For the ledger.
    pub(super) actor: Actor,
    /// May speak for others and take part in the group.
    pub(super) is_coordinator: bool,
}

impl Actor {
    /// The actor of a request that passed the edge.
    pub(crate) fn of<T>(request: &tonic::Request<T>) -> Actor {
        request.extensions().get::<Actor>().cloned().unwrap_or_else(|| Actor(LOCAL.into()))
    }
}

/// Works out who calls. `tls` says whether the listener demands certificates; without one there, nobody calls.
pub(super) fn identify(tls: bool, headers: &HeaderMap, extensions: &Extensions) -> Option<Caller> {
    let local;
    let holder = if tls {
        extensions.get::<ConnectionInfo>()?.holder()?
    } else {
        local = Holder { actor: LOCAL.into(), is_coordinator: true };
        &local
    };
    let is_coordinator = holder.is_coordinator;
    let said = headers.get(ACTOR).filter(|_| is_coordinator).and_then(|value| value.to_str().ok());
    let actor = said.map_or_else(|| Arc::clone(&holder.actor), Arc::from);
    Some(Caller { actor: Actor(actor), is_coordinator })
}

/// The actor as a header for the leader.
pub(super) fn header(actor: &Actor) -> Option<HeaderValue> {
    HeaderValue::from_str(&actor.0).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_tls_everyone_is_local_and_may_forward() {
        let mut headers = HeaderMap::new();
        let caller = identify(false, &headers, &Extensions::new()).expect("local");
        assert_eq!(&*caller.actor.0, "local");
        headers.insert(ACTOR, HeaderValue::from_static("ada"));
        let forwarded = identify(false, &headers, &Extensions::new()).expect("local");
        assert_eq!(&*forwarded.actor.0, "ada");
    }

    #[test]
    fn with_tls_nobody_is_believed_without_a_certificate() {
        let mut headers = HeaderMap::new();
        headers.insert(ACTOR, HeaderValue::from_static("ada"));
        assert_eq!(identify(true, &headers, &Extensions::new()), None);
    }

    #[test]
    fn a_client_is_who_its_certificate_says_and_a_coordinator_may_speak_for_others() {
        let mut headers = HeaderMap::new();
        headers.insert(ACTOR, HeaderValue::from_static("eve"));
        for (is_coordinator, actor) in [(false, "ada"), (true, "eve")] {
            let mut extensions = Extensions::new();
            extensions.insert(ConnectionInfo::of(Holder { actor: "ada".into(), is_coordinator }));
            let caller = identify(true, &headers, &extensions).expect("shown");
            assert_eq!((&*caller.actor.0, caller.is_coordinator), (actor, is_coordinator));
        }
    }
}
