//! Who is at the other end of a plain TCP connection on loopback.
//!
//! Roles in processes of their own may do without TLS on one machine: whoever can connect there is taken for its administrator. But every local
//! user can connect to a port on loopback. A Unix socket would say who does; for TCP the kernel says it in its table of sockets: the row of the
//! peer's end has the uid that made it. **Rejected:** a token in a file, which is one more secret to issue, to hand out and to keep.
//!
//! Only root and the user of this process count. A connection that isn't in the table (any more) counts for nobody.

use std::{
    io,
    net::{IpAddr, SocketAddr},
};

/// The state of a connection that stands; one that is closed has no owner any more and is shown as root's.
const ESTABLISHED: &str = "01";

/// Whether the process at `peer`, which is connected to `own`, is root's or of this process's user.
pub fn trusts(peer: SocketAddr, own: SocketAddr) -> io::Result<bool> {
    // Of this thread's network namespace.
    let table = if peer.is_ipv4() { "/proc/thread-self/net/tcp" } else { "/proc/thread-self/net/tcp6" };
    let owner = owner_in(&std::fs::read_to_string(table)?, peer, own);
    let user = rustix::process::geteuid().as_raw();
    Ok(owner.is_some_and(|uid| uid == 0 || uid == user))
}

/// The uid of the socket at `local` that is connected to `remote`, in the kernel's table.
fn owner_in(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    let (local, remote) = (rendered(local), rendered(remote));
    table.lines().skip(1).find_map(|line| {
        // Its number, the two addresses, the state, three fields of counters, the uid.
        let fields: Vec<&str> = line.split_whitespace().take(8).collect();
        match fields.as_slice() {
            [_, from, to, ESTABLISHED, _, _, _, uid] if *from == local && *to == remote => uid.parse().ok(),
            _ => None,
        }
    })
}

/// As the kernel writes it: groups of 32 bits in the machine's own order, and the port.
fn rendered(address: SocketAddr) -> String {
    let octets = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let quads = octets.chunks_exact(4).map(|word| u32::from_ne_bytes([word[0], word[1], word[2], word[3]]));
    let text: String = quads.map(|word| format!("{word:08X}")).collect();
    format!("{text}:{:04X}", address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_owner_of_a_connection_is_found_and_of_none_that_is_over() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(any) else { continue };
            let client = TcpStream::connect(listener.local_addr().expect("bound")).expect("connects");
            let (server, peer) = listener.accept().expect("accepted");
            let own = server.local_addr().expect("an address");
            assert!(trusts(peer, own).expect("readable"), "{any}: this process itself");
            assert!(!trusts(own, own).expect("readable"), "{any}: there is no such connection");
            drop((client, server));
            assert!(!trusts(peer, own).expect("readable"), "{any}: it is over");
        }
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_kernels_table_is_read_as_it_is_written() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1D3A 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 1 1 0 100 0 0 10 0\n\
            1: 0100007F:C350 0100007F:1D39 06 00000000:00000000 03:00000F00 00000000     0        0 0 3 0\n\
            2: 0100007F:C350 0100007F:1D39 01 00000000:00000000 00:00000000 00000000  1000        0 2 1 0 20 4 30 10 -1\n";
        let at = |port| SocketAddr::from(([127, 0, 0, 1], port));
        assert_eq!(owner_in(table, at(50000), at(7481)), Some(1000));
        assert_eq!(owner_in(table, at(50000), at(7482)), None);
        assert_eq!(owner_in(table, at(50001), at(7481)), None);
        let six = "[::1]:7481".parse().expect("an address");
        assert_eq!(rendered(six), "00000000000000000000000001000000:1D39");
    }
}
