//! Consoles' tickets.

use domain::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

#[derive(Serialize, ToSchema)]
#[schema(as = ConsoleTicket)]
pub struct ConsoleTicketView {
    /// Opens one session.
    pub ticket: String,
    /// Where: a WebSocket, ticket included.
    pub url: String,
    /// It opens nothing after this.
    #[schema(value_type = String, format = DateTime)]
    pub expires_at: Timestamp,
}
