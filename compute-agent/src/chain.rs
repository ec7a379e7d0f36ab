//! One line for an error and everything that caused it.

/// The error and all its causes, in one line.
pub fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(error.source(), |e| e.source()).fold(error.to_string(), |text, e| format!("{text}: {e}"))
}
