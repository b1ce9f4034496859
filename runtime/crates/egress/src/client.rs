//! The client of the process, and its owners.

use std::fmt;
use std::sync::{Arc, OnceLock};

use rustls::ClientConfig;
use tokio::runtime::Handle;
use tokio::sync::{OnceCell, Semaphore};

use evoke_model::destination::Target;
use evoke_telemetry::{Metrics, OutboundMetrics};

use super::error::Error;
use super::grant::Grant;
use super::limits::CALLS_MAX;
use super::pool::Pool;
use super::recent::Recent;
use super::resolve::{OwnerLookups, Resolver};
use super::tls::Trust;

/// The metrics label `host` of requests that no grant covers. Their real hosts are not used: callers can choose any
/// number of hosts, and each would add a metrics series.
const NOT_GRANTED: &str = "(not granted)";

/// Sends requests for the whole process. Contains the resolver of names and the trusted certificate authorities. Cheap
/// to clone.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

/// The parts that all owners share.
pub(crate) struct Shared {
    /// The runtime whose threads resolve names, read files and close unused connections.
    pub(crate) io: Handle,
    pub(crate) resolver: Resolver,
    pub(crate) trust: Trust,
    metrics: Arc<Metrics>,
}

impl Client {
    /// Creates a client that resolves names on the runtime `io`. The root certificates of the system are read when the
    /// first https request needs them.
    pub fn new(io: Handle, metrics: Arc<Metrics>) -> Self {
        Self(Arc::new(Shared { io, resolver: Resolver::default(), trust: Trust::default(), metrics }))
    }

    /// Creates an owner with these grants. `name` is `app/function` or `monitors`, and is a label of the owner's
    /// metrics. If several grants cover one target, the first of these grants applies.
    pub fn owner(&self, name: &str, grants: Vec<Grant>) -> Owner {
        let Shared { io, metrics, .. } = &*self.0;
        let grants = grants
            .into_iter()
            .map(|grant| GrantState {
                metrics: metrics.outbound(name, &grant.destination.host_pattern()),
                tls: OnceCell::new(),
                grant,
            })
            .collect();
        Owner(Arc::new(OwnerParts {
            name: name.into(),
            grants,
            calls: Arc::new(Semaphore::new(CALLS_MAX)),
            lookups: Arc::default(),
            pool: Pool::new(io.clone()),
            recent: Recent::default(),
            refused: OnceLock::new(),
            shared: self.0.clone(),
        }))
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Client")
    }
}

/// A sender of requests, such as a function: its grants, its connections, and its permits for calls and lookups. Cheap
/// to clone; when the last clone is dropped, the idle connections are closed.
#[derive(Clone)]
pub struct Owner(pub(crate) Arc<OwnerParts>);

pub(crate) struct OwnerParts {
    name: Arc<str>,
    pub(crate) grants: Vec<GrantState>,
    pub(crate) calls: Arc<Semaphore>,
    pub(crate) lookups: Arc<OwnerLookups>,
    pub(crate) pool: Arc<Pool>,
    pub(crate) recent: Recent,
    refused: OnceLock<Arc<OutboundMetrics>>,
    pub(crate) shared: Arc<Shared>,
}

/// A grant with its TLS configuration, which is made on first use.
pub(crate) struct GrantState {
    pub(crate) grant: Grant,
    pub(crate) tls: OnceCell<Arc<ClientConfig>>,
    pub(crate) metrics: Arc<OutboundMetrics>,
}

impl Owner {
    /// Returns true if the owner has no grant.
    pub fn is_empty(&self) -> bool {
        self.0.grants.is_empty()
    }

    /// Returns the runtime whose threads resolve names and read files.
    pub(crate) fn io(&self) -> &Handle {
        &self.0.shared.io
    }

    /// Returns the metrics of requests that no grant covers. The metrics are created at the first such request.
    pub(crate) fn refused(&self) -> &OutboundMetrics {
        self.0.refused.get_or_init(|| self.0.shared.metrics.outbound(&self.0.name, NOT_GRANTED))
    }

    /// Returns the position and the state of the grant that covers a target.
    pub(crate) fn granted(&self, target: &Target) -> Result<(usize, &GrantState), Error> {
        let mut grants = self.0.grants.iter().enumerate();
        let found = grants.find(|(_, state)| state.grant.destination.matches(target));
        found.ok_or_else(|| Error::NotGranted { target: target.clone() })
    }
}

impl fmt::Debug for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let grants = self.0.grants.iter().map(|state| state.grant.destination.to_string());
        f.debug_struct("Owner").field("name", &self.0.name).field("grants", &grants.collect::<Vec<_>>()).finish()
    }
}
