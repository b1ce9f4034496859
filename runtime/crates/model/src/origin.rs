//! The source through which a chain of events entered, and the share of the backlog that it owns.

/// Identifies the source through which a chain of events entered: a hash of the source's URI, so no table of ids is
/// needed. If two sources have the same hash, both together get one share of the backlog. The default value 0 means no
/// source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u32);

impl Origin {
    /// Returns the origin for a source URI.
    pub fn of(uri: &str) -> Self {
        // The hash function (FNV-1a) must stay the same in every version, because stores contain its values.
        Self(uri.bytes().fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)))
    }
}

/// A number of deliveries and the size of their events.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number of deliveries.
    pub deliveries: u64,
    /// Size of the events of these deliveries (attributes and data) in bytes. An event counts once for each of its
    /// deliveries.
    pub bytes: u64,
}
