//! The limit on chains of events that lead back to themselves. Within one runtime, the store knows how many functions a
//! chain passed through. A request to an endpoint contains this number. So a chain that leaves through a request and
//! returns through an http source, also by way of other runtimes, is recognised as one chain.

/// The most functions that a chain passes through. A longer chain ends in a dead letter with the cause `loop`.
pub const HOPS_MAX: u32 = 64;

/// The request header with the number of functions that the chain of a request has passed through: a decimal number.
/// The runtime sets the header, and replaces a value that a function sets. A sender that sets the header can only
/// shorten its own chains.
pub const HOPS_HEADER: &str = "evoke-hops";
