//! Networks: addresses, subnets, ports and security rules, and the rules about them that need no I/O.
//!
//! The resource-manager's allocator decides which address is free and who gets it; the network-agent makes packets flow. Both trust what is
//! parsed and validated here.

mod addr;
mod object;
pub mod probe;
mod protected;
mod rule;
mod subnet;
pub mod virtual_ip;

pub use addr::{Cidr, InvalidAddress, IpRange, MacAddr, Vni};
pub use object::*;
pub use protected::{
    InvalidProtectedPart, PROTECTED_ADDRESSES_PER_HOST, PROTECTED_PARTS, ProtectedPart, can_be_protected, merge_blocks,
};
pub use rule::{Direction, Ethertype, InvalidRule, Match, PortRange, Protocol, Remote, SecurityRule};
pub use subnet::{HostRoute, InvalidSubnet, MTU_MAX, MTU_MIN, SubnetSpec, VXLAN_OVERHEAD_V4, VXLAN_OVERHEAD_V6};
