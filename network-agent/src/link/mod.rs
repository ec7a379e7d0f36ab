//! The kernel's network configuration: namespaces and the threads that live in them ([`netns`]), batched netlink ([`netlink`]), the
//! messages of each step ([`message`]), what is there ([`observe`]), taps ([`tap`]), raw frames ([`frame`]), tracked flows ([`conntrack`]), and what
//! others change ([`watch`]). The only module that knows the netlink crates.

pub mod conntrack;
pub mod frame;
pub mod message;
pub mod netlink;
pub mod netns;
pub mod nfnetlink;
pub mod observe;
pub mod packet_info;
pub mod tap;
pub mod watch;
