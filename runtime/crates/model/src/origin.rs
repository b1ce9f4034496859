//! The source through which a chain of events entered the runtime, and an amount of pending deliveries.

/// The source through which a chain of events entered, as a number. The runtime sets the origin of an event; a producer
/// cannot. The store assigns a number to the URI of each source (`register_origins`) and never reuses the number. The
/// default value 0 means no source.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Origin(pub u32);

impl Origin {
    /// The origin of the runtime's own events.
    pub const RUNTIME: Self = Self::of("/evoke");
    /// The origin of events that an operator submits through the admin API. The number is that of `/cli`, because
    /// stores before version 5 recorded these events under that source.
    pub const OPERATOR: Self = Self::of("/cli");
    /// The origins that every store has, with their URIs.
    pub const BUILT_IN: [(Self, &str); 2] = [(Self::RUNTIME, "/evoke"), (Self::OPERATOR, "/evoke/emit")];

    /// Returns the number that stores before version 5 gave to a source: a hash of its URI, FNV-1a.
    pub const fn of(uri: &str) -> Self {
        let bytes = uri.as_bytes();
        let (mut hash, mut at) = (0x811c_9dc5_u32, 0);
        while at < bytes.len() {
            hash = (hash ^ bytes[at] as u32).wrapping_mul(0x0100_0193);
            at += 1;
        }
        Self(hash)
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
