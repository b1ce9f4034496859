//! The path of an event from its source to its function: bus, router, dispatcher, replay.
//!
//! A source submits events to the [`bus`]. With the [`router`], the bus finds the functions that receive an event, and
//! commits the event with one delivery for each of these functions. The [`dispatcher`] runs the deliveries and commits
//! their outcomes. [`replay`] delivers stored events again. The [`scheduler`] releases events when the time in their
//! attribute `notbefore` has come. [`source`] contains the context that every source gets, and [`runtime_events`] the
//! events that the runtime publishes about itself.
//!
//! This crate does not know HTTP, files, timers, SQL, wasmtime or manifests. Events come from any caller of
//! [`bus::Bus::accept`], functions are implementations of [`dispatcher::Runner`], and the store is an implementation of
//! `evoke_store::Store`. The crate itself does no I/O.
//!
//! ```
//! use std::sync::Arc;
//! use std::time::Duration;
//!
//! use evoke_core::bus::{Bus, Limits, Offer};
//! use evoke_core::dispatcher::{AttemptResult, Call, Dispatcher, FunctionSpec, Runner};
//! use evoke_core::router::Router;
//! use evoke_model::clock::Clock;
//! use evoke_model::event::Event;
//! use evoke_model::outcome::{Outcome, RetryPolicy};
//! use evoke_model::state::Transaction;
//! use evoke_pattern::Pattern;
//! use evoke_store::Store;
//! use evoke_store::memory::MemoryStore;
//! use futures_util::future::BoxFuture;
//! use tokio::sync::mpsc;
//!
//! /// A function that sends the id of each event to a channel.
//! struct Record(mpsc::Sender<String>);
//!
//! impl Runner for Record {
//!     fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
//!         Box::pin(async move {
//!             let sent = self.0.send(call.event.id.clone()).await;
//!             let outcome = match sent {
//!                 Ok(()) => Outcome::Done,
//!                 Err(closed) => Outcome::Retry { message: closed.to_string(), after: None },
//!             };
//!             let (published, state) = (Vec::new(), Transaction::default());
//!             let (duration, note, recording) = (Duration::ZERO, None, None);
//!             AttemptResult { outcome, published, state, duration, note, recording, responded: false }
//!         })
//!     }
//! }
//!
//! # #[tokio::main(flavor = "current_thread")]
//! # async fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let clock = Clock::system();
//! let store: Arc<dyn Store> = Arc::new(MemoryStore::new(clock.clone()));
//! let id = store.register(vec!["shop/charge".into()]).await?[0];
//!
//! let pattern = Pattern::parse(&serde_json::json!({ "type": ["order.placed"] })).map_err(|errors| errors[0].to_string())?;
//! let mut router = Router::default();
//! router.add(id, "on[0]".into(), None, Some(&pattern));
//! let bus = Bus::new(store.clone(), router, Limits::default());
//!
//! let (sender, mut ids) = mpsc::channel(16);
//! let metrics = evoke_telemetry::Metrics::new().function("shop/charge");
//! let dispatcher = Dispatcher::start(store.clone(), bus.clone(), clock, 64);
//! dispatcher.set_functions(vec![FunctionSpec {
//!     id,
//!     concurrency: 8,
//!     retry: RetryPolicy::default(),
//!     runner: Arc::new(Record(sender)),
//!     metrics,
//! }]);
//!
//! let json = br#"{ "id": "1", "source": "/shop/checkout", "type": "order.placed", "data": { "total": 12.5 } }"#;
//! let event = Event::from_json(json, |_| {})?;
//! bus.accept(Offer { events: vec![event], ..Offer::default() }).await?; // stored, with one delivery
//! assert_eq!(ids.recv().await.as_deref(), Some("1")); // delivered
//!
//! assert_eq!(dispatcher.drain(Duration::from_secs(5)).await, 0);
//! assert_eq!(bus.pending(), 0); // its outcome is committed
//! # Ok(())
//! # }
//! ```

mod blocking;
pub mod bus;
pub mod dispatcher;
pub mod replay;
pub mod router;
pub mod runtime_events;
pub mod scheduler;
pub mod source;
