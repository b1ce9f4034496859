//! The maximum length of a chain of events, which stops functions that trigger each other without end. The store counts
//! the functions that a chain has passed through, and each request to an endpoint has this number in a header. A chain
//! that leaves through a request and returns through an http source therefore counts as one chain, even if it passes
//! through other runtimes.

/// The maximum number of functions that a chain passes through. A longer chain ends in a dead letter with the outcome
/// `loop`.
pub const HOPS_MAX: u32 = 64;

/// The request header with the number of functions that the chain has passed through, in decimal. The runtime sets the
/// header, and replaces a value that a function sets. A sender that sets the header in its own requests can only make
/// its chains end earlier.
pub const HOPS_HEADER: &str = "evoke-hops";
