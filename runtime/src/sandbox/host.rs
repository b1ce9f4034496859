//! The host's side of one attempt: its state and the functions it serves to the guest.

use std::sync::Arc;

use wasmtime::component::{HasData, ResourceTable};
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};

use super::bindings::evoke::function::{bus, types};
use super::bindings::wasi::config::store as config;
use super::bindings::wasi::logging::logging;
use super::limits::Limits;
use super::log::{AttemptLog, Level, Stream};
use super::publish::{Origin, Published};
use super::stdio::Lines;
use super::{Grants, function::Identity};
use crate::clock::Clock;
use crate::event::Event;

/// Handles to streams, pollables and the like that a guest may hold at once.
const RESOURCES_MAX: usize = 1_000;
/// The most random bytes in one call; a guest that needs more asks again, and can be interrupted in between.
const RANDOM_BYTES_MAX: u64 = 64 * 1024;

/// What belongs to one attempt.
pub(super) struct State {
    pub(super) identity: Arc<Identity>,
    pub(super) event: Arc<Event>,
    pub(super) delivery_id: Arc<str>,
    pub(super) clock: Clock,
    pub(super) limits: Limits,
    pub(super) log: AttemptLog,
    pub(super) published: Published,
    wasi: Option<WasiCtx>,
    resources: ResourceTable,
}

impl State {
    pub(super) fn new(
        identity: Arc<Identity>,
        event: Arc<Event>,
        delivery_id: Arc<str>,
        clock: Clock,
        log: AttemptLog,
    ) -> Self {
        let mut resources = ResourceTable::new();
        resources.set_max_capacity(RESOURCES_MAX);
        let limits = Limits::new(identity.memory);
        let published = Published::default();
        Self { identity, event, delivery_id, clock, limits, log, published, wasi: None, resources }
    }
}

impl WasiView for State {
    /// Made when the guest first asks: most calls of most functions never do, and making one (three random
    /// generators, boxed streams) takes longer than a small call.
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let ctx = self.wasi.get_or_insert_with(|| {
            WasiCtx::builder()
                .stdout(Lines { log: self.log.clone(), stream: Stream::Stdout })
                .stderr(Lines { log: self.log.clone(), stream: Stream::Stderr })
                .max_random_size(RANDOM_BYTES_MAX)
                .allow_tcp(false)
                .allow_udp(false)
                .build()
        });
        WasiCtxView { ctx, table: &mut self.resources }
    }
}

/// Names `State` as what the generated bindings work on.
pub(super) struct Host;

impl HasData for Host {
    type Data<'a> = &'a mut State;
}

impl types::Host for State {}

impl bus::Host for State {
    fn publish(&mut self, draft: types::Draft) -> Result<String, String> {
        let origin = Origin {
            source: &self.identity.uri,
            allowed: &self.identity.grants.publish,
            delivery_id: &self.delivery_id,
            cause: &self.event,
            clock: &self.clock,
        };
        self.published.add(draft, &origin)
    }
}

impl config::Host for State {
    fn get(&mut self, key: String) -> Result<Option<String>, config::Error> {
        let Grants { config, secrets, .. } = &self.identity.grants;
        Ok(secrets.get(&key).or_else(|| config.get(&key)).cloned())
    }

    fn get_all(&mut self) -> Result<Vec<(String, String)>, config::Error> {
        let Grants { config, secrets, .. } = &self.identity.grants;
        let config = config.iter().filter(|(key, _)| !secrets.contains_key(*key));
        Ok(config.chain(secrets).map(|(key, value)| (key.clone(), value.clone())).collect())
    }
}

impl logging::Host for State {
    fn log(&mut self, level: logging::Level, context: String, message: String) {
        let level = match level {
            logging::Level::Trace => Level::Trace,
            logging::Level::Debug => Level::Debug,
            logging::Level::Info => Level::Info,
            logging::Level::Warn => Level::Warn,
            logging::Level::Error | logging::Level::Critical => Level::Error,
        };
        self.log.message(level, &context, &message);
    }
}
