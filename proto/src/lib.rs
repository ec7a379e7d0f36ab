//! The wire: generated gRPC types, their translation to and from the domain ([`convert`]), and how a [`domain::Problem`] travels
//! through a gRPC status ([`status`]).

pub mod convert;
pub mod port_socket;
pub mod status;

/// Bytes of one gRPC message, on every client and server: a snapshot of a host with thousands of instances fits.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024 * 1024;

#[allow(clippy::all, clippy::pedantic, rustdoc::all, unreachable_pub)]
pub mod cluster {
    pub mod v1 {
        tonic::include_proto!("iaas.cluster.v1");
    }
}

#[allow(clippy::all, clippy::pedantic, rustdoc::all, unreachable_pub)]
pub mod agent {
    pub mod v1 {
        tonic::include_proto!("iaas.agent.v1");
    }
}

#[allow(clippy::all, clippy::pedantic, rustdoc::all, unreachable_pub)]
pub mod leader {
    pub mod v1 {
        tonic::include_proto!("iaas.leader.v1");
    }
}

#[allow(clippy::all, clippy::pedantic, rustdoc::all, unreachable_pub)]
pub mod network {
    pub mod v1 {
        tonic::include_proto!("iaas.network.v1");
    }
}

#[allow(clippy::all, clippy::pedantic, rustdoc::all, unreachable_pub)]
pub mod resource {
    pub mod v1 {
        tonic::include_proto!("iaas.resource.v1");
    }
}

#[allow(clippy::all, clippy::pedantic, rustdoc::all, unreachable_pub)]
pub mod storage {
    pub mod v1 {
        tonic::include_proto!("iaas.storage.v1");
    }
}

#[allow(clippy::all, clippy::pedantic, rustdoc::all, unreachable_pub)]
pub mod sync {
    pub mod v1 {
        tonic::include_proto!("iaas.sync.v1");
    }
}
