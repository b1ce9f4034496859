//! Identifiers within one store.

/// A position in the total order of accepted events; the first is 1.
pub type Seq = i64;

/// Identifies a delivery within one store; ascending in accept order.
pub type DeliveryId = i64;

/// Identifies a function within one store; assigned when it is first registered.
pub type FunctionId = i64;

/// Identifies a replay within one store; ascending, from 1.
pub type ReplayId = i64;
