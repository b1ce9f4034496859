//! Finds the user of the process at the other end of a connection to this machine. After Evoke was killed, any user of
//! the machine can listen on the port that `listen.json` still names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// A connection that leads to a process of another user. Nothing may be sent over it.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Stranger {
    #[error(
        "the listener at {0} belongs to the user with the id {1}, so no token is sent to it; start Evoke with \
         `evoke up`; if Evoke runs as that user, name its data folder with --data"
    )]
    User(SocketAddr, u32),
    #[error("the user of the listener at {0} is not known, so no token is sent to it; start Evoke with `evoke up`")]
    Unknown(SocketAddr),
}

/// Returns an error unless the process at the other end of a connection belongs to one of the users. `local` is the
/// address of this end, and `peer` that of the other end. The connection must exist already, so that no other process
/// can accept it later. Always `Ok` on systems other than Linux.
pub(super) fn check(local: SocketAddr, peer: SocketAddr, users: &[u32]) -> Result<(), Stranger> {
    if !cfg!(target_os = "linux") {
        return Ok(());
    }
    // A system without IPv6 has no second table. If neither table can be read, the user is not known.
    let tables = ["/proc/self/net/tcp", "/proc/self/net/tcp6"];
    let sockets: Vec<Socket> =
        tables.iter().flat_map(|path| parse(&std::fs::read_to_string(path).unwrap_or_default())).collect();
    let owners = owners(&sockets, (local.ip(), local.port()), (peer.ip(), peer.port()));
    match owners.iter().find(|user| !users.contains(user)) {
        Some(user) => Err(Stranger::User(peer, *user)),
        None if owners.is_empty() => Err(Stranger::Unknown(peer)),
        None => Ok(()),
    }
}

type Endpoint = (IpAddr, u16);

/// A line of a table of the kernel (proc_pid_net(5)).
struct Socket {
    local: Endpoint,
    remote: Endpoint,
    is_listener: bool,
    user: u32,
    /// False for a connection that no process has accepted yet. Then `user` is not valid.
    is_open: bool,
}

/// Returns the users that can read from the other end of a connection.
fn owners(sockets: &[Socket], local: Endpoint, peer: Endpoint) -> Vec<u32> {
    // If a process has accepted the connection, returns the user of this process. The process may have closed its
    // listener since.
    let is_peer = |socket: &&Socket| socket.is_open && socket.local == peer && socket.remote == local;
    if let Some(accepted) = sockets.iter().find(is_peer) {
        return vec![accepted.user];
    }
    // The connection waits to be accepted. A listener at the exact address takes precedence over one at all addresses.
    let at = |ip: &dyn Fn(IpAddr) -> bool| -> Vec<u32> {
        let listeners = sockets.iter().filter(|socket| socket.is_listener && socket.local.1 == peer.1);
        listeners.filter(|socket| ip(socket.local.0)).map(|socket| socket.user).collect()
    };
    let exact = at(&|ip| ip == peer.0);
    if exact.is_empty() { at(&|ip| ip.is_unspecified()) } else { exact }
}

fn parse(table: &str) -> Vec<Socket> {
    const LISTEN: &str = "0A";
    let socket = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let &[_, local, remote, state, _, _, _, user, _, inode, ..] = fields.as_slice() else { return None };
        Some(Socket {
            local: parse_endpoint(local)?,
            remote: parse_endpoint(remote)?,
            is_listener: state == LISTEN,
            user: user.parse().ok()?,
            is_open: inode != "0",
        })
    };
    table.lines().filter_map(socket).collect()
}

fn parse_endpoint(text: &str) -> Option<Endpoint> {
    let (ip, port) = text.split_once(':')?;
    Some((parse_ip(ip)?.to_canonical(), u16::from_str_radix(port, 16).ok()?))
}

/// Parses an IP address. The text has words of 32 bits in hexadecimal, each in the byte order of the machine.
fn parse_ip(hex: &str) -> Option<IpAddr> {
    let words = (0..hex.len() / 8).map(|at| u32::from_str_radix(hex.get(8 * at..8 * at + 8)?, 16).ok());
    let bytes: Vec<u8> = words.collect::<Option<Vec<_>>>()?.into_iter().flat_map(u32::to_ne_bytes).collect();
    match bytes.len() {
        4 => <[u8; 4]>::try_from(bytes).ok().map(|bytes| Ipv4Addr::from(bytes).into()),
        16 => <[u8; 16]>::try_from(bytes).ok().map(|bytes| Ipv6Addr::from(bytes).into()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn hex(endpoint: &str) -> String {
        let endpoint: SocketAddr = endpoint.parse().unwrap();
        let octets = match endpoint.ip() {
            IpAddr::V4(ip) => ip.octets().to_vec(),
            IpAddr::V6(ip) => ip.octets().to_vec(),
        };
        let words = octets.chunks(4).map(|w| format!("{:08X}", u32::from_ne_bytes(w.try_into().unwrap())));
        format!("{}:{:04X}", words.collect::<String>(), endpoint.port())
    }

    fn line(local: &str, remote: &str, state: &str, user: u32, inode: u32) -> String {
        let (local, remote) = (hex(local), hex(remote));
        format!("   0: {local} {remote} {state} 00000000:00000000 00:00000000 00000000 {user:>5} 0 {inode} 1\n")
    }

    fn owners_of(lines: &[String], local: &str, peer: &str) -> Vec<u32> {
        let endpoint = |text: &str| text.parse::<SocketAddr>().map(|found| (found.ip(), found.port())).unwrap();
        owners(&parse(&(HEAD.to_owned() + &lines.concat() + "damaged\n")), endpoint(local), endpoint(peer))
    }

    #[test]
    fn a_connection_belongs_to_the_process_that_accepted_it_and_until_then_to_its_listener() {
        let (us, peer) = ("127.0.0.1:5000", "127.0.0.1:8081");
        let all = line("0.0.0.0:8081", "0.0.0.0:0", "0A", 1, 1);
        let exact = line(peer, "0.0.0.0:0", "0A", 2, 1);
        let others = [
            line("127.0.0.2:8081", "0.0.0.0:0", "0A", 3, 1),
            line("127.0.0.1:8082", "0.0.0.0:0", "0A", 3, 1),
            line("[::1]:8081", "[::]:0", "0A", 3, 1),
            line(peer, "127.0.0.1:5001", "01", 3, 1),
            line(us, peer, "01", 3, 1),
        ];
        let waiting = line(peer, us, "01", 0, 0);
        let with = |more: &[&String]| {
            let lines: Vec<String> = others.iter().chain(more.iter().copied()).cloned().collect();
            owners_of(&lines, us, peer)
        };
        assert!(with(&[]).is_empty() && with(&[&waiting]).is_empty());
        assert_eq!(with(&[&all, &waiting]), [1]);
        assert_eq!(with(&[&all, &exact, &waiting]), [2]);
        assert_eq!(with(&[&all, &exact, &line(peer, us, "01", 4, 9)]), [4]);
        // A listener on all addresses of both families has the peers of IPv4 in the table of IPv6.
        let accepted = line("[::ffff:127.0.0.1]:8081", "[::ffff:127.0.0.1]:5000", "01", 5, 9);
        assert_eq!(with(&[&accepted]), [5]);
        assert_eq!(owners_of(&[line("[::]:8081", "[::]:0", "0A", 6, 1)], us, peer), [6]);
    }
}
