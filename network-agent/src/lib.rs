//! The network-agent.
