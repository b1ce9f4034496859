//! The plain data of Evoke: events, deliveries, attempts, outcomes, state transactions, identifiers and the clock.
//!
//! Every other crate uses these types. This crate knows no store, no transport and no sandbox, and does no I/O.

#![warn(missing_docs)]

mod actor;
mod chain;
pub mod claim;
pub mod clock;
mod counts;
mod damage;
mod delivery;
pub mod destination;
pub mod event;
mod filter;
mod global_address;
mod grant;
mod hex;
mod hops;
mod id;
mod json;
pub mod media_type;
mod origin;
pub mod outcome;
mod places;
pub mod recording;
mod replay;
pub mod rfc3339;
pub mod runtime_events;
pub mod state;
mod stored;
mod take_over;
pub mod text;
pub mod uri;

pub use self::actor::Actor;
pub use self::chain::{CANCELLED, ChainState};
pub use self::counts::{CheckReport, Counts, Removed, Totals};
pub use self::damage::{DamagedDelivery, DamagedEvent, ReadDelivery, ReadEvent};
pub use self::delivery::{
    AttemptRecord, Completed, Completion, DeliveryRecord, DeliveryState, NewDelivery, ReadyDelivery, Verdict,
};
pub use self::filter::{DeadFilter, DeadSummary, EventFilter, PendingFilter, Retention};
pub use self::global_address::{NotGlobal, not_global};
pub use self::grant::{GRANT_VALUES_MAX, GrantKey, GrantKind};
pub use self::hex::{hex, hex_byte, hex_bytes};
pub use self::hops::{HOPS_HEADER, HOPS_MAX};
pub use self::id::{DeliveryId, FunctionId, REQUEST_ID_PREFIX, ReplayId, Seq};
pub use self::json::Json;
pub use self::origin::{Amount, Origin};
pub use self::places::reserved_places;
pub use self::replay::{NewReplay, Replay, ReplayState, Step, Stream};
pub use self::stored::{Accepted, DescendantsLimits, DescendantsMax, Lineage, Mark, NewEvent, StoredEvent};
pub use self::take_over::{MarkNames, StateConflict, TakeOver, TakenOver};
