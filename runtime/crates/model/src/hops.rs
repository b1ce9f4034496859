//! The maximum length of a chain of events, which stops functions that trigger each other without end. The store counts
//! the functions that a chain has passed through. Each request to an endpoint has this number in a header. So a chain
//! that leaves through a request and returns through an http source counts as one chain, even if it passes other
//! runtimes.

/// The maximum number of functions that a chain passes through. A longer chain ends in a dead letter with the outcome
/// `loop`.
pub const HOPS_MAX: u32 = 64;

/// The request header that has the number of functions that the chain has passed through, as a decimal number. The
/// runtime sets the header, and replaces a value that a function sets. A sender that sets the header in its own
/// requests can only make its chains end earlier.
pub const HOPS_HEADER: &str = "evoke-hops";
