//! A network of its own for a test: a namespace with chosen addresses, and a name server.

use std::collections::BTreeMap;
use std::net::{IpAddr, UdpSocket};
use std::os::unix::process::CommandExt as _;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};

use crate::support::shell;

const INSIDE: &str = "EVOKE_TEST_NAMESPACE";

/// Runs the body of the test `name` (its full path) in network and mount namespaces of its own, in another process.
pub(crate) fn in_own_network(name: &str, body: impl FnOnce()) {
    if std::env::var_os(INSIDE).is_some() {
        return body();
    }
    let mut command = Command::new("unshare");
    command.args(["--net", "--mount", "--propagation", "private"]);
    if !rustix::process::geteuid().is_root() {
        command.arg("--map-root-user");
    }
    command.arg(std::env::current_exe().unwrap()).args(["--exact", name, "--nocapture"]).env(INSIDE, "1");
    let output = command.stdin(Stdio::null()).process_group(0).output().unwrap();
    let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
    // Without namespaces there is no proof, so the test fails instead of being skipped.
    assert!(output.status.success(), "{text}");
    assert!(text.contains("1 passed"), "the test {name} did not run: {text}");
}

/// Brings loopback up with these further addresses, and makes a name server on it the only one.
pub(crate) fn set_up(addresses: &[&str], answers: Answers) -> NameServer {
    let folder = tempfile::tempdir().unwrap();
    let mut script = "ip link set lo up\n".to_owned();
    for address in addresses {
        script += &format!("ip address add {address} dev lo\n");
    }
    std::fs::write(folder.path().join("resolv.conf"), "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n").unwrap();
    std::fs::write(folder.path().join("hosts"), "127.0.0.1 localhost\n::1 localhost\n").unwrap();
    std::fs::write(folder.path().join("nsswitch.conf"), "hosts: files dns\n").unwrap();
    script += "for file in resolv.conf hosts nsswitch.conf; do\n  [ -e /etc/$file ] && mount --bind $file $(readlink -f /etc/$file)\ndone\n";
    shell(folder.path(), &script);
    NameServer::start(answers)
}

/// The addresses of a name, for each look-up in turn; the last ones are repeated.
pub(crate) type Answers = BTreeMap<&'static str, Vec<Vec<IpAddr>>>;

/// A name server that counts the look-ups.
pub(crate) struct NameServer {
    /// Queries for IPv4 addresses, by name.
    lookups: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl NameServer {
    fn start(answers: Answers) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:53").unwrap();
        let lookups: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let counted = lookups.clone();
        std::thread::spawn(move || {
            let mut rounds: BTreeMap<(String, u16), usize> = BTreeMap::new();
            let mut packet = [0; 1500];
            while let Ok((length, from)) = socket.recv_from(&mut packet) {
                let Some((name, kind, end)) = question(&packet[..length]) else { continue };
                let round = rounds.entry((name.clone(), kind)).or_default();
                let all = answers.get(name.as_str());
                let addresses = all.and_then(|all| all.get(*round).or(all.last())).cloned();
                *round += 1;
                if kind == A {
                    *counted.lock().unwrap().entry(name).or_default() += 1;
                }
                let _ = socket.send_to(&response(&packet[..end], kind, addresses), from);
            }
        });
        Self { lookups }
    }

    /// Returns how often the name was looked up.
    pub(crate) fn lookups(&self, name: &str) -> usize {
        self.lookups.lock().unwrap().get(name).copied().unwrap_or_default()
    }
}

const A: u16 = 1;
const AAAA: u16 = 28;

/// Returns the name and the type of the question of a query, and where it ends (RFC 1035, section 4.1).
fn question(packet: &[u8]) -> Option<(String, u16, usize)> {
    let (mut at, mut labels) = (12, Vec::new());
    loop {
        let length = usize::from(*packet.get(at)?);
        at += 1;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8_lossy(packet.get(at..at + length)?).to_lowercase());
        at += length;
    }
    let kind = u16::from_be_bytes([*packet.get(at)?, *packet.get(at + 1)?]);
    Some((labels.join("."), kind, at + 4))
}

/// Returns the response to a query: the addresses of the requested family, or that the name does not exist.
fn response(query: &[u8], kind: u16, addresses: Option<Vec<IpAddr>>) -> Vec<u8> {
    let known = addresses.is_some();
    let matching: Vec<Vec<u8>> = addresses
        .unwrap_or_default()
        .into_iter()
        .filter_map(|address| match address {
            IpAddr::V4(address) if kind == A => Some(address.octets().to_vec()),
            IpAddr::V6(address) if kind == AAAA => Some(address.octets().to_vec()),
            _ => None,
        })
        .collect();
    let mut packet = query[..2].to_vec();
    packet.extend(if known { [0x81, 0x80] } else { [0x81, 0x83] });
    packet.extend([0, 1, 0, u8::try_from(matching.len()).unwrap(), 0, 0, 0, 0]);
    packet.extend(&query[12..]);
    for address in matching {
        packet.extend([0xc0, 12]);
        packet.extend(kind.to_be_bytes());
        packet.extend([0, 1, 0, 0, 0, 0, 0, u8::try_from(address.len()).unwrap()]);
        packet.extend(address);
    }
    packet
}
