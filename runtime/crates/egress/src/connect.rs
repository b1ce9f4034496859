//! Makes a connection: resolves the addresses of a target, checks them, connects, and makes the handshakes.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use evoke_model::destination::Target;
use evoke_model::not_global;

use super::client::{GrantState, Owner};
use super::connection::Connection;
use super::error::{Error, of_tls, peer_text};
use super::grant::Grant;
use super::limits::{CONNECT_MAX, TLS_MAX};
use super::pool::Key;

/// Makes a connection to the target of `key`. `time` limits the time from the end of the name lookup to the end of the
/// handshakes. If the name lookup has no place, it waits for one, at most until `deadline`. The socket belongs to the
/// current tokio runtime.
pub(crate) async fn connect(
    owner: &Owner,
    key: &Key,
    time: Duration,
    deadline: Instant,
    permit: OwnedSemaphorePermit,
) -> Result<Connection, Error> {
    let parts = &owner.0;
    let Some(state) = parts.grants.get(key.grant) else {
        return Err(Error::NotGranted { target: key.target.clone() });
    };
    let target = &key.target;
    let addresses = resolve(owner, &state.grant, target, deadline).await?;
    let started = Instant::now();
    let stream = dial(target, &addresses, time.min(CONNECT_MAX)).await?;
    let started_http = |error: hyper::Error| Error::of_connection(&error);
    if !target.https {
        return Connection::start(stream, false, permit).await.map_err(started_http);
    }
    let left = time.saturating_sub(started.elapsed()).min(TLS_MAX);
    let (stream, is_http2) = handshake(owner, state, target, stream, left).await?;
    let start = Connection::start(stream, is_http2, permit);
    let timed_out = |_| Error::TlsTimeout { target: target.clone(), after: left };
    timeout(left, start).await.map_err(timed_out)?.map_err(started_http)
}

/// Returns the addresses of a target that the grant allows, in the order of the resolver. If the name lookup has no
/// place, it waits for one, at most until `deadline`.
pub(crate) async fn resolve(
    owner: &Owner,
    grant: &Grant,
    target: &Target,
    deadline: Instant,
) -> Result<Vec<IpAddr>, Error> {
    let parts = &owner.0;
    let found = match target.address() {
        Some(address) => vec![address],
        None => {
            let resolver = &parts.shared.resolver;
            resolver.resolve(owner.io(), &parts.lookups, (&target.host, target.port), deadline).await?
        }
    };
    allowed(grant, target, &found)
}

/// Returns the addresses in `found` that the grant allows, in the same order. Returns an error if the grant allows no
/// address in `found`.
fn allowed(grant: &Grant, target: &Target, found: &[IpAddr]) -> Result<Vec<IpAddr>, Error> {
    let reason = |address: IpAddr| {
        let is_granted = grant.addresses.iter().any(|range| range.contains(address));
        if is_granted { None } else { not_global(address) }
    };
    let allowed: Vec<_> = found.iter().copied().filter(|address| reason(*address).is_none()).collect();
    match found.iter().find_map(|address| Some((*address, reason(*address)?))) {
        Some((address, reason)) if allowed.is_empty() => {
            Err(Error::AddressRefused { target: target.clone(), address, reason })
        }
        _ => Ok(allowed),
    }
}

/// Tries the addresses in order until one accepts the connection. Each try may take the time that is left, divided by
/// the number of addresses that are left.
pub(crate) async fn dial(target: &Target, addresses: &[IpAddr], time: Duration) -> Result<TcpStream, Error> {
    let end = Instant::now() + time;
    let timed_out = || Error::ConnectTimeout { target: target.clone(), after: time };
    let mut last = timed_out();
    for (at, address) in addresses.iter().enumerate() {
        let others = u32::try_from(addresses.len() - at).unwrap_or(u32::MAX);
        let share = end.saturating_duration_since(Instant::now()) / others;
        match timeout(share, TcpStream::connect(SocketAddr::new(*address, target.port))).await {
            Ok(Ok(stream)) => {
                // If this fails, the connection is already broken, and the handshake or the request reports the error.
                let _ = stream.set_nodelay(true);
                return Ok(stream);
            }
            Ok(Err(error)) => {
                let is_refused = error.kind() == io::ErrorKind::ConnectionRefused;
                last = Error::Connect { target: target.clone(), message: error.to_string(), is_refused };
            }
            Err(_) => last = timed_out(),
        }
    }
    Err(last)
}

/// Makes a TLS handshake for the host of the target. Returns true if HTTP/2 was negotiated.
async fn handshake(
    owner: &Owner,
    state: &GrantState,
    target: &Target,
    stream: TcpStream,
    time: Duration,
) -> Result<(tokio_rustls::client::TlsStream<TcpStream>, bool), Error> {
    let end = Instant::now() + time;
    let config = state.tls.get_or_try_init(|| owner.0.shared.trust.config(owner.io(), state.grant.ca.as_ref()));
    let config = config.await?.clone();
    let host = target.host.trim_start_matches('[').trim_end_matches(']').to_owned();
    let name = ServerName::try_from(host)
        .map_err(|_| Error::Invalid(format!("`{}` is not a name that a certificate can have", target.host)))?;
    match timeout_at(end, TlsConnector::from(config).connect(name, stream)).await {
        Err(_) => Err(Error::TlsTimeout { target: target.clone(), after: time }),
        Ok(Err(error)) => {
            let tls = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
            let is_certificate = matches!(tls, Some(rustls::Error::InvalidCertificate(_)));
            let message = tls.map_or_else(|| peer_text(&error), of_tls);
            Err(Error::Tls { target: target.clone(), message, is_certificate })
        }
        Ok(Ok(stream)) => {
            let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
            Ok((stream, is_http2))
        }
    }
}
