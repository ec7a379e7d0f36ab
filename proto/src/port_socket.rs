//! Between a host's compute-agent and its network-agent, over a Unix socket: acquiring a port hands over a ready tap's file
//! descriptor, which gRPC can't carry.
//!
//! One request and one reply per turn, any number of turns per connection. A message is its length (four bytes, big-endian) and that
//! many bytes of JSON; the descriptors of a reply travel with its first byte (`SCM_RIGHTS`).

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    time::Duration,
};

/// No message is longer.
pub const MESSAGE_BYTES_MAX: usize = 64 * 1024;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum PortRequest {
    /// The port, for this instance under this epoch. Waits up to `timeout_ms` while the ledger is behind. Repeating it is harmless
    /// while nobody holds the tap's descriptor; a tap has one holder at a time.
    Acquire { port_id: domain::PortId, instance_id: domain::InstanceId, epoch: i64, timeout_ms: u64 },
    /// The instance runs and holds the port's tap: the network-agent notes it again if its ledger was lost. Waits like `Acquire`, and
    /// changes nothing for a port that is known to be acquired.
    Confirm { port_id: domain::PortId, instance_id: domain::InstanceId, epoch: i64, timeout_ms: u64 },
    /// Nothing; the reply says that the network-agent is there. The connection ends when it does.
    Attend,
    /// The instance no longer uses it. A release of an epoch that is over is a success.
    Release { port_id: domain::PortId, instance_id: domain::InstanceId, epoch: i64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "result", rename_all = "snake_case")]
pub enum PortReply {
    /// With one descriptor: the tap, with `vnet_hdr` and one queue.
    Acquired {
        mac: domain::network::MacAddr,
        mtu: u32,
    },
    Released,
    Confirmed,
    Attending,
    Refused {
        reason: RefusedReason,
        detail: String,
    },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefusedReason {
    /// The ledger is behind, or the port's last holder has not let go, and it stayed so until the deadline: try again.
    NotYet,
    /// The ledger is ahead: this epoch is over, or the port is gone.
    Stale,
    /// The port is bound to another instance or to another host.
    NotYours,
    /// The host couldn't do it.
    Failed,
}

/// A message as it travels.
#[must_use]
pub fn encode(message: &impl Serialize) -> Vec<u8> {
    let json = serde_json::to_vec(message).expect("plain data with text keys is always JSON");
    let length = u32::try_from(json.len()).expect("a message is short");
    [&length.to_be_bytes()[..], &json].concat()
}

/// The body's length from a message's first four bytes.
pub fn body_len(head: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(head) as usize;
    if length > MESSAGE_BYTES_MAX {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("a message of {length} bytes")));
    }
    Ok(length)
}

pub fn decode<T: DeserializeOwned>(body: &[u8]) -> io::Result<T> {
    serde_json::from_slice(body).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
}

/// Sends the beginning of `bytes` with `fd`; how many bytes went.
pub fn send_with_fd(socket: BorrowedFd<'_>, bytes: &[u8], fd: BorrowedFd<'_>) -> io::Result<usize> {
    let fds = [fd];
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(&fds)) {
        return Err(io::Error::other("no room for a descriptor"));
    }
    Ok(sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, SendFlags::NOSIGNAL)?)
}

/// The compute-agent's end. Blocking: call it from a thread that may wait.
#[derive(Debug)]
pub struct PortClient {
    stream: UnixStream,
}

impl PortClient {
    pub fn connect(path: &Path) -> io::Result<Self> {
        Ok(Self { stream: UnixStream::connect(path)? })
    }

    /// The reply and, when it is `Acquired`, the tap. `timeout` bounds the wait for the reply.
    pub fn call(&mut self, request: &PortRequest, timeout: Duration) -> io::Result<(PortReply, Option<OwnedFd>)> {
        self.stream.set_read_timeout(Some(timeout))?;
        self.stream.write_all(&encode(request))?;
        let mut head = [0; 4];
        let (mut got, fd) = recv_with_fd(self.stream.as_fd(), &mut head)?;
        while got < head.len() {
            got += match self.stream.read(&mut head[got..])? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                n => n,
            };
        }
        let mut body = vec![0; body_len(head)?];
        self.stream.read_exact(&mut body)?;
        Ok((decode(&body)?, fd))
    }
}

fn recv_with_fd(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Option<OwnedFd>)> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let received = recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, RecvFlags::CMSG_CLOEXEC)?;
    if received.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let fd = ancillary
        .drain()
        .find_map(|message| if let RecvAncillaryMessage::ScmRights(mut fds) = message { fds.next() } else { None });
    Ok((received.bytes, fd))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reply_brings_its_descriptor() {
        let (ours, theirs) = UnixStream::pair().expect("pair");
        let server = std::thread::spawn(move || {
            let mut stream = theirs;
            let mut head = [0; 4];
            stream.read_exact(&mut head).expect("head");
            let mut body = vec![0; body_len(head).expect("length")];
            stream.read_exact(&mut body).expect("body");
            let request: PortRequest = decode(&body).expect("request");
            let (mut read, write) = io::pipe().expect("pipe");
            let reply = encode(&PortReply::Acquired { mac: domain::network::MacAddr::local([1; 5]), mtu: 1450 });
            let sent = send_with_fd(stream.as_fd(), &reply, write.as_fd()).expect("sent");
            stream.write_all(&reply[sent..]).expect("rest");
            drop(write);
            let mut text = String::new();
            read.read_to_string(&mut text).expect("read");
            (request, text)
        });
        let mut client = PortClient { stream: ours };
        let request = PortRequest::Acquire {
            port_id: domain::PortId::new(),
            instance_id: domain::InstanceId::new(),
            epoch: 3,
            timeout_ms: 10,
        };
        let (reply, fd) = client.call(&request, Duration::from_secs(10)).expect("reply");
        assert!(matches!(reply, PortReply::Acquired { mtu: 1450, .. }));
        std::fs::File::from(fd.expect("descriptor")).write_all(b"through").expect("written");
        let (got, text) = server.join().expect("server");
        assert_eq!((got, text.as_str()), (request, "through"));
    }
}
