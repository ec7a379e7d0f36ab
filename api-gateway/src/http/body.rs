//! A JSON body, read strictly and once: bounded, of the right media type, no unknown fields, and a wrong type is named by its JSON
//! pointer. The bytes are hashed only when an idempotency key asks for it.

use crate::http::problem::ApiError;
use axum::{
    body::Body,
    extract::{FromRequest, Request},
};
use bytes::Bytes;
use domain::{ErrorKind, Problem, limits};
use http::{HeaderMap, header};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

/// A JSON body alone, for requests that change nothing an idempotency key could protect (login). Mutations use `intent::Change`.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body).await?;
        Ok(Self(parse(&parts.headers, &bytes)?))
    }
}

/// The whole body, at most [`limits::BODY_BYTES`].
pub async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let declared =
        headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()).and_then(|t| t.parse::<u64>().ok());
    if declared.is_some_and(|n| n > limits::BODY_BYTES as u64) {
        return Err(too_large());
    }
    match Limited::new(body, limits::BODY_BYTES).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.downcast_ref::<LengthLimitError>().is_some() || caused_by_limit(&*error) => {
            Err(too_large())
        }
        Err(_) => {
            Err(Problem::new(ErrorKind::InvalidArgument, "body_incomplete", "the request's body ended before its time"))
        }
    }
}

fn caused_by_limit(error: &(dyn std::error::Error + 'static)) -> bool {
    std::iter::successors(Some(error), |e| e.source()).any(|e| e.is::<LengthLimitError>())
}

fn too_large() -> Problem {
    Problem::new(
        ErrorKind::PayloadTooLarge,
        "payload_too_large",
        format!("a JSON body has at most {} bytes", limits::BODY_BYTES),
    )
}

/// `T` from the bytes. An empty body is an empty object, so that `POST …/stop` needs none.
pub fn parse<T: DeserializeOwned>(headers: &HeaderMap, bytes: &[u8]) -> Result<T, Problem> {
    let bytes: &[u8] = if bytes.is_empty() { b"{}" } else { bytes };
    if bytes != b"{}" && !says_json(headers) {
        return Err(Problem::new(
            ErrorKind::UnsupportedMediaType,
            "unsupported_media_type",
            "the body must be JSON, and say so",
        )
        .with_hint("send the header Content-Type: application/json"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        wrong(error.inner(), pointer)
    })?;
    reader.end().map_err(|error| wrong(&error, String::new()))?;
    Ok(value)
}

fn says_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let essence = text.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 17 && essence[..12].eq_ignore_ascii_case("application/") && essence.ends_with("+json"))
}

fn wrong(error: &serde_json::Error, pointer: String) -> Problem {
    let text = error.to_string();
    match error.classify() {
        serde_json::error::Category::Data => {
            // serde_json appends the position, which says nothing more than the pointer does.
            let text = text.split(" at line ").next().unwrap_or(&text).to_owned();
            let shown = if pointer.is_empty() { "the body".to_owned() } else { pointer.clone() };
            Problem::new(ErrorKind::InvalidArgument, "invalid_argument", format!("{shown}: {text}"))
                .with_field(pointer, text)
        }
        serde_json::error::Category::Syntax | serde_json::error::Category::Eof | serde_json::error::Category::Io => {
            Problem::new(ErrorKind::InvalidArgument, "malformed_json", format!("the body is not JSON: {text}"))
        }
    }
}

/// RFC 6901.
fn pointer(path: &Path) -> String {
    let mut text = String::new();
    for segment in path.iter() {
        match segment {
            Segment::Seq { index } => text.push_str(&format!("/{index}")),
            Segment::Map { key } => text.push_str(&format!("/{}", key.replace('~', "~0").replace('/', "~1"))),
            Segment::Enum { variant } => text.push_str(&format!("/{variant}")),
            Segment::Unknown => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Outer {
        name: String,
        #[serde(default)]
        inner: Vec<Inner>,
    }

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct Inner {
        size: u32,
    }

    fn json_headers() -> HeaderMap {
        HeaderMap::from_iter([(
            header::CONTENT_TYPE,
            http::HeaderValue::from_static("application/json; charset=utf-8"),
        )])
    }

    #[test]
    fn what_is_wrong_is_named_by_its_pointer() {
        for (body, code, field) in [
            (r#"{"name":"x","inner":[{"size":1},{"size":"2"}]}"#, "invalid_argument", "/inner/1/size"),
            (r#"{"name":"x","nmae":"y"}"#, "invalid_argument", "/nmae"),
            (r#"{"name":3}"#, "invalid_argument", "/name"),
            (r"{}", "invalid_argument", ""),
            (r"[]", "invalid_argument", ""),
        ] {
            let problem = parse::<Outer>(&json_headers(), body.as_bytes()).expect_err(body);
            assert_eq!((problem.code.as_str(), problem.errors[0].field.as_str()), (code, field), "{problem:?}");
        }
        for body in ["{", "x", r#"{"name":"x"} more"#] {
            assert_eq!(parse::<Outer>(&json_headers(), body.as_bytes()).expect_err(body).code, "malformed_json");
        }
    }

    #[test]
    fn the_media_type_must_be_json_unless_there_is_nothing() {
        let none = HeaderMap::new();
        assert_eq!(parse::<Outer>(&none, br#"{"name":"x"}"#).expect_err("415").code, "unsupported_media_type");
        assert!(parse::<Outer>(&json_headers(), br#"{"name":"x"}"#).is_ok());
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields)]
        struct Nothing {}
        assert!(parse::<Nothing>(&none, b"").is_ok());
    }
}
