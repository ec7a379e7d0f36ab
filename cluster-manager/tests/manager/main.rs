//! The cluster-manager as it runs: a real store, the real storage-manager, both over real gRPC, and simulated hosts. Every test makes a
//! cloud of its own, on SQLite, and again on PostgreSQL where one is given.

mod backup;
mod capacity_hold;
mod cloud;
mod console;
mod create;
mod fault;
mod fence;
mod fill;
mod host;
mod host_ledger;
mod host_removal;
mod leader;
mod lifecycle;
mod nics;
mod placement;
mod placement_record;
mod recovery;
mod reference;
mod resource_proxy;
mod restart;

mod storage_proxy;
mod switchboard;
