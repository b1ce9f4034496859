//! A bus daemon of the test, and a stand-in for systemd on it. The stand-in speaks the protocol by itself, so that both
//! sides are checked by the daemon and not only by each other.

use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;

use crate::assert_eventually;
use crate::support::TIMEOUT;

/// A bus daemon with a socket in a folder; killed when dropped.
pub(super) struct Bus {
    daemon: Child,
    socket: PathBuf,
}

impl Bus {
    pub(super) fn start(folder: &Path) -> Self {
        let (socket, config) = (folder.join("bus"), folder.join("bus.conf"));
        let text = format!(
            "<!DOCTYPE busconfig PUBLIC \"-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN\"
              \"http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd\">
            <busconfig><listen>unix:path={}</listen><auth>EXTERNAL</auth>
            <policy context=\"default\">
              <allow user=\"*\"/><allow own=\"*\"/><allow send_destination=\"*\"/><allow receive_sender=\"*\"/>
            </policy></busconfig>",
            socket.display()
        );
        std::fs::write(&config, text).unwrap();
        // One that was killed leaves its socket.
        let _ = std::fs::remove_file(&socket);
        let mut command = Command::new("dbus-daemon");
        let command = command.arg("--config-file").arg(&config).args(["--nofork", "--nopidfile", "--nosyslog"]);
        let log = File::create(folder.join("bus.log")).unwrap();
        let daemon = command.stdin(Stdio::null()).stderr(log).spawn().unwrap_or_else(|error| {
            panic!("cannot start dbus-daemon, which this test needs: {error}; install Debian's package dbus-daemon")
        });
        let bus = Self { daemon, socket };
        let log = || std::fs::read_to_string(folder.join("bus.log")).unwrap();
        assert_eventually!(UnixStream::connect(&bus.socket).is_ok(), "dbus-daemon accepts no connections: {}", log());
        bus
    }

    pub(super) fn address(&self) -> String {
        format!("unix:path={}", self.socket.display())
    }
}

impl Drop for Bus {
    fn drop(&mut self) {
        self.daemon.kill().unwrap();
        self.daemon.wait().unwrap();
    }
}

/// A loaded unit.
#[derive(Clone, Copy)]
pub(super) struct Unit {
    pub(super) name: &'static str,
    pub(super) active: &'static str,
    pub(super) sub: &'static str,
    pub(super) restarts: u32,
}

/// The report of the mock; the test changes it.
#[derive(Clone, Default)]
pub(super) struct Units(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    units: Vec<Unit>,
    hangs: bool,
}

impl Units {
    /// Loads a unit, or replaces the one with its name.
    pub(super) fn set(&self, name: &'static str, active: &'static str, sub: &'static str) {
        self.set_restarts(name, active, sub, 0);
    }

    pub(super) fn set_restarts(&self, name: &'static str, active: &'static str, sub: &'static str, restarts: u32) {
        let mut state = self.0.lock().unwrap();
        state.units.retain(|unit| unit.name != name);
        state.units.push(Unit { name, active, sub, restarts });
    }

    pub(super) fn unload(&self, name: &str) {
        self.0.lock().unwrap().units.retain(|unit| unit.name != name);
    }

    /// Sets whether the stand-in leaves calls without a reply.
    pub(super) fn set_hangs(&self, hangs: bool) {
        self.0.lock().unwrap().hangs = hangs;
    }

    fn find(&self, matches: impl Fn(&Unit) -> bool) -> Vec<Unit> {
        self.0.lock().unwrap().units.iter().filter(|unit| matches(unit)).cloned().collect()
    }

    /// Returns the signature and the body of the reply to a call; `None` for a method that systemd does not have.
    fn reply(&self, member: &str, arguments: &[Vec<String>]) -> Option<(&'static str, Vec<u8>)> {
        let mut body = Writer::default();
        match (member, arguments) {
            ("ListUnitsByNames", [names]) => {
                let of_name = |name: &String| {
                    let found = self.find(|unit| unit.name == name).pop();
                    found.map_or_else(|| (name.clone(), "not-found", "inactive", "dead"), entry)
                };
                body.units(names.iter().map(of_name).collect());
                Some(("a(ssssssouso)", body.0))
            }
            ("ListUnitsByPatterns", [states, patterns]) => {
                assert!(states.is_empty(), "{states:?}");
                let matches = |name: &str| {
                    patterns.iter().any(|pattern| {
                        let (start, end) = pattern.split_once('*').expect("a pattern with one `*`");
                        name.starts_with(start) && name.ends_with(end)
                    })
                };
                body.units(self.find(|unit| matches(unit.name)).into_iter().map(entry).collect());
                Some(("a(ssssssouso)", body.0))
            }
            ("Get", [interface, property]) => {
                assert_eq!((&*interface[0], &*property[0]), ("org.freedesktop.systemd1.Service", "NRestarts"));
                body.0.extend_from_slice(b"\x01u\0");
                // Tests that read restarts have one unit.
                body.number(self.find(|_| true).first().map_or(0, |unit| unit.restarts));
                Some(("v", body.0))
            }
            _ => None,
        }
    }
}

type Entry = (String, &'static str, &'static str, &'static str);

fn entry(unit: Unit) -> Entry {
    (unit.name.to_owned(), "loaded", unit.active, unit.sub)
}

/// A stand-in for systemd; leaves the bus when dropped.
pub(super) struct Systemd {
    stream: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl Systemd {
    pub(super) fn start(bus: &Bus, units: &Units) -> Self {
        let stream = UnixStream::connect(&bus.socket).unwrap();
        // A bus that does not reply is an error of the test, not a test that never ends.
        stream.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let uid = rustix::process::geteuid().as_raw().to_string();
        let hex: String = uid.bytes().map(|digit| format!("{digit:02x}")).collect();
        (&stream).write_all(format!("\0AUTH EXTERNAL {hex}\r\n").as_bytes()).unwrap();
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        assert!(line.starts_with("OK "), "{line}");
        (&stream).write_all(b"BEGIN\r\n").unwrap();
        let bus_call = |serial: u32, member: &str, signature: &str, body: &[u8]| {
            let name = "org.freedesktop.DBus";
            let mut fields = Writer::default();
            fields.field(1, "o");
            fields.text("/org/freedesktop/DBus");
            for (code, text) in [(2, name), (3, member), (6, name)] {
                fields.field(code, "s");
                fields.text(text);
            }
            (&stream).write_all(&message(1, serial, fields, signature, body)).unwrap();
        };
        bus_call(1, "Hello", "", &[]);
        let mut arguments = Writer::default();
        arguments.text("org.freedesktop.systemd1");
        // Do not queue for the name.
        arguments.number(4);
        bus_call(2, "RequestName", "su", &arguments.0);
        while Received::read(&mut reader).expect("a reply of the bus").reply_serial != 2 {}
        stream.set_read_timeout(None).unwrap();
        let (units, writer) = (units.clone(), stream.try_clone().unwrap());
        let thread = std::thread::spawn(move || serve(reader, &writer, &units));
        Self { stream, thread: Some(thread) }
    }
}

impl Drop for Systemd {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(Shutdown::Both);
        let ended = self.thread.take().unwrap().join();
        if !std::thread::panicking() {
            ended.unwrap();
        }
    }
}

/// Replies to calls until the connection ends.
fn serve(mut reader: BufReader<UnixStream>, mut writer: &UnixStream, units: &Units) {
    while let Some(call) = Received::read(&mut reader) {
        if call.kind != 1 || units.0.lock().unwrap().hangs {
            continue;
        }
        let mut fields = Writer::default();
        fields.field(5, "u");
        fields.number(call.serial);
        fields.field(6, "s");
        fields.text(&call.sender);
        let reply = match units.reply(&call.member, &call.arguments) {
            Some((signature, body)) => message(2, 1, fields, signature, &body),
            None => {
                fields.field(4, "s");
                fields.text("org.freedesktop.DBus.Error.UnknownMethod");
                message(3, 1, fields, "", &[])
            }
        };
        if writer.write_all(&reply).is_err() {
            return;
        }
    }
}

/// Returns a message without flags.
fn message(kind: u8, serial: u32, mut fields: Writer, signature: &str, body: &[u8]) -> Vec<u8> {
    if !signature.is_empty() {
        fields.field(8, "g");
        fields.0.push(u8::try_from(signature.len()).unwrap());
        fields.0.extend_from_slice(signature.as_bytes());
        fields.0.push(0);
    }
    let mut message = Writer(vec![b'l', kind, 0, 1]);
    for number in [u32::try_from(body.len()).unwrap(), serial, u32::try_from(fields.0.len()).unwrap()] {
        message.number(number);
    }
    // The header fields begin at the 16th byte, so their alignment is the same without these 16 bytes.
    message.0.append(&mut fields.0);
    message.align(8);
    message.0.extend_from_slice(body);
    message.0
}

#[derive(Default)]
struct Writer(Vec<u8>);

impl Writer {
    fn align(&mut self, to: usize) {
        self.0.resize(self.0.len().next_multiple_of(to), 0);
    }

    fn number(&mut self, number: u32) {
        self.align(4);
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.number(u32::try_from(text.len()).unwrap());
        self.0.extend_from_slice(text.as_bytes());
        self.0.push(0);
    }

    fn field(&mut self, code: u8, kind: &str) {
        self.align(8);
        self.0.extend_from_slice(&[code, 1, kind.as_bytes()[0], 0]);
    }

    /// Writes the array of units that the manager of systemd returns.
    fn units(&mut self, units: Vec<Entry>) {
        self.number(0);
        self.align(8);
        let start = self.0.len();
        for (name, load, active, sub) in units {
            self.align(8);
            for text in [&name, "A unit of the test", load, active, sub, "", "/org/freedesktop/systemd1/unit/a"] {
                self.text(text);
            }
            self.number(0);
            self.text("");
            self.text("/");
        }
        let bytes = u32::try_from(self.0.len() - start).unwrap();
        self.0[..4].copy_from_slice(&bytes.to_le_bytes());
    }
}

/// A received message, of those parts that the stand-in needs.
#[derive(Default)]
struct Received {
    kind: u8,
    serial: u32,
    reply_serial: u32,
    member: String,
    sender: String,
    /// Strings, each as a list of one, and lists of strings.
    arguments: Vec<Vec<String>>,
}

impl Received {
    /// Returns the next message; `None` at the end of the connection.
    fn read(stream: &mut impl std::io::Read) -> Option<Self> {
        let mut bytes = vec![0; 16];
        stream.read_exact(&mut bytes).ok()?;
        let number = |at: usize| u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
        let (body, serial, fields) = (number(4), number(8), number(12));
        let body_at = (16 + fields).next_multiple_of(8);
        bytes.resize(body_at + body, 0);
        stream.read_exact(&mut bytes[16..]).ok()?;
        let mut received = Self { kind: bytes[1], serial: u32::try_from(serial).unwrap(), ..Self::default() };
        let (mut at, mut signature) = (16, String::new());
        while at < 16 + fields {
            at = at.next_multiple_of(8);
            let (code, kind) = (bytes[at], bytes[at + 2]);
            at += 4;
            match (code, kind) {
                (_, b'u') => {
                    if code == 5 {
                        received.reply_serial = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
                    }
                    at += 4;
                }
                (_, b'g') => {
                    let length = usize::from(bytes[at]);
                    signature = String::from_utf8(bytes[at + 1..at + 1 + length].to_vec()).unwrap();
                    at += length + 2;
                }
                _ => {
                    let text = text(&bytes, &mut at);
                    match code {
                        3 => received.member = text,
                        7 => received.sender = text,
                        _ => {}
                    }
                }
            }
        }
        at = body_at;
        let mut signature = &*signature;
        while !signature.is_empty() {
            if let Some(rest) = signature.strip_prefix("as") {
                at = at.next_multiple_of(4);
                let length = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap()) as usize;
                at += 4;
                let end = at + length;
                let mut texts = Vec::new();
                while at < end {
                    texts.push(text(&bytes, &mut at));
                }
                received.arguments.push(texts);
                signature = rest;
            } else if let Some(rest) = signature.strip_prefix('s') {
                received.arguments.push(vec![text(&bytes, &mut at)]);
                signature = rest;
            } else {
                break;
            }
        }
        Some(received)
    }
}

fn text(bytes: &[u8], at: &mut usize) -> String {
    *at = at.next_multiple_of(4);
    let length = u32::from_le_bytes(bytes[*at..*at + 4].try_into().unwrap()) as usize;
    let text = String::from_utf8(bytes[*at + 4..*at + 4 + length].to_vec()).unwrap();
    *at += 4 + length + 1;
    text
}
