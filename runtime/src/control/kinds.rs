//! The registry of the kinds of sources: each kind has one line in [`KINDS`].

#[cfg(test)]
mod golden;
#[cfg(test)]
mod hostile;

use evoke_http::source::HttpKind;
use evoke_manifest::{Registry, SourceKind};
use evoke_sources::TaskKind;
use evoke_telemetry::Ingress;

/// Every kind, in the order in which messages list them.
pub(crate) const KINDS: &[Kind] = &[
    Kind::Listener(&HttpKind),
    Kind::Task(&evoke_sources::files::FilesKind),
    Kind::Task(&evoke_sources::timer::TimerKind),
    Kind::Task(&evoke_sources::monitor::MonitorKind),
];

/// A kind of source. The variant determines how the sources of the kind run.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// The sources are endpoints of the public HTTP listener, which serves all of them.
    Listener(&'static HttpKind),
    /// Each source runs as a task.
    Task(&'static dyn TaskKind),
}

impl Kind {
    /// Returns the kind of a source in a manifest that was loaded with [`registry`].
    pub(super) fn of(kind: &dyn SourceKind) -> Option<Self> {
        KINDS.iter().copied().find(|known| known.source_kind().key() == kind.key())
    }

    fn source_kind(self) -> &'static dyn SourceKind {
        match self {
            Self::Listener(kind) => kind,
            Self::Task(kind) => kind,
        }
    }

    /// Returns the label of the kind's events in metrics and spans.
    pub(crate) fn ingress(self) -> Ingress {
        match self {
            Self::Listener(kind) => Ingress::requests(kind.key()),
            Self::Task(kind) => Ingress::observations(kind.key()),
        }
    }
}

/// Returns the registry of all kinds for the manifest loader and the JSON schema.
pub fn registry() -> Registry {
    Registry::new(KINDS.iter().copied().map(Kind::source_kind))
}
