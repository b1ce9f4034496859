//! Connections without TLS. They lead to this machine only, and to a process of a trusted user.

use std::fmt;
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use ureq::unversioned::transport::{Buffers, ConnectionDetails, Connector, LazyBuffers, NextTimeout, Transport};

use super::listener;

/// Makes connections to loopback addresses. Before the first byte, each new connection is checked: a connection can
/// lead to another process than the one before, for example after Evoke was killed during a long `emit`.
#[derive(Debug)]
pub(super) struct LoopbackConnector {
    /// The users whose processes get requests.
    users: Vec<u32>,
}

impl LoopbackConnector {
    /// Trusts root, the user of this process, and the owner of the data folder.
    pub(super) fn new(data: Option<&Path>) -> Self {
        let owner = data.and_then(|data| data.metadata().ok()).map(|found| found.uid());
        let own = rustix::process::geteuid().as_raw();
        Self { users: [Some(0), Some(own), owner].into_iter().flatten().collect() }
    }

    fn open(&self, address: SocketAddr, details: &ConnectionDetails) -> Result<LoopbackTransport, ureq::Error> {
        if !address.ip().to_canonical().is_loopback() {
            let message = format!("{address} is not on this machine, and the connection has no TLS");
            return Err(io::Error::new(ErrorKind::PermissionDenied, message).into());
        }
        let stream = match details.timeout.not_zero() {
            Some(timeout) => TcpStream::connect_timeout(&address, *timeout),
            None => TcpStream::connect(address),
        };
        let stream = stream.map_err(|error| to_error(error, details.timeout))?;
        listener::check(stream.local_addr()?, stream.peer_addr()?, &self.users)
            .map_err(|stranger| ureq::Error::Other(Box::new(stranger)))?;
        stream.set_nodelay(details.config.no_delay())?;
        let buffers = LazyBuffers::new(details.config.input_buffer_size(), details.config.output_buffer_size());
        Ok(LoopbackTransport { stream, buffers })
    }
}

impl Connector for LoopbackConnector {
    type Out = LoopbackTransport;

    fn connect(&self, details: &ConnectionDetails, _: Option<()>) -> Result<Option<LoopbackTransport>, ureq::Error> {
        let mut failure = ureq::Error::ConnectionFailed;
        // `localhost` can have two addresses.
        for address in &details.addrs {
            match self.open(*address, details) {
                Ok(transport) => return Ok(Some(transport)),
                Err(error) => failure = error,
            }
        }
        Err(failure)
    }
}

/// A connection without TLS. The connector of ureq has such a type, too, but does not show the addresses of the
/// connection.
pub(super) struct LoopbackTransport {
    stream: TcpStream,
    buffers: LazyBuffers,
}

impl fmt::Debug for LoopbackTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LoopbackTransport").finish_non_exhaustive()
    }
}

impl Transport for LoopbackTransport {
    fn buffers(&mut self) -> &mut dyn Buffers {
        &mut self.buffers
    }

    fn transmit_output(&mut self, amount: usize, timeout: NextTimeout) -> Result<(), ureq::Error> {
        let timeout = timeout.for_write();
        self.stream.set_write_timeout(timeout.not_zero().map(|left| *left))?;
        let output = self.buffers.output().get(..amount).unwrap_or_default();
        self.stream.write_all(output).map_err(|error| to_error(error, timeout))
    }

    fn await_input(&mut self, timeout: NextTimeout) -> Result<bool, ureq::Error> {
        let timeout = timeout.for_read();
        self.stream.set_read_timeout(timeout.not_zero().map(|left| *left))?;
        let amount = loop {
            match self.stream.read(self.buffers.input_append_buf()) {
                // A signal interrupted the read, for example because the user stopped the command with Ctrl-Z and
                // continued it.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                read => break read.map_err(|error| to_error(error, timeout))?,
            }
        };
        self.buffers.input_appended(amount);
        Ok(amount > 0)
    }

    /// Returns true if the peer has neither closed the connection nor sent anything that was not requested.
    fn is_open(&mut self) -> bool {
        let is_idle = self.stream.set_nonblocking(true).is_ok()
            && self.stream.peek(&mut [0]).is_err_and(|error| error.kind() == ErrorKind::WouldBlock);
        is_idle && self.stream.set_nonblocking(false).is_ok()
    }
}

/// Unix reports a time-out of a socket as `WouldBlock`.
fn to_error(error: io::Error, timeout: NextTimeout) -> ureq::Error {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => ureq::Error::Timeout(timeout.reason),
        _ => error.into(),
    }
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;

    use ureq::unversioned::resolver::DefaultResolver;

    use super::super::listener::Stranger;
    use super::*;

    fn agent(users: Vec<u32>) -> ureq::Agent {
        ureq::Agent::with_parts(
            ureq::config::Config::default(),
            LoopbackConnector { users },
            DefaultResolver::default(),
        )
    }

    /// Accepts the next connection, and returns all that its client sent. The client must have closed it.
    fn received(listener: &TcpListener) -> String {
        let mut text = String::new();
        listener.accept().unwrap().0.read_to_string(&mut text).unwrap();
        text
    }

    #[test]
    fn a_process_of_another_user_gets_no_byte() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let user = rustix::process::geteuid().as_raw();
        let result = agent(vec![user + 1]).get(format!("http://{address}/")).call();
        if cfg!(target_os = "linux") {
            let Err(ureq::Error::Other(stranger)) = result else { panic!("{result:?}") };
            assert_eq!(stranger.downcast_ref(), Some(&Stranger::User(address, user)));
            assert_eq!(received(&listener), "");
        }
    }

    #[test]
    fn each_new_connection_is_checked() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let agent = agent(vec![rustix::process::geteuid().as_raw()]);
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                head.extend(byte);
            }
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok").unwrap();
            listener
        });
        assert_eq!(agent.get(&url).call().unwrap().body_mut().read_to_string().unwrap(), "ok");
        let listener = server.join().unwrap();
        // Only root can give a listener to another user.
        if cfg!(target_os = "linux") && rustix::process::geteuid().is_root() {
            std::os::unix::fs::fchown(&listener, Some(12_345), None).unwrap();
            let result = agent.get(&url).call();
            assert!(matches!(result, Err(ureq::Error::Other(_))), "{result:?}");
            assert_eq!(received(&listener), "");
        }
    }

    #[test]
    fn another_machine_is_not_reached() {
        // Only used for documentation (RFC 5737), so a connection attempt would last until its time-out.
        let error = agent(Vec::new()).get("http://192.0.2.1:1/").call().unwrap_err();
        assert!(error.to_string().contains("has no TLS"), "{error}");
    }
}
