//! The address of a client.

use std::net::IpAddr;

/// An extension of a request: the address of its client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Peer(pub IpAddr);
