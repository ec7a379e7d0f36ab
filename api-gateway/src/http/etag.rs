//! ETags are generations: `"7"`. `If-Match` names the one that a change was based on.

use domain::{ErrorKind, Problem};
use http::{HeaderMap, HeaderValue, header};

#[must_use]
pub fn render(generation: i64) -> HeaderValue {
    // Digits and quotes are always a valid header value.
    HeaderValue::from_str(&format!("\"{generation}\"")).unwrap_or(HeaderValue::from_static("\"0\""))
}

/// The generation that `If-Match` asks for; `None` without one and for `*`.
pub fn if_match(headers: &HeaderMap) -> Result<Option<i64>, Problem> {
    let mut values = headers.get_all(header::IF_MATCH).iter();
    let Some(value) = values.next() else { return Ok(None) };
    let text = value.to_str().unwrap_or("").trim();
    if text == "*" && values.next().is_none() {
        return Ok(None);
    }
    let inner = text.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    match inner.and_then(|t| t.parse::<i64>().ok()) {
        Some(generation) if generation > 0 && values.next().is_none() => Ok(Some(generation)),
        _ => Err(Problem::new(
            ErrorKind::InvalidArgument,
            "bad_if_match",
            "If-Match: one ETag as an answer gave it is expected, like \"7\"",
        )
        .with_field("If-Match", "not an ETag of this server")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &'static str) -> Result<Option<i64>, Problem> {
        let mut headers = HeaderMap::new();
        headers.insert(header::IF_MATCH, HeaderValue::from_static(text));
        if_match(&headers)
    }

    #[test]
    fn one_etag_or_any() {
        assert_eq!(parse("\"7\""), Ok(Some(7)));
        assert_eq!(parse("*"), Ok(None));
        assert_eq!(if_match(&HeaderMap::new()), Ok(None));
        for bad in ["7", "W/\"7\"", "\"7\", \"8\"", "\"x\"", "\"-1\"", "\"0\"", ""] {
            assert_eq!(parse(bad).expect_err(bad).code, "bad_if_match");
        }
        assert_eq!(render(7), "\"7\"");
    }
}
