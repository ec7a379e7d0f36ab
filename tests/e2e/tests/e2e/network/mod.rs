//! Networks as tenants have them: real guests on several hosts of a lab, real packets.

mod cloud;
mod managers_gone;
mod outside;
mod shell;
mod tenants;
