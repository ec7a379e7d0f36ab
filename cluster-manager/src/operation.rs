//! Answers of operations, as they are stored for repeats (see [`service_kit::in_flight`]).

use domain::Problem;

/// The stored text of an answer.
#[must_use]
pub fn encode(answer: &impl prost::Message) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(answer.encode_to_vec())
}

pub fn decode<M: prost::Message + Default>(outcome: &str) -> Result<M, Problem> {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::STANDARD.decode(outcome).map_err(|error| {
        tracing::error!(%error, "a stored outcome is not base64");
        Problem::internal()
    })?;
    M::decode(bytes.as_slice()).map_err(|error| {
        tracing::error!(%error, "a stored outcome can't be decoded");
        Problem::internal()
    })
}
