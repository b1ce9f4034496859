//! Recognises a listener of another user, so that the owner's token is not sent to it. After Evoke was killed, any user
//! of the machine can listen on the port that `listen.json` still names.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Returns the user id of a foreign listener on the port, at a loopback or unspecified address. A listener is foreign
/// if it belongs neither to root nor to the owner of the file `owned`. Always `None` on systems other than Linux.
pub(super) fn foreign_user(port: u16, owned: &Path) -> Option<u32> {
    let owner = std::fs::metadata(owned).ok()?.uid();
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"].map(|path| std::fs::read_to_string(path).unwrap_or_default());
    tables.iter().find_map(|table| users(table, port).find(|user| ![0, owner].contains(user)))
}

/// Returns the user ids of the listeners on the port, from a table of the kernel (proc_pid_net(5)).
fn users(table: &str, port: u16) -> impl Iterator<Item = u32> + '_ {
    const LISTEN: &str = "0A";
    table.lines().filter_map(move |line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (&[_, local, _, state, ..], user) = (fields.as_slice(), fields.get(7)?) else { return None };
        let (ip, at) = local.split_once(':')?;
        let ip = parse_ip(ip)?.to_canonical();
        let is_here = ip.is_loopback() || ip.is_unspecified();
        (state == LISTEN && is_here && u16::from_str_radix(at, 16) == Ok(port)).then(|| user.parse().ok())?
    })
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

    #[test]
    fn the_users_of_listeners_on_a_port_are_found() {
        let listener = |local: &str, state: &str, user: u32| {
            format!("   0: {local} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000 {user:>5} 0 1 1\n")
        };
        let hex = |ip: &str| match ip.parse().unwrap() {
            IpAddr::V4(ip) => format!("{:08X}", u32::from_ne_bytes(ip.octets())),
            IpAddr::V6(ip) => {
                let octets = ip.octets();
                octets.chunks(4).map(|w| format!("{:08X}", u32::from_ne_bytes(w.try_into().unwrap()))).collect()
            }
        };
        let table = [
            HEAD.to_owned(),
            listener(&format!("{}:1F91", hex("127.0.0.1")), "0A", 1000),
            listener(&format!("{}:1F91", hex("0.0.0.0")), "0A", 1001),
            listener(&format!("{}:1F91", hex("::1")), "0A", 1002),
            listener(&format!("{}:1F91", hex("::ffff:127.0.0.1")), "0A", 1003),
            listener(&format!("{}:1F91", hex("192.0.2.1")), "0A", 1),
            listener(&format!("{}:1F92", hex("127.0.0.1")), "0A", 2),
            listener(&format!("{}:1F91", hex("127.0.0.1")), "01", 3),
            "damaged\n".to_owned(),
        ];
        assert_eq!(users(&table.concat(), 0x1f91).collect::<Vec<_>>(), [1000, 1001, 1002, 1003]);
    }

    #[test]
    fn a_listener_of_this_process_is_not_foreign() {
        let folder = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        assert_eq!(foreign_user(port, folder.path()), None);
        if cfg!(target_os = "linux") {
            let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
            assert_eq!(users(&table, port).count(), 1);
        }
    }
}
