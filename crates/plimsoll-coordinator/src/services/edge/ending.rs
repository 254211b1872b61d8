//! Streams end when the coordinator stops. Left alone, one that waits for its caller, or that carries what another
//! coordinator says, would stay open for as long as either of them likes, and the stop would wait for it.

use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use futures_util::stream;
use http::HeaderMap;
use http_body::{Body as _, Frame};
use http_body_util::{BodyExt as _, StreamBody};
use tonic::Status;
use tonic::body::Body;

use crate::core::{Core, SubmitError};
use crate::services::problem::Problem;

/// After the core has ended, for answers that are nearly there and for streams that say by themselves why they end.
const LAST_WORDS: Duration = Duration::from_millis(250);

/// What a caller sends in a stream: broken off as soon as the core has ended, so that whoever reads it stops waiting.
pub(super) fn request(body: Body, core: &Core) -> Body {
    let core = core.clone();
    until(body, Box::pin(async move { core.ended().await }), Err(stopping()), Err)
}

/// What is sent to a caller in a stream: ended with a status a little after the core.
pub(super) fn response(body: Body, core: &Core) -> Body {
    if body.is_end_stream() {
        return body;
    }
    let (ending, failing) = (core.clone(), core.clone());
    let end = async move {
        ending.ended().await;
        tokio::time::sleep(LAST_WORDS).await;
    };
    // What fails in the middle is told as a status too: a reset would leave the caller without a reason.
    let told = move |failed: Status| {
        let has_ended = failing.ended().now_or_never().is_some();
        trailers(&if has_ended { stopping() } else { failed })
    };
    until(body, Box::pin(end), trailers(&stopping()), told)
}

/// A status as the last frame of an answer.
fn trailers(status: &Status) -> Result<Frame<Bytes>, Status> {
    let mut trailers = HeaderMap::new();
    status.add_header(&mut trailers).map(|()| Frame::trailers(trailers))
}

/// The frames of a body until `end`, and then `last`; where the body fails, what `told` makes of that is the last.
fn until(
    body: Body,
    end: BoxFuture<'static, ()>,
    last: Result<Frame<Bytes>, Status>,
    told: impl Fn(Status) -> Result<Frame<Bytes>, Status> + Send + 'static,
) -> Body {
    let frames = stream::unfold(Some((body, end, last, told)), |open| async move {
        let (mut body, mut end, last, told) = open?;
        tokio::select! {
            biased;
            frame = body.frame() => match frame? {
                Ok(frame) => Some((Ok(frame), Some((body, end, last, told)))),
                Err(failed) => Some((told(failed), None)),
            },
            () = &mut end => Some((last, None)),
        }
    });
    Body::new(StreamBody::new(frames))
}

fn stopping() -> Status {
    Problem::from(SubmitError::Stopped).into_status()
}
