//! The source through which a chain of events entered, and the share of the backlog that it owns.

/// The source where a chain of events entered, as a hash of its URI, so that sources need no registration. Two sources
/// with the same hash only share one limit. The default value 0 means no source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u32);

impl Origin {
    /// Returns the origin for a source URI.
    pub fn of(uri: &str) -> Self {
        // FNV-1a must stay the same in every version, because stores contain its values.
        Self(uri.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)))
    }
}

/// A number of deliveries and the size of their events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number of deliveries.
    pub deliveries: u64,
    /// Size of their events (attributes and data) in bytes; an event counts once for each of its deliveries.
    pub bytes: u64,
}
