//! Pages of lists: how many, from where, and the token for the next one.
//!
//! A token carries the revision that the first page showed, where the page ended, and a digest of the other fields of
//! the request. Later pages never show an older state than the first, and never something else than was asked.

use plimsoll_proto::{limits, v1};
use plimsoll_types::Revision;

use super::problem::Problem;

/// First byte of a token: the layout of the rest.
const LAYOUT: u8 = 1;
/// Length of the digest of a request's other fields, in bytes.
const DIGEST: usize = 8;
/// Longest key in a token, in bytes.
const MOST_KEY: usize = 512;

/// What page is asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Page {
    /// Most items on it.
    pub(crate) size: usize,
    /// Key of the last item of the page before; empty for the first page.
    pub(crate) after: Vec<u8>,
    /// Revision that the first page showed; 0 on the first page.
    pub(crate) revision: Revision,
    digest: [u8; DIGEST],
}

impl Page {
    /// Reads the page fields of a request. `fields` are its other fields, in any fixed encoding.
    pub(crate) fn read(size: u32, token: &str, fields: &[u8]) -> Result<Page, Problem> {
        let mut digest = [0; DIGEST];
        digest.copy_from_slice(&blake3::hash(fields).as_bytes()[..DIGEST]);
        let size = limits::page_size(size);
        if token.is_empty() {
            return Ok(Page { size, after: Vec::new(), revision: Revision(0), digest });
        }
        let wrong = || Problem::invalid("page_token", "is not a token of this list");
        let bytes = from_hex(token).ok_or_else(wrong)?;
        let (head, after) = bytes.split_at_checked(1 + DIGEST + 8).ok_or_else(wrong)?;
        if head[0] != LAYOUT || after.is_empty() {
            return Err(wrong());
        }
        if head[1..=DIGEST] != digest {
            return Err(Problem::invalid(
                "page_token",
                "belongs to a request with other fields: repeat those of the first page",
            ));
        }
        let revision = u64::from_be_bytes(head[1 + DIGEST..].try_into().map_err(|_| wrong())?);
        Ok(Page { size, after: after.to_vec(), revision: Revision(revision), digest })
    }

    /// The token of the page after the one that ends with `last`. `shown` is the revision that this page showed.
    pub(crate) fn next(&self, last: &[u8], shown: Revision) -> String {
        let revision = if self.revision.0 == 0 { shown } else { self.revision };
        let mut bytes = vec![LAYOUT];
        bytes.extend_from_slice(&self.digest);
        bytes.extend_from_slice(&revision.0.to_be_bytes());
        bytes.extend_from_slice(last);
        to_hex(&bytes)
    }

    /// Where the page before ended, for lists with numbers as keys.
    pub(crate) fn after_number(&self) -> Result<Option<u64>, Problem> {
        if self.after.is_empty() {
            return Ok(None);
        }
        let number = <[u8; 8]>::try_from(self.after.as_slice());
        number
            .map(|bytes| Some(u64::from_be_bytes(bytes)))
            .map_err(|_| Problem::invalid("page_token", "is damaged"))
    }

    /// Where the page before ended, for lists with names as keys.
    pub(crate) fn after_name(&self) -> Result<&str, Problem> {
        std::str::from_utf8(&self.after).map_err(|_| Problem::invalid("page_token", "is damaged"))
    }
}

/// Whether a list is asked for backwards.
pub(crate) fn is_descending(order: i32) -> Result<bool, Problem> {
    match v1::SortOrder::try_from(order) {
        Ok(v1::SortOrder::Unspecified | v1::SortOrder::Ascending) => Ok(false),
        Ok(v1::SortOrder::Descending) => Ok(true),
        Err(_) => Err(Problem::invalid("order", format!("{order} is not an order"))),
    }
}

fn to_hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |value: u8| char::from(DIGITS[usize::from(value & 0xf)]);
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(*byte)]).collect()
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || digits.len() > 2 * (MOST_KEY + 1 + DIGEST + 8) {
        return None;
    }
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    digits.chunks_exact(2).map(|pair| Some(value(pair[0])? << 4 | value(pair[1])?)).collect()
}

/// One page of objects that have names as keys, in the order of names, and the revision that it shows.
macro_rules! list {
    ($self:ident, $request:ident, $all:ident) => {{
        let mut request = $request.into_inner();
        let (size, token) = (std::mem::take(&mut request.page_size), std::mem::take(&mut request.page_token));
        let min_revision = std::mem::take(&mut request.min_revision);
        let page = $self.api.page(size, &token, &request.encode_to_vec())?;
        let min_revision = min_revision.max(page.revision.0);
        let view = $self
            .api
            .read_at(request.consistency, min_revision, $crate::services::api::as_of!(request))
            .await?;
        let after = page.after_name()?;
        let mut objects: Vec<_> = view.$all().cloned().collect();
        if $crate::services::page::is_descending(request.order)? {
            objects.reverse();
            objects.retain(|object| after.is_empty() || object.name.as_str() < after);
        } else {
            objects.retain(|object| object.name.as_str() > after);
        }
        let mut next_page_token = String::new();
        if objects.len() > page.size {
            objects.truncate(page.size);
            let last = objects.last().map_or("", |object| object.name.as_str());
            next_page_token = page.next(last.as_bytes(), view.revision());
        }
        (view, objects, next_page_token)
    }};
}
pub(crate) use list;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_leads_on_and_keeps_the_first_revision() {
        let first = Page::read(0, "", b"pool=a").expect("first");
        assert_eq!((first.size, first.after_number().expect("none")), (100, None));
        let token = first.next(&7u64.to_be_bytes(), Revision(40));
        let second = Page::read(5_000, &token, b"pool=a").expect("second");
        assert_eq!((second.size, second.revision), (1_000, Revision(40)));
        assert_eq!(second.after_number().expect("a number"), Some(7));
        let third = Page::read(1, &second.next(b"node-01", Revision(44)), b"pool=a").expect("third");
        assert_eq!((third.revision, third.after_name().expect("a name")), (Revision(40), "node-01"));
    }

    #[test]
    fn a_token_of_another_list_or_a_damaged_one_is_refused() {
        let token = Page::read(0, "", b"pool=a").expect("first").next(b"x", Revision(1));
        assert!(Page::read(0, &token, b"pool=b").is_err());
        for bad in ["1", "zz", "00", &token[..20], &token[2..]] {
            assert!(Page::read(0, bad, b"pool=a").is_err(), "{bad}");
        }
    }
}
