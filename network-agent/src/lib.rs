//! The network-agent: one per host, owner of the host's share of every network.
//!
//! It keeps a ledger of what the host must be, derives from it the kernel state of one namespace per network ([`model`],
//! [`nft`]), compares it with what it finds ([`plan`], [`link::observe`]), and changes what differs ([`apply`], [`undo`]).

pub mod apply;
pub mod link;
pub mod model;
pub mod nft;
pub mod plan;
pub mod undo;
