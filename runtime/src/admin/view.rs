//! The JSON types of requests and responses, and their conversions from the types of the model. Times are RFC 3339 in
//! UTC. An optional field without a value is absent.

mod dead;
mod event;
mod grant;
mod monitor;
mod pause;
mod pending;
mod replay;
mod scheduled;
mod state;
mod status;
mod timer;
mod token;
mod trace;

use serde::{Deserialize, Serialize};

pub use self::dead::{DeadGroup, DeadLetter, DeadSelection, Edit, Edited};
pub use self::event::{Damaged, Envelope, EventJson, Posted, PostedEvent};
pub use self::grant::{FunctionGrants, Grant, RefusedUse};
pub use self::monitor::Monitor;
pub use self::pause::{Changed, PauseTarget};
pub use self::pending::{Blocker, Move, Pending, PendingSelection};
pub use self::replay::Replay;
pub use self::scheduled::{CancelScheduled, CancelledScheduled, Position, ScheduledEvent};
pub use self::state::{StateBucket, StateChange, StateEntry, StateValue};
pub use self::status::{Function, LastError, Listener, Refusal, Source, Status, UncleanExit};
pub use self::timer::{Tick, TickDelivery, Timer};
pub use self::token::{NewToken, Role, Token, TokenRequest};
pub use self::trace::{Attempt, Delivery, Node};

/// Number of changed or deleted objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// Number of objects.
    pub count: u64,
}
