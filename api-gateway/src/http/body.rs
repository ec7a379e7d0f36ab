//! A JSON body, read strictly and once: bounded, of the right media type, no unknown fields, and a wrong type is named by its JSON
//! pointer. The bytes are hashed only when an idempotency key asks for it.

use crate::failure::ApiError;
use axum::{
    body::{Body, HttpBody},
    extract::{FromRequest, Request},
};
use bytes::{Bytes, BytesMut};
use domain::{ErrorKind, Problem, limits};
use http::{HeaderMap, header};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use serde_path_to_error::{Path, Segment};

/// A JSON body alone, for requests that change nothing an idempotency key could protect (login). Mutations use `intent::Change`.
pub struct Json<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        let bytes = read(body).await?;
        Ok(Self(parse(&parts.headers, &bytes)?))
    }
}

/// What is read and thrown away of a body that is too large. Answering with the rest unread would reset the connection, and the client
/// would see that instead of the answer.
const DRAIN_BYTES: usize = 8 * limits::BODY_BYTES;

/// The whole body, at most [`limits::BODY_BYTES`].
pub async fn read(mut body: Body) -> Result<Bytes, Problem> {
    let (mut whole, mut total) = (BytesMut::new(), 0usize);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| {
            let detail = "the request's body ended too early";
            Problem::new(ErrorKind::InvalidArgument, "body_incomplete", detail)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        total = total.saturating_add(data.len());
        if total <= limits::BODY_BYTES {
            // Nearly always the only one: then nothing is copied.
            if whole.is_empty() && body.is_end_stream() {
                return Ok(data);
            }
            whole.extend_from_slice(&data);
        } else if total > limits::BODY_BYTES + DRAIN_BYTES {
            break;
        }
    }
    if total > limits::BODY_BYTES { Err(too_large()) } else { Ok(whole.freeze()) }
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
            "the body must be JSON, with a Content-Type that says so",
        )
        .with_hint("send the header Content-Type: application/json"));
    }
    // serde takes a list for a struct, field by field: nobody means that.
    if bytes.trim_ascii_start().first() != Some(&b'{') && serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
    {
        let problem = Problem::new(ErrorKind::InvalidArgument, "invalid_argument", "the body: an object is expected");
        return Err(problem.with_field("", "an object is expected"));
    }
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(|error| {
        let pointer = pointer(error.path());
        wrong(error.inner(), pointer, bytes)
    })?;
    reader.end().map_err(|error| wrong(&error, String::new(), bytes))?;
    Ok(value)
}

fn says_json(headers: &HeaderMap) -> bool {
    let Some(text) = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()) else { return false };
    let essence = text.split(';').next().unwrap_or("").trim();
    essence.eq_ignore_ascii_case("application/json")
        || (essence.len() > 17 && essence[..12].eq_ignore_ascii_case("application/") && essence.ends_with("+json"))
}

fn wrong(error: &serde_json::Error, pointer: String, bytes: &[u8]) -> Problem {
    let text = error.to_string();
    // serde_json calls a list where an enum's name is expected a syntax error.
    let json = error.is_data() || serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok();
    if !json {
        return Problem::new(ErrorKind::InvalidArgument, "malformed_json", format!("the body is not JSON: {text}"));
    }
    // serde_json appends the position, which says nothing more than the pointer does.
    let text = text.split(" at line ").next().unwrap_or(&text);
    let text = if error.is_data() { text } else { "a value of another type is expected" };
    let shown = if pointer.is_empty() { "the body" } else { pointer.as_str() };
    Problem::new(ErrorKind::InvalidArgument, "invalid_argument", format!("{shown}: {text}")).with_field(pointer, text)
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

    #[derive(Debug, Deserialize)]
    #[serde(deny_unknown_fields)]
    #[allow(dead_code)]
    struct WithEnum {
        power: domain::instance::Power,
    }

    #[test]
    fn a_list_where_a_name_is_expected_is_a_wrong_type() {
        let problem = parse::<WithEnum>(&json_headers(), br#"{"power":[[]]}"#).expect_err("refused");
        assert_eq!((problem.code.as_str(), problem.errors[0].field.as_str()), ("invalid_argument", "/power"));
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
        #[derive(Debug, Default, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        #[allow(dead_code)]
        struct AllOptional {
            a: Option<u32>,
        }
        assert_eq!(parse::<AllOptional>(&json_headers(), b"[1]").expect_err("a list").code, "invalid_argument");
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
