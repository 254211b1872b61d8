//! `ContentionService`: what those who wait for a pool lack, how bad that is, and what was done about it.

use std::sync::Arc;

use plimsoll_ledger::Contention;
use plimsoll_proto::v1::contention_service_server::ContentionService;
use plimsoll_proto::{convert, v1};
use prost::Message;
use tonic::{Request, Response, Status};

use super::api::{Api, as_of};
use super::page::is_descending;
use super::problem::Problem;

/// Earlier episodes that go with one contention.
const MOST_EARLIER: usize = 20;

/// The service.
#[derive(Clone)]
pub(super) struct Contentions {
    api: Api,
}

impl Contentions {
    pub(super) fn new(api: Api) -> Contentions {
        Contentions { api }
    }
}

#[tonic::async_trait]
impl ContentionService for Contentions {
    async fn get_contention(
        &self,
        request: Request<v1::GetContentionRequest>,
    ) -> Result<Response<v1::GetContentionResponse>, Status> {
        let request = request.into_inner();
        let view = self.api.read_at(request.consistency, request.min_revision, as_of!(request)).await?;
        let of_it = |one: &&Arc<Contention>| one.pool == request.pool && one.resource == request.resource;
        // The open one is the latest.
        let mut found = view.contentions().rev().filter(of_it).map(|one| convert::contention_to_v1(one));
        let latest = found.next().ok_or_else(|| {
            Problem::not_found("contention", &format!("{}/{}", request.pool, request.resource))
        })?;
        let earlier = found.take(MOST_EARLIER).collect();
        Ok(Response::new(v1::GetContentionResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            contention: Some(latest),
            earlier,
        }))
    }

    async fn list_contentions(
        &self,
        request: Request<v1::ListContentionsRequest>,
    ) -> Result<Response<v1::ListContentionsResponse>, Status> {
        let mut request = request.into_inner();
        let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
        let min_revision = std::mem::take(&mut request.min_revision);
        let page = self.api.page(size, &token, &request.encode_to_vec())?;
        let min_revision = min_revision.max(page.revision.0);
        let view = self.api.read_at(request.consistency, min_revision, as_of!(request)).await?;
        let descending = is_descending(request.order)?;
        let after = page.after_number()?;
        let is_next = |id: u64| after.is_none_or(|after| if descending { id < after } else { id > after });
        let wanted = |one: &&Arc<Contention>| {
            (request.pool.is_empty() || one.pool == request.pool)
                && (request.include_ended || one.is_open())
                && is_next(one.id.0)
        };
        let mut found: Vec<&Arc<Contention>> = view.contentions().filter(wanted).collect();
        if descending {
            found.reverse();
        }
        let mut next_page_token = String::new();
        if found.len() > page.size {
            found.truncate(page.size);
            let last = found.last().map_or(0, |one| one.id.0);
            next_page_token = page.next(&last.to_be_bytes(), view.revision());
        }
        Ok(Response::new(v1::ListContentionsResponse {
            revision: view.revision().0,
            age_ms: view.age_ms(),
            contentions: found.into_iter().map(|one| convert::contention_to_v1(one)).collect(),
            next_page_token,
        }))
    }
}
