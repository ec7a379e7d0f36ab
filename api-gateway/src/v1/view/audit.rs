//! Entries of the audit log.

pub use api_types::AuditEntry as AuditView;
