//! What a network's namespace answers to its instances: addresses (DHCP, router advertisements), names and metadata. All answer
//! from a picture of what is in use ([`view`]), made of the ledger: managers needn't be there.

pub mod budget;
pub mod dhcp4;
pub mod dhcp6;
pub mod dns;
pub mod metadata;
pub mod router;
pub mod view;

use crate::{
    host::Host,
    link::{
        netns::{NetnsError, Worker},
        packet_info,
    },
    model::{
        DesiredState,
        incremental::Scope,
        names,
        object::{Network, Port},
    },
};
use std::{
    collections::BTreeSet,
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket},
    os::fd::{AsRawFd, OwnedFd},
    sync::Arc,
};
use tokio::{sync::watch, task::JoinSet};
use tokio_util::sync::CancellationToken;
use view::View;

const DHCP6_SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);

/// The running services of one namespace.
pub struct Services {
    pub stop: CancellationToken,
    view: watch::Sender<Arc<View>>,
    tasks: JoinSet<()>,
    dhcp6: Arc<tokio::net::UdpSocket>,
    router: Arc<router::Advertiser>,
    /// Links that DHCPv6's group was joined on.
    joined: BTreeSet<String>,
}

/// Sockets belong to the namespace they are made in, whoever uses them.
struct Sockets {
    dhcp4: UdpSocket,
    dhcp6: UdpSocket,
    dns4: UdpSocket,
    dns6: UdpSocket,
    dns_tcp: TcpListener,
    metadata: TcpListener,
    router: OwnedFd,
}

impl Sockets {
    fn make() -> io::Result<Self> {
        let udp = |addr: &str| -> io::Result<UdpSocket> {
            packet_info::udp(addr.parse::<SocketAddr>().map_err(io::Error::other)?)
        };
        let tcp = |addr: &str| -> io::Result<TcpListener> {
            let listener = TcpListener::bind(addr)?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let dhcp4 = udp("0.0.0.0:67")?;
        dhcp4.set_broadcast(true)?;
        Ok(Self {
            dhcp4,
            dhcp6: udp("[::]:547")?,
            dns4: udp("0.0.0.0:53")?,
            dns6: udp("[::]:53")?,
            dns_tcp: tcp("0.0.0.0:53")?,
            metadata: tcp("0.0.0.0:80")?,
            router: packet_info::router_socket()?,
        })
    }
}

impl Services {
    pub async fn start(
        host: &Arc<Host>,
        inside: &Arc<Worker>,
        desired_state: &DesiredState,
        network: &Arc<Network>,
    ) -> Result<Self, NetnsError> {
        let failed = |source| NetnsError::Namespace { what: "served", path: host.path_of(network.id), source };
        let sockets = inside.run(|_| Sockets::make()).await?.map_err(failed)?;
        let stop = CancellationToken::new();
        let (sender, watched) = watch::channel(Arc::new(View::new(desired_state, network)));
        let mut tasks = JoinSet::new();
        let dhcp6 = Arc::new(tokio::net::UdpSocket::from_std(sockets.dhcp6).map_err(failed)?);
        let router = Arc::new(router::Advertiser::new(sockets.router).map_err(failed)?);
        let resolvers = Arc::new(dns::Resolvers::new(Arc::clone(host)));
        let dhcp4 = tokio::net::UdpSocket::from_std(sockets.dhcp4).map_err(failed)?;
        tasks.spawn(dhcp4::serve(dhcp4, watched.clone()));
        tasks.spawn(dhcp6::serve(Arc::clone(&dhcp6), watched.clone()));
        tasks.spawn(router::serve(Arc::clone(&router), watched.clone()));
        for socket in [sockets.dns4, sockets.dns6] {
            let socket = tokio::net::UdpSocket::from_std(socket).map_err(failed)?;
            tasks.spawn(dns::serve_udp(Arc::new(socket), watched.clone(), Arc::clone(&resolvers)));
        }
        let dns_tcp = tokio::net::TcpListener::from_std(sockets.dns_tcp).map_err(failed)?;
        tasks.spawn(dns::serve_tcp(dns_tcp, watched.clone(), resolvers));
        let metadata = tokio::net::TcpListener::from_std(sockets.metadata).map_err(failed)?;
        tasks.spawn(metadata::serve(metadata, watched, Arc::clone(&host.budget)));
        let mut services = Self { stop, view: sender, tasks, dhcp6, router, joined: BTreeSet::new() };
        services.listen(inside, Scope::All).await?;
        Ok(services)
    }

    /// Answers from the desired state as it is now.
    pub async fn show(
        &mut self,
        inside: &Arc<Worker>,
        desired_state: &DesiredState,
        network: &Arc<Network>,
        scope: Scope<'_>,
    ) -> Result<(), NetnsError> {
        self.view.send_modify(|view| Arc::make_mut(view).update(desired_state, network, scope));
        self.listen(inside, scope).await
    }

    /// Listens on the links of ports with IPv6 that are in use by now.
    async fn listen(&mut self, inside: &Arc<Worker>, scope: Scope<'_>) -> Result<(), NetnsError> {
        let mut fresh = Vec::new();
        {
            let view = self.view.borrow();
            let speaks = |port: &Port| port.fixed_ips.iter().any(IpAddr::is_ipv6);
            match scope {
                Scope::All => {
                    let v6: BTreeSet<String> =
                        view.in_use().filter(|(_, port)| speaks(port)).map(|(link, _)| link.clone()).collect();
                    fresh.extend(v6.difference(&self.joined).cloned());
                    self.joined = v6;
                }
                Scope::Ports(ports) => {
                    for link in ports.iter().map(|id| names::port_link(*id)) {
                        if !view.by_link(&link).is_some_and(|port| speaks(port)) {
                            self.joined.remove(&link);
                        } else if self.joined.insert(link.clone()) {
                            fresh.push(link);
                        }
                    }
                }
            }
        }
        if fresh.is_empty() {
            return Ok(());
        }
        let socket = self.dhcp6.as_raw_fd();
        let hold = Arc::clone(&self.dhcp6);
        let indexes = inside
            .run(move |_| {
                let _hold = hold;
                let mut indexes = Vec::with_capacity(fresh.len());
                for link in &fresh {
                    let Ok(index) = nix::net::if_::if_nametoindex(link.as_str()) else { continue };
                    if let Err(error) = packet_info::join(&socket, DHCP6_SERVERS, index) {
                        tracing::warn!(link, %error, "DHCPv6 can't listen");
                    }
                    indexes.push(index);
                }
                indexes
            })
            .await?;
        // Guests that wait for an advertisement get one at once.
        let view = Arc::clone(&self.view.borrow());
        for index in indexes {
            self.router.advertise(index, None, &view.network);
        }
        Ok(())
    }

    pub async fn end(mut self) {
        self.stop.cancel();
        self.tasks.shutdown().await;
    }
}

/// Which port a datagram came by.
fn port_of(view: &View, socket: &impl AsRawFd, index: u32) -> Option<Arc<Port>> {
    let link = packet_info::interface_name(socket, index)?;
    view.by_link(&link).cloned()
}
