//! Probes of instances from inside their network's namespace.
//!
//! A socket belongs to the namespace that it is made in, so only the making takes the namespace's thread; waiting for answers is the executor's. The sender is the
//! router's address, which every instance answers, and what the router itself sends passes no security group: a probe needs no rule of the tenant's.
//!
//! What an instance answers is its tenant's to choose. Of an HTTP answer the first bytes are read and no more, and everything ends with the timeout.

mod echo;

use crate::link::netns::{NetnsError, Worker};
use domain::network::probe::{Probe, ProbeHistory, ProbeKind, Verdict};
use echo::Echo;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrStorage, bind, socket};
use std::{
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::watch,
    time::{Instant, MissedTickBehavior, interval_at, timeout},
};

/// What is probed, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    pub address: IpAddr,
    /// An address of the router, of the same family.
    pub source: IpAddr,
    pub probe: Probe,
}

/// The instance can't be blamed for it.
#[derive(Debug, thiserror::Error)]
enum NotTried {
    #[error("the network's namespace can't be entered")]
    Namespace(#[source] NetnsError),
    #[error("no socket can be made")]
    Socket(#[source] io::Error),
}

/// Probes until nobody watches the verdict any more. `inside`: a thread of the namespace that nothing long is done on ([`Worker::second`]).
///
/// A probe that this host couldn't send says nothing of the instance and isn't counted.
pub async fn run(inside: Arc<Worker>, target: Target, verdicts: watch::Sender<Verdict>) {
    let mut history = ProbeHistory::default();
    let mut echo = None;
    let mut able = true;
    let period = Duration::from_millis(target.probe.interval_ms.into());
    let mut ticks = interval_at(Instant::now() + phase(&target), period);
    // After a pause of this host there is no burst of probes, which would all fail together.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = verdicts.closed() => return,
            _ = ticks.tick() => {}
        }
        match attempt(&inside, &target, &mut echo).await {
            Ok(answered) => {
                able = true;
                if let Some(verdict) = history.record(answered, &target.probe) {
                    verdicts.send_replace(verdict);
                }
            }
            Err(error) => {
                if able {
                    let error = &error as &dyn std::error::Error;
                    tracing::warn!(address = %target.address, error, "an instance can't be probed; its last verdict stands");
                }
                (able, echo) = (false, None);
            }
        }
    }
}

/// Spreads the probes of many instances over their interval, in the same way after each start.
fn phase(target: &Target) -> Duration {
    let mut hasher = DefaultHasher::new();
    target.address.hash(&mut hasher);
    Duration::from_millis(hasher.finish() % u64::from(target.probe.interval_ms.max(1)))
}

/// Whether the instance answered in time.
async fn attempt(inside: &Worker, target: &Target, echo: &mut Option<Echo>) -> Result<bool, NotTried> {
    let within = Duration::from_millis(target.probe.timeout_ms.into());
    match &target.probe.kind {
        ProbeKind::Ping => {
            let echo = match echo {
                Some(echo) => echo,
                None => echo.insert(Echo::open(inside, target).await?),
            };
            Ok(timeout(within, echo.exchange()).await.is_ok_and(|answered| answered.is_ok()))
        }
        ProbeKind::Tcp { port } => {
            let socket = tcp_socket(inside, target).await?;
            let connected = timeout(within, socket.connect(SocketAddr::new(target.address, *port))).await;
            Ok(connected.is_ok_and(|stream| stream.is_ok()))
        }
        ProbeKind::Http { port, path } => {
            let socket = tcp_socket(inside, target).await?;
            let to = SocketAddr::new(target.address, *port);
            let exchange = async {
                let mut stream = socket.connect(to).await?;
                status_of(&mut stream, to, path).await
            };
            Ok(matches!(timeout(within, exchange).await, Ok(Ok(200..=399))))
        }
    }
}

/// Closed with a reset, since sockets that wait after their closing would use up the ports of the router's address.
async fn tcp_socket(inside: &Worker, target: &Target) -> Result<TcpSocket, NotTried> {
    let fd = made_inside(inside, target.source, SockType::Stream, None).await?;
    let socket = TcpSocket::from_std_stream(fd.into());
    socket.set_zero_linger().map_err(NotTried::Socket)?;
    Ok(socket)
}

/// A socket of the namespace, bound to `source`.
async fn made_inside(
    inside: &Worker,
    source: IpAddr,
    kind: SockType,
    protocol: Option<nix::sys::socket::SockProtocol>,
) -> Result<OwnedFd, NotTried> {
    let make = move || -> io::Result<OwnedFd> {
        let family = if source.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
        let fd = socket(family, kind, SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC, protocol)?;
        bind(fd.as_raw_fd(), &SockaddrStorage::from(SocketAddr::new(source, 0)))?;
        Ok(fd)
    };
    inside.run(move |_| make()).await.map_err(NotTried::Namespace)?.map_err(NotTried::Socket)
}

/// The status of the answer to a GET.
async fn status_of(stream: &mut TcpStream, to: SocketAddr, path: &str) -> io::Result<u16> {
    let request = format!(
        "GET {path} HTTP/1.1\r\nHost: {to}\r\nUser-Agent: iaas-probe\r\nAccept: */*\r\nConnection: close\r\n\r\n"
    );
    stream.write_all(request.as_bytes()).await?;
    // `HTTP/1.1 200` and what follows it.
    let mut start = [0; 13];
    stream.read_exact(&mut start).await?;
    status_in(&start).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no answer of HTTP/1"))
}

fn status_in(start: &[u8; 13]) -> Option<u16> {
    let [version @ .., b' ', a, b, c, end] = start else { return None };
    let good = (version == b"HTTP/1.1" || version == b"HTTP/1.0") && (*end == b' ' || *end == b'\r');
    let digits = [a, b, c].map(|digit| char::from(*digit).to_digit(10));
    let [Some(a), Some(b), Some(c)] = digits else { return None };
    good.then(|| u16::try_from(a * 100 + b * 10 + c).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_read_from_an_answer_of_http_1_and_from_nothing_else() {
        assert_eq!(status_in(b"HTTP/1.1 200 "), Some(200));
        assert_eq!(status_in(b"HTTP/1.0 503\r"), Some(503));
        for other in [b"HTTP/1.1 2000", b"HTTP/2.0 200 ", b"SSH-2.0-OpenS", b"HTTP/1.1 -20 ", b"HTTP/1.1  200"] {
            assert_eq!(status_in(other), None, "{}", String::from_utf8_lossy(other));
        }
    }
}
