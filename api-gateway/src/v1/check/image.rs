//! What a request may say of a new image, and of the bytes of one. Pure. Every violation is named at once.

use crate::app::{image::ImageRequest, image_upload::Declared};
use api_types::ImageCreate;
use domain::{
    Name, Problem, Violations,
    image::{DiskFormat, ImageKind, Visibility},
    validate,
};
use http::HeaderMap;

/// What a request may say of a new image.
pub fn check_create(body: ImageCreate) -> Result<ImageRequest, Problem> {
    let mut violations = Violations::default();
    let name = violations.parse::<Name>("/name", &body.name);
    let formatted = body.kind == ImageKind::Disk || body.format.is_none();
    violations.unless(formatted, "/format", || "only disk images have one".to_owned());
    validate::image::cmdline(&mut violations, "/cmdline", body.kind, body.cmdline.as_deref().unwrap_or_default());
    let min_memory_mib = body.min_memory_mib.unwrap_or_default();
    validate::image::min_memory_mib(&mut violations, "/min_memory_mib", min_memory_mib);
    violations.finish()?;
    let format = match body.kind {
        ImageKind::Disk => body.format.unwrap_or(DiskFormat::Qcow2),
        ImageKind::Kernel => DiskFormat::Raw,
    };
    Ok(ImageRequest {
        name: name.ok_or_else(Problem::internal)?,
        kind: body.kind,
        format,
        cmdline: body.cmdline.unwrap_or_default(),
        min_memory_mib,
        visibility: body.visibility.unwrap_or(Visibility::Private),
    })
}

/// What a request says of the bytes that it brings.
pub fn declared(headers: &HeaderMap) -> Result<Declared, Problem> {
    let sha256 = match headers.get("x-content-sha256") {
        None => String::new(),
        Some(value) => {
            let text = value.to_str().unwrap_or_default().to_ascii_lowercase();
            if text.len() != 64 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(Problem::invalid("X-Content-Sha256", "64 hexadecimal digits are expected"));
            }
            text
        }
    };
    let length = headers.get(http::header::CONTENT_LENGTH).and_then(|v| v.to_str().ok());
    Ok(Declared { sha256, size_bytes: length.and_then(|text| text.parse().ok()).unwrap_or(0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    #[test]
    fn a_hash_is_64_hex_digits() {
        let read = |hash: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-content-sha256", HeaderValue::from_static(hash));
            headers.insert("content-length", HeaderValue::from_static("12"));
            declared(&headers)
        };
        let upper = "ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789";
        let found = read(upper).expect("a hash");
        assert_eq!((found.sha256, found.size_bytes), (upper.to_ascii_lowercase(), 12));
        for bad in ["", "abc", "zz", "sha256:ABCDEF0123456789ABCDEF0123456789ABCDEF0123456789ABCDEF0123"] {
            assert_eq!(read(bad).expect_err(bad).errors[0].field, "X-Content-Sha256");
        }
        assert_eq!(declared(&HeaderMap::new()), Ok(Declared { sha256: String::new(), size_bytes: 0 }));
    }
}
