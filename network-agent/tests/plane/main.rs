//! The data plane with real namespaces, real rules and real packets. Needs root; each test builds its own hosts and leaves nothing.

mod addressing;
mod drift;
mod elements;
mod firewall;
mod flows;
mod forwarding;
mod killed;
mod matrix;
mod outside;
mod ports;
mod probes;
mod protected;
mod recovery;
mod restart;
mod rig;
mod rules;
mod shares;
mod underlay;
mod virtual_ips;
