//! The storage-manager over in-process gRPC, with a real store (SQLite, and PostgreSQL where a server is given) and real files.

mod disk;
mod image;
mod object;
mod quota;
mod support;
mod sweep;
