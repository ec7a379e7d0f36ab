//! What a request makes of an instance's desired state. Pure: the row and the request in, the next row or the problem out.

pub mod change;
pub mod check;
#[cfg(test)]
mod tests;
