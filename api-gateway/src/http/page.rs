//! Lists: a bounded page, an opaque cursor, chosen fields.
//!
//! A cursor is the last key of a page and a hash of the query it belongs to, base64. It holds no offset, so rows that come and go move
//! nothing; and it is refused with other filters, because a page of another list is a wrong answer that looks right.

use crate::{
    failure::ApiError,
    http::{problem::ApiResult, reply},
};
use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use domain::{ErrorKind, Problem, limits};
use http::StatusCode;
use serde::{Deserialize, Serialize};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema},
};

/// The parameters of a list that has no filters.
#[derive(Debug, Clone, Default, Deserialize, utoipa::IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListParams {
    /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your home project.
    pub project: Option<String>,
    /// Items per page, 1 to 1000; 100 unless given.
    pub limit: Option<u32>,
    /// The `next_cursor` of the previous page.
    pub cursor: Option<String>,
    /// Only these fields of each item, separated by commas.
    pub fields: Option<String>,
}

impl ListParams {
    /// `list` names the list and all that filters it: a cursor of another one is refused.
    pub fn page(&self, list: &str) -> Result<PageRequest, ApiError> {
        PageRequest::new(self.limit, self.cursor.as_deref(), self.fields.as_deref(), list)
    }
}

/// The query of a list with filters of its own: the common parameters, then these.
macro_rules! list_params {
    ($(#[$meta:meta])* $name:ident { $($(#[$doc:meta])* $field:ident: $outer:ident $(<$inner:ident>)?,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, serde::Deserialize, utoipa::IntoParams)]
        #[serde(deny_unknown_fields)]
        #[into_params(parameter_in = Query)]
        pub struct $name {
            /// Id or name of the project; else the header `X-Iaas-Project`, the API key's, or your home project.
            pub project: Option<String>,
            /// Items per page, 1 to 1000; 100 unless given.
            pub limit: Option<u32>,
            /// The `next_cursor` of the previous page.
            pub cursor: Option<String>,
            /// Only these fields of each item, separated by commas.
            pub fields: Option<String>,
            $($(#[$doc])* pub $field: $outer $(<$inner>)?,)+
        }

        impl $name {
            pub fn common(&self) -> $crate::http::page::ListParams {
                $crate::http::page::ListParams {
                    project: self.project.clone(),
                    limit: self.limit,
                    cursor: self.cursor.clone(),
                    fields: self.fields.clone(),
                }
            }
        }
    };
}
pub(crate) use list_params;

#[derive(Debug)]
pub struct PageRequest {
    pub limit: u32,
    /// The key of the last item of the page before.
    pub after: Option<String>,
    fields: Option<Vec<String>>,
    bound: u64,
}

/// One page.
#[derive(Serialize, ToSchema)]
pub struct List<T> {
    pub items: Vec<T>,
    /// The `cursor` of the next page; null on the last page.
    pub next_cursor: Option<String>,
}

impl PageRequest {
    pub fn new(limit: Option<u32>, cursor: Option<&str>, fields: Option<&str>, list: &str) -> Result<Self, ApiError> {
        let limit = limit.unwrap_or(limits::PAGE_DEFAULT);
        if !(1..=limits::PAGE_MAX).contains(&limit) {
            return Err(Problem::invalid("limit", format!("1 to {} is expected", limits::PAGE_MAX)).into());
        }
        let bound = fnv1a(list.as_bytes());
        let after = cursor.map(|text| read_cursor(text, bound)).transpose()?;
        let fields = fields.map(|text| text.split(',').map(|f| f.trim().to_owned()).collect());
        Ok(Self { limit, after, fields, bound })
    }

    /// What to ask the store for: one more than the page, whose presence says that there is a next one.
    #[must_use]
    pub fn store_page(&self) -> store::Page {
        store::Page { after: self.after.clone(), limit: self.limit + 1 }
    }

    /// The answer from rows read with [`Self::store_page`] (up to `limit + 1`). `key` is what the store pages by.
    pub fn reply<R, T: Serialize + ToSchema>(
        &self,
        mut rows: Vec<R>,
        key: impl Fn(&R) -> String,
        view: impl FnMut(R) -> T,
    ) -> ApiResult {
        let more = rows.len() > self.limit as usize;
        rows.truncate(self.limit as usize);
        let next_cursor = if more { rows.last().map(|row| write_cursor(&key(row), self.bound)) } else { None };
        let items: Vec<T> = rows.into_iter().map(view).collect();
        match &self.fields {
            None => reply::json(StatusCode::OK, &List { items, next_cursor }),
            Some(fields) => {
                check_fields::<T>(fields)?;
                let items = items.iter().map(|item| select(item, fields)).collect::<Result<Vec<_>, _>>()?;
                reply::json(StatusCode::OK, &List { items, next_cursor })
            }
        }
    }
}

fn check_fields<T: PartialSchema>(fields: &[String]) -> Result<(), ApiError> {
    let RefOr::T(Schema::Object(schema)) = T::schema() else { return Ok(()) };
    match fields.iter().find(|f| !schema.properties.contains_key(*f)) {
        None => Ok(()),
        Some(unknown) => {
            let known: Vec<_> = schema.properties.keys().cloned().collect();
            let shown: String = unknown.chars().take(64).collect();
            Err(Problem::invalid(
                "fields",
                format!("there is no field `{shown}`; the fields are: {}", known.join(", ")),
            )
            .into())
        }
    }
}

fn select<T: Serialize>(item: &T, fields: &[String]) -> Result<serde_json::Value, ApiError> {
    let mut value = serde_json::to_value(item).map_err(|e| ApiError::internal("an item doesn't serialise", &e))?;
    if let serde_json::Value::Object(map) = &mut value {
        map.retain(|name, _| fields.contains(name));
    }
    Ok(value)
}

/// Stable across processes and versions, unlike the standard library's hasher.
fn fnv1a(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |h, b| (h ^ u64::from(*b)).wrapping_mul(0x0100_0000_01b3))
}

fn write_cursor(after: &str, bound: u64) -> String {
    let mut bytes = bound.to_be_bytes().to_vec();
    bytes.extend_from_slice(after.as_bytes());
    BASE64_URL_SAFE_NO_PAD.encode(bytes)
}

fn read_cursor(text: &str, bound: u64) -> Result<String, Problem> {
    let wrong = |detail: &str| {
        Problem::new(ErrorKind::InvalidArgument, "bad_cursor", format!("cursor: {detail}"))
            .with_field("cursor", detail)
            .with_hint("start again without a cursor, and pass next_cursor on as it is")
    };
    let bytes = (text.len() <= 512).then(|| BASE64_URL_SAFE_NO_PAD.decode(text).ok()).flatten();
    let bytes = bytes.ok_or_else(|| wrong("this cursor is not from this API"))?;
    let (head, key) = bytes.split_at_checked(8).ok_or_else(|| wrong("this cursor is not from this API"))?;
    if head != bound.to_be_bytes() {
        return Err(wrong("it belongs to another list or to other filters"));
    }
    let key = std::str::from_utf8(key).ok().filter(|k| !k.is_empty() && k.len() <= 256 && k.is_ascii());
    key.map(str::to_owned).ok_or_else(|| wrong("this cursor is not from this API"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_cursor(cursor: &str, list: &str) -> Result<PageRequest, String> {
        PageRequest::new(None, Some(cursor), None, list).map_err(|e| e.problem().code.clone())
    }

    #[test]
    fn a_cursor_returns_where_it_was_and_only_there() {
        let cursor = write_cursor("0198-last", fnv1a(b"instances of p"));
        let page = with_cursor(&cursor, "instances of p").expect("ours");
        assert_eq!((page.after.as_deref(), page.limit), (Some("0198-last"), limits::PAGE_DEFAULT));
        assert_eq!(with_cursor(&cursor, "instances of q").expect_err("other list"), "bad_cursor");
        for bad in ["", "!!", "AAAA", &cursor[..8], &"A".repeat(600)] {
            assert_eq!(with_cursor(bad, "instances of p").expect_err(bad), "bad_cursor");
        }
    }

    #[test]
    fn the_limit_is_bounded() {
        for bad in [0, limits::PAGE_MAX + 1] {
            assert!(PageRequest::new(Some(bad), None, None, "x").is_err(), "{bad}");
        }
    }
}
