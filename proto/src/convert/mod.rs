//! Domain to wire and back. The wire is not trusted: every id, name and enum is parsed, and what doesn't parse says which field.

mod image;
mod instance;
pub mod network;

pub use image::{image_from_pb, image_to_desired, image_to_pb};
pub use instance::{
    instance_from_pb, instance_to_pb, nic_from_pb, nic_request_from_pb, nic_request_to_pb, nic_to_pb, on_crash_from_pb,
    on_crash_to_pb, port_reservation_from_pb, port_reservation_to_pb, power_from_pb, power_to_pb, size_from_pb,
    size_to_pb, spec_from_pb, spec_to_pb, state_from_pb, state_to_pb,
};

/// A message that no peer of ours sends.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid message: {field}: {detail}")]
pub struct InvalidMessage {
    pub field: &'static str,
    pub detail: String,
}

impl From<InvalidMessage> for domain::Problem {
    fn from(e: InvalidMessage) -> Self {
        Self::invalid(e.field, e.detail)
    }
}

/// Parses `text` (an id, a name), saying which field was wrong.
pub fn parse<T>(field: &'static str, text: &str) -> Result<T, InvalidMessage>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    text.parse().map_err(|e: T::Err| InvalidMessage { field, detail: e.to_string() })
}

/// As [`parse`], with the empty text meaning none.
pub fn parse_optional<T>(field: &'static str, text: &str) -> Result<Option<T>, InvalidMessage>
where
    T: std::str::FromStr,
    T::Err: std::fmt::Display,
{
    if text.is_empty() { Ok(None) } else { parse(field, text).map(Some) }
}

fn missing(field: &'static str) -> InvalidMessage {
    InvalidMessage { field, detail: "is missing".to_owned() }
}

fn unknown(field: &'static str, value: impl std::fmt::Display) -> InvalidMessage {
    InvalidMessage { field, detail: format!("unknown value {value}") }
}
