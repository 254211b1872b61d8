//! `WatchEndpoints`: all endpoints of a service, now and after each change. Who reads slowly is given the latest.

use std::time::Duration;

use plimsoll_proto::{convert, v1};
use plimsoll_types::Revision;
use tokio::sync::mpsc;

use crate::services::AnswerStream;
use crate::services::api::Api;

/// Changes that follow each other faster than this are told as one: it bounds what a rolling restart of a large service costs, and is part of the
/// propagation time that the documentation states.
const PAUSE: Duration = Duration::from_millis(5);

/// Follows a service until the client leaves or the core ends.
pub(super) fn follow(api: Api, service: String) -> AnswerStream<v1::WatchEndpointsResponse> {
    // One: what the client has not taken is made when it does.
    let (answers, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut changes = api.core.endpoint_changes();
        let mut told: Option<(Revision, v1::WatchEndpointsResponse)> = None;
        loop {
            let Ok(place) = answers.reserve().await else { return };
            changes.borrow_and_update();
            if let Some(news) = look(&api, &service, told.as_ref()) {
                let (_, answer) = &news;
                place.send(Ok(answer.clone()));
                told = Some(news);
            } else {
                drop(place);
            }
            tokio::select! {
                biased;
                () = answers.closed() => return,
                () = api.core.ended() => return,
                changed = changes.changed() => if changed.is_err() { return },
            }
            tokio::time::sleep(PAUSE).await;
        }
    });
    AnswerStream::new(receiver)
}

/// The service as it is, with the revision at which endpoints changed last; `None` where the client knows it all.
fn look(
    api: &Api,
    service: &str,
    told: Option<&(Revision, v1::WatchEndpointsResponse)>,
) -> Option<(Revision, v1::WatchEndpointsResponse)> {
    let view = api.local();
    let changed = view.endpoints_changed();
    if told.is_some_and(|(of, _)| *of == changed) {
        return None;
    }
    let answer = v1::WatchEndpointsResponse {
        revision: view.revision().0,
        time_ms: api.core.clock().now_ms(),
        service: view.service(service).map(|service| convert::service_to_v1(service)),
        endpoints: view
            .endpoints(service)
            .filter_map(|replica| convert::service_endpoint_to_v1(replica, &view))
            .collect(),
    };
    // Other services' endpoints change too.
    let same =
        told.is_some_and(|(_, old)| (&old.service, &old.endpoints) == (&answer.service, &answer.endpoints));
    (!same).then_some((changed, answer))
}
