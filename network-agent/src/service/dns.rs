//! Names: those of the network's instances are answered here, all others are forwarded, byte for byte, to the host's resolvers.
//! Only the query is ever parsed; a guest's packet reaches nobody but the resolver.

use super::{
    budget::{Budget, Permit},
    dhcp6::encode_name,
    view::View,
};
use crate::{host::Host, link::packet_info};
use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, Interest},
    net::{TcpListener, TcpSocket, TcpStream, UdpSocket},
    sync::watch,
};

const TTL_SECS: u32 = 30;
const TIMEOUT: Duration = Duration::from_secs(4);
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
const A: u16 = 1;
const AAAA: u16 = 28;

/// Where queries about other names are forwarded to, from the host's own namespace.
pub struct Resolvers {
    host: Arc<Host>,
    servers: Vec<SocketAddr>,
}

impl Resolvers {
    #[must_use]
    pub fn new(host: Arc<Host>) -> Self {
        let mut servers = host.config.resolvers.clone();
        if servers.is_empty() {
            let text = std::fs::read_to_string("/etc/resolv.conf").unwrap_or_default();
            let named = text.lines().filter_map(|line| line.trim().strip_prefix("nameserver"));
            servers.extend(named.filter_map(|addr| Some(SocketAddr::from((addr.trim().parse::<IpAddr>().ok()?, 53)))));
        }
        Self { host, servers }
    }

    fn permit(&self, view: &View, asker: IpAddr) -> Option<Permit> {
        let budget: &Arc<Budget> = &self.host.budget;
        budget.take(&view.network.project_id, view.network.id, asker)
    }

    async fn forward_udp(&self, query: &[u8]) -> Option<Vec<u8>> {
        for server in &self.servers {
            let any: SocketAddr = if server.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
            // A port of its own for each query: an answer can't be guessed.
            let socket = self.host.worker.run(move |_| packet_info::udp(any)).await.ok()?.ok()?;
            let socket = UdpSocket::from_std(socket).ok()?;
            if socket.connect(server).await.is_err() || socket.send(query).await.is_err() {
                continue;
            }
            let mut buffer = vec![0; 4096];
            if let Ok(Ok(bytes)) = tokio::time::timeout(TIMEOUT / 2, socket.recv(&mut buffer)).await
                && buffer[..2] == query[..2]
            {
                buffer.truncate(bytes);
                return Some(buffer);
            }
        }
        None
    }

    async fn forward_tcp(&self, query: &[u8]) -> Option<Vec<u8>> {
        for server in self.servers.iter().copied() {
            let socket = self.host.worker.run(move |_| packet_info::tcp(server.is_ipv4())).await.ok()?.ok()?;
            let exchange = async {
                let mut stream = TcpSocket::from_std_stream(socket).connect(server).await?;
                write_framed(&mut stream, query).await?;
                read_framed(&mut stream).await
            };
            if let Ok(Ok(answer)) = tokio::time::timeout(TIMEOUT, exchange).await {
                return Some(answer);
            }
        }
        None
    }
}

pub async fn serve_udp(socket: Arc<UdpSocket>, view: watch::Receiver<Arc<View>>, resolvers: Arc<Resolvers>) {
    let mut buffer = vec![0; 4096];
    loop {
        if socket.readable().await.is_err() {
            return;
        }
        let Ok(arrival) = socket.try_io(Interest::READABLE, || packet_info::receive(&*socket, &mut buffer)) else {
            continue;
        };
        let query = buffer[..arrival.bytes].to_vec();
        let view = Arc::clone(&view.borrow());
        let reply = move |socket: &UdpSocket, bytes: &[u8]| {
            // From the address that was queried, out of the interface it came by.
            if let Err(error) = packet_info::send(socket, bytes, arrival.from, arrival.index, Some(arrival.to)) {
                tracing::debug!(%error, "a DNS answer could not be sent");
            }
        };
        match answer(&view, &query) {
            Answer::Ours(bytes) => reply(&socket, &bytes),
            Answer::Forward => {
                // What is too much is dropped, and sent again by the guest.
                let Some(permit) = resolvers.permit(&view, arrival.from.ip()) else { continue };
                let (socket, resolvers) = (Arc::clone(&socket), Arc::clone(&resolvers));
                tokio::spawn(async move {
                    let _permit = permit;
                    let bytes = resolvers.forward_udp(&query).await.or_else(|| refusal(&query, SERVER_FAILURE));
                    if let Some(bytes) = bytes {
                        reply(&socket, &bytes);
                    }
                });
            }
            Answer::Nothing => {}
        }
    }
}

pub async fn serve_tcp(listener: TcpListener, view: watch::Receiver<Arc<View>>, resolvers: Arc<Resolvers>) {
    loop {
        let Ok((mut stream, peer)) = listener.accept().await else {
            // The process has no descriptor left, which passes.
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        let Some(permit) = resolvers.permit(&view.borrow(), peer.ip()) else { continue };
        let (view, resolvers) = (view.clone(), Arc::clone(&resolvers));
        tokio::spawn(async move {
            let _permit = permit;
            while let Ok(Ok(query)) = tokio::time::timeout(TIMEOUT, read_framed(&mut stream)).await {
                let view = Arc::clone(&view.borrow());
                let bytes = match answer(&view, &query) {
                    Answer::Ours(bytes) => Some(bytes),
                    Answer::Forward => resolvers.forward_tcp(&query).await.or_else(|| refusal(&query, SERVER_FAILURE)),
                    Answer::Nothing => None,
                };
                let Some(bytes) = bytes else { return };
                if write_framed(&mut stream, &bytes).await.is_err() {
                    return;
                }
            }
        });
    }
}

async fn read_framed(stream: &mut TcpStream) -> io::Result<Vec<u8>> {
    let length = stream.read_u16().await?;
    let mut bytes = vec![0; usize::from(length)];
    stream.read_exact(&mut bytes).await?;
    Ok(bytes)
}

async fn write_framed(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    let length = u16::try_from(bytes.len()).map_err(io::Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], bytes].concat()).await
}

/// What to do with a query.
#[derive(Debug, PartialEq, Eq)]
pub enum Answer {
    Ours(Vec<u8>),
    Forward,
    /// The message is not a query.
    Nothing,
}

const NAME_ERROR: u8 = 3;
const SERVER_FAILURE: u8 = 2;

/// Pure.
#[must_use]
pub fn answer(view: &View, query: &[u8]) -> Answer {
    let Some((name, kind, end)) = parse_query(query) else { return Answer::Nothing };
    let domain = &view.network.dns_domain;
    let inside = if domain.is_empty() { None } else { name.strip_suffix(domain).and_then(|n| n.strip_suffix('.')) };
    let label = match inside {
        Some(label) => label,
        None if !name.contains('.') => name.as_str(),
        None => return Answer::Forward,
    };
    let Some(addrs) = view.addresses_of(label) else {
        return refusal(query, NAME_ERROR).map_or(Answer::Nothing, Answer::Ours);
    };
    let fitting: Vec<IpAddr> = addrs
        .iter()
        .copied()
        .filter(|addr| (kind == A && addr.is_ipv4()) || (kind == AAAA && addr.is_ipv6()))
        .collect();
    let mut bytes = header(query, 0, fitting.len() as u16);
    bytes.extend(&query[12..end]);
    for addr in fitting {
        // The name is the query's, at offset 12.
        bytes.extend([0xc0, 12]);
        bytes.extend(kind.to_be_bytes());
        bytes.extend([0, 1]);
        bytes.extend(TTL_SECS.to_be_bytes());
        match addr {
            IpAddr::V4(addr) => {
                bytes.extend([0, 4]);
                bytes.extend(addr.octets());
            }
            IpAddr::V6(addr) => {
                bytes.extend([0, 16]);
                bytes.extend(addr.octets());
            }
        }
    }
    Answer::Ours(bytes)
}

/// An answer's header: authoritative, recursion available.
fn header(query: &[u8], code: u8, answers: u16) -> Vec<u8> {
    let mut bytes = query[..2].to_vec();
    bytes.extend([0x84 | (query[2] & 1), 0x80 | code, 0, 1]);
    bytes.extend(answers.to_be_bytes());
    bytes.extend([0; 4]);
    bytes
}

fn refusal(query: &[u8], code: u8) -> Option<Vec<u8>> {
    let (.., end) = parse_query(query)?;
    let mut bytes = header(query, code, 0);
    bytes.extend(&query[12..end]);
    Some(bytes)
}

/// (name in lower case without its last dot, type, where the query ends) of a query with one question of class IN.
fn parse_query(bytes: &[u8]) -> Option<(String, u16, usize)> {
    let query = bytes.len() > 16 && bytes[2] & 0xf8 == 0 && bytes[4..6] == [0, 1];
    if !query {
        return None;
    }
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*bytes.get(at)?);
        at += 1;
        match length {
            0 => break,
            1..=63 => labels.push(String::from_utf8_lossy(bytes.get(at..at + length)?).to_ascii_lowercase()),
            _ => return None,
        }
        at += length;
    }
    let tail = bytes.get(at..at + 4)?;
    let class = u16::from_be_bytes([tail[2], tail[3]]);
    (class == 1).then(|| (labels.join("."), u16::from_be_bytes([tail[0], tail[1]]), at + 4))
}

/// A query, for tests and probes.
#[must_use]
pub fn query(id: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut bytes = id.to_be_bytes().to_vec();
    bytes.extend([1, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
    bytes.extend(encode_name(name));
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    bytes
}
