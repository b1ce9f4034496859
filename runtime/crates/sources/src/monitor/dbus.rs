//! A client of a message bus (D-Bus Specification 0.43) for the few method calls that monitors make. The client does
//! not own a name, receive signals, offer objects or accept file descriptors. It connects only to sockets of this
//! machine.
//!
//! The usual crate, zbus, is not used: it adds some twenty crates to the program, accepts messages of 128 MiB, and
//! starts a program if the address is `unixexec:`.

mod wire;

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;
use std::path::PathBuf;

use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::UnixStream;

pub(super) use self::wire::{Argument, Call, Malformed, Message};
use self::wire::{Kind, PREFIX_BYTES, message_bytes};
use evoke_model::hex_byte;

/// Maximum length of a line during the authentication.
const LINE_BYTES_MAX: u64 = 1_024;
/// Maximum number of bytes that are skipped while the client waits for a reply: other messages, such as signals that
/// another program sends to Evoke.
const SKIPPED_BYTES_MAX: usize = 8 << 20;
/// Maximum length of an error's text that is shown to users; the rest is cut off.
const ERROR_CHARS_MAX: usize = 200;

/// Why a call failed.
#[derive(Debug)]
pub(super) enum CallError {
    /// The call failed, and the connection cannot be used any more.
    Lost(String),
    /// The bus or the service replied with an error. The connection can still be used.
    Refused(String),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Lost(reason) | Self::Refused(reason) => f.write_str(reason),
        }
    }
}

impl From<std::io::Error> for CallError {
    fn from(error: std::io::Error) -> Self {
        Self::Lost(format!("the connection to the bus broke: {error}"))
    }
}

impl From<Malformed> for CallError {
    fn from(malformed: Malformed) -> Self {
        Self::Lost(malformed.to_string())
    }
}

/// A connection to a bus. After an interrupted call, the connection must not be used again.
#[derive(Debug)]
pub(super) struct Connection {
    stream: BufReader<UnixStream>,
    /// The serial number of the last call.
    serial: u32,
}

impl Connection {
    /// Connects to a bus. An address, such as `unix:path=/run/dbus/system_bus_socket`, can name several sockets. The
    /// client uses the first socket that accepts the connection.
    pub(super) async fn open(address: &str) -> Result<Self, CallError> {
        let mut failed = format!("`{address}` is not the address of a message bus");
        for socket in sockets(address) {
            match socket {
                Err(reason) => failed = reason,
                Ok(path) => match UnixStream::connect(&path).await {
                    Ok(stream) => return Self::start(stream).await,
                    Err(error) => failed = format!("cannot connect to the bus at {}: {error}", shown(&path)),
                },
            }
        }
        Err(CallError::Lost(failed))
    }

    async fn start(stream: UnixStream) -> Result<Self, CallError> {
        let mut connection = Self { stream: BufReader::new(stream), serial: 0 };
        connection.authenticate().await?;
        let hello = Call {
            destination: "org.freedesktop.DBus",
            path: "/org/freedesktop/DBus",
            interface: "org.freedesktop.DBus",
            member: "Hello",
            arguments: &[],
        };
        connection.call(&hello).await?;
        Ok(connection)
    }

    /// Authenticates as the user of this process. The bus reads the user from the socket.
    async fn authenticate(&mut self) -> Result<(), CallError> {
        self.stream.write_all(b"\0AUTH EXTERNAL\r\nDATA\r\n").await?;
        for expected in ["DATA", "OK"] {
            let mut line = Vec::new();
            (&mut self.stream).take(LINE_BYTES_MAX).read_until(b'\n', &mut line).await?;
            let line = String::from_utf8_lossy(&line);
            if line.is_empty() {
                return Err(CallError::Lost("the bus closed the connection".to_owned()));
            }
            if line.split_ascii_whitespace().next() != Some(expected) || !line.ends_with('\n') {
                return Err(CallError::Lost("the bus does not accept the user of this process".to_owned()));
            }
        }
        Ok(self.stream.write_all(b"BEGIN\r\n").await?)
    }

    /// Calls a method, and returns its reply. Waits without a limit; the caller sets a time-out.
    pub(super) async fn call(&mut self, call: &Call<'_>) -> Result<Message, CallError> {
        self.serial = self.serial.wrapping_add(1).max(1);
        self.stream.write_all(&call.encode(self.serial)).await?;
        let mut skipped = 0_usize;
        loop {
            let (message, bytes) = self.receive().await?;
            match message.kind {
                Kind::Return if message.reply_serial == Some(self.serial) => return Ok(message),
                Kind::Error if message.reply_serial == Some(self.serial) => {
                    let text = format!("{}: {}", message.error_name, message.error_text());
                    let text = text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c });
                    return Err(CallError::Refused(text.take(ERROR_CHARS_MAX).collect()));
                }
                Kind::Return | Kind::Error | Kind::Other => skipped += bytes,
            }
            if skipped > SKIPPED_BYTES_MAX {
                let mib = SKIPPED_BYTES_MAX >> 20;
                return Err(CallError::Lost(format!("the bus sent {mib} MiB of other messages instead of a reply")));
            }
        }
    }

    /// Returns the next message and its length. Memory is allocated only for bytes that arrive, not for the length that
    /// the message announces.
    async fn receive(&mut self) -> Result<(Message, usize), CallError> {
        let mut prefix = [0; PREFIX_BYTES];
        self.stream.read_exact(&mut prefix).await?;
        let total = message_bytes(&prefix)?;
        let mut bytes = prefix.to_vec();
        (&mut self.stream).take((total - PREFIX_BYTES) as u64).read_to_end(&mut bytes).await?;
        if bytes.len() < total {
            return Err(CallError::Lost("the bus closed the connection".to_owned()));
        }
        Ok((Message::parse(bytes)?, total))
    }
}

/// Returns the sockets of an address, in the order in which the client tries them (D-Bus Specification, "Server
/// Addresses"). The name of an abstract socket begins with a zero byte.
fn sockets(address: &str) -> impl Iterator<Item = Result<PathBuf, String>> {
    address.split(';').filter(|one| !one.is_empty()).map(|one| {
        let (transport, settings) = one.split_once(':').unwrap_or((one, ""));
        let value = |key: &str| {
            settings.split(',').find_map(|setting| setting.strip_prefix(key)?.strip_prefix('=')).map(unescape)
        };
        let path = match (value("path"), value("abstract")) {
            (Some(path), _) => path,
            (None, Some(name)) => name.map(|name| [&[0_u8][..], &name].concat()),
            (None, None) => None,
        };
        let path = path.filter(|path| transport == "unix" && path.len() > 1);
        path.map(|path| PathBuf::from(OsString::from_vec(path))).ok_or_else(|| {
            let example = "unix:path=/run/dbus/system_bus_socket";
            format!("`{one}` is not the address of a socket of this machine; an example is `{example}`")
        })
    })
}

/// Decodes each escape `%XX` to the byte with the hexadecimal number `XX`. Returns `None` if an escape is invalid.
fn unescape(text: &str) -> Option<Vec<u8>> {
    let mut bytes = text.bytes();
    let mut unescaped = Vec::with_capacity(text.len());
    while let Some(byte) = bytes.next() {
        unescaped.push(match byte {
            b'%' => hex_byte([bytes.next()?, bytes.next()?])?,
            other => other,
        });
    }
    Some(unescaped)
}

/// Returns the name of a socket for messages. The name of an abstract socket begins with `@`.
fn shown(socket: &std::path::Path) -> String {
    socket.to_string_lossy().replace('\0', "@")
}

#[cfg(test)]
mod tests;
