//! Pages of lists on their way to clients. A page may be megabytes, and is ready before it is known whether its client reads:
//! so one connection has few of them at a time, and all together are bounded.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::Response;
use http_body::Body as _;
use http_body_util::{BodyExt, Full};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::Status;
use tonic::body::Body;

use crate::services::problem::Problem;

/// Pages that one connection may have at a time, being made or on their way; further calls wait for them.
const PAGES: u32 = 4;
/// Past so many bytes of pages on their way, a connection has one at a time.
const MANY_BYTES: u64 = 256 << 20;
/// Past so many, no more are made.
const MOST_BYTES: u64 = 2 * MANY_BYTES;
/// When to come back then.
const RETRY_AFTER_MS: u64 = 1_000;

/// All pages on their way.
#[derive(Debug, Default)]
pub(in crate::services) struct Pages {
    bytes: AtomicU64,
}

/// Those of one connection.
#[derive(Clone, Debug)]
pub(super) struct OwnPages {
    all: Arc<Pages>,
    places: Arc<Semaphore>,
}

/// A place for one page.
pub(super) struct Place {
    all: Arc<Pages>,
    _place: OwnedSemaphorePermit,
}

/// A page on its way. It is over when this is dropped.
pub(super) struct Sending {
    place: Place,
    bytes: u64,
}

impl OwnPages {
    pub(super) fn new(all: Arc<Pages>) -> OwnPages {
        OwnPages { all, places: Arc::new(Semaphore::new(PAGES as usize)) }
    }

    /// Waits for a place for one more page.
    pub(super) async fn place(&self) -> Result<Place, Problem> {
        let bytes = self.all.bytes.load(Ordering::Relaxed);
        let places = if bytes > MANY_BYTES { PAGES } else { 1 };
        let place = Arc::clone(&self.places).acquire_many_owned(places).await;
        let place = place.expect("the places of a connection are never closed");
        let bytes = self.all.bytes.load(Ordering::Relaxed);
        if bytes > MOST_BYTES {
            return Err(Problem::answers_unread(bytes, MOST_BYTES, RETRY_AFTER_MS));
        }
        Ok(Place { all: Arc::clone(&self.all), _place: place })
    }
}

impl Place {
    /// The page in the form in which it is sent, which takes a fraction of what it is made from.
    pub(super) async fn page(self, response: Response<Body>) -> (Response<Body>, Option<Sending>) {
        if response.body().is_end_stream() {
            return (response, None);
        }
        let (head, body) = response.into_parts();
        match body.collect().await {
            Ok(whole) => {
                let trailers = std::future::ready(whole.trailers().cloned().map(Ok::<_, Status>));
                let data = whole.to_bytes();
                let bytes = data.len() as u64;
                self.all.bytes.fetch_add(bytes, Ordering::Relaxed);
                let body = Full::new(data).map_err(|never| match never {}).with_trailers(trailers);
                let body = Body::new(body);
                (Response::from_parts(head, body), Some(Sending { place: self, bytes }))
            }
            Err(failed) => (failed.into_http(), None),
        }
    }
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.place.all.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bytes::Bytes;
    use tokio::time::timeout;

    use super::*;

    const SOON: Duration = Duration::from_secs(1);

    async fn sending(own: &OwnPages, bytes: usize) -> Sending {
        let body = Full::new(Bytes::from(vec![7; bytes])).map_err(|never| match never {});
        let place = timeout(SOON, own.place()).await.expect("there is a place").expect("and room");
        place.page(Response::new(Body::new(body))).await.1.expect("it has a body")
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_has_few_pages_at_a_time_and_others_have_theirs() {
        let all = Arc::new(Pages::default());
        let (own, other) = (OwnPages::new(Arc::clone(&all)), OwnPages::new(Arc::clone(&all)));
        let mut pages = Vec::new();
        for _ in 0..PAGES {
            pages.push(sending(&own, 1_000).await);
        }
        assert!(timeout(SOON, own.place()).await.is_err(), "it waits");
        assert_eq!(all.bytes.load(Ordering::Relaxed), u64::from(PAGES) * 1_000);
        drop(sending(&other, 10).await);
        pages.pop();
        pages.push(sending(&own, 10).await);
        drop(pages);
        assert_eq!(all.bytes.load(Ordering::Relaxed), 0);
    }

    #[tokio::test]
    async fn a_page_is_sent_as_it_was_with_its_end() {
        let mut end = http::HeaderMap::new();
        end.insert("grpc-status", http::HeaderValue::from_static("0"));
        let body = Full::new(Bytes::from_static(b"page")).map_err(|never| match never {});
        let body = Body::new(body.with_trailers(std::future::ready(Some(Ok::<_, Status>(end.clone())))));
        let own = OwnPages::new(Arc::default());
        let place = own.place().await.expect("room");
        let (page, _sending) = place.page(Response::new(body)).await;
        let page = page.into_body().collect().await.expect("whole");
        assert_eq!(page.trailers(), Some(&end));
        assert_eq!(&page.to_bytes()[..], b"page");
    }

    #[tokio::test(start_paused = true)]
    async fn where_much_is_on_its_way_a_connection_has_one_page_and_past_a_bound_none() {
        let all = Arc::new(Pages::default());
        let own = OwnPages::new(Arc::clone(&all));
        all.bytes.store(MANY_BYTES + 1, Ordering::Relaxed);
        let page = sending(&own, 10).await;
        assert!(timeout(SOON, own.place()).await.is_err(), "one is enough");
        drop(page);
        all.bytes.store(MOST_BYTES + 1, Ordering::Relaxed);
        let refused = own.place().await.err().expect("refused").into_status();
        assert_eq!(refused.code(), tonic::Code::ResourceExhausted);
    }
}
