//! Sources and their kinds. A kind, such as `files`, is a [`SourceKind`]: it has its own settings, their parser and
//! their JSON schema. This crate knows only the kinds in the [`Registry`] that the caller passes.

use super::names::Name;
use super::parser::{Node, Reader, Span};
use super::units::ByteSize;
use schemars::{Schema, SchemaGenerator};
use serde::ser::{Error as _, SerializeMap as _};
use serde::{Serialize, Serializer};
use std::any::Any;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::Path;
use std::sync::Arc;

/// A source of events, with the value of their CloudEvents attribute `source`.
#[derive(Clone, Debug)]
pub struct Source {
    /// Name in the manifest. A private source gets its kind and a number as its name, as in `timer-1`.
    pub name: Name,
    /// `/<app>/<name>`, or `/<app>/<function>/<kind>-<n>` for a private source.
    pub uri: String,
    /// Kind of the source.
    pub kind: &'static dyn SourceKind,
    /// Settings, of the type that the kind parses.
    pub settings: Settings,
    /// Span of the source's name; for a private source, the span of its trigger.
    pub span: Span,
}

impl Source {
    /// Returns true if only the function that declares the source receives its events.
    pub fn is_private(&self) -> bool {
        self.uri.matches('/').count() > 2
    }
}

/// A kind of source. Users write its key under `sources` and in triggers.
pub trait SourceKind: fmt::Debug + Send + Sync {
    /// Key in a manifest, such as `files`. Also the prefix of the names of private sources.
    fn key(&self) -> &'static str;

    /// One sentence of the form "… become events.", which names the causes of the events. Editors show the sentence for
    /// the key in `sources`.
    fn description(&self) -> &'static str;

    /// The sentence that editors show for the key in a trigger, where the key declares a private source.
    fn private_description(&self) -> &'static str;

    /// The key with the shortest useful value, in backticks. Help texts suggest it.
    fn example(&self) -> &'static str;

    /// Returns a help text for an unknown key that a user wrote in place of a kind, if the user probably means this
    /// kind.
    fn hint(&self, _key: &str) -> Option<&'static str> {
        None
    }

    /// Parses the value of the key and reports every mistake in it. Returns `None` if the mistakes leave no usable
    /// settings.
    fn parse(&self, reader: &mut Reader<'_>, node: &Node, place: &Place<'_>) -> Option<Settings>;

    /// Returns the JSON schema of the key's value. Most kinds return `generator.subschema_for::<T>()`, where `T` is the
    /// settings type.
    fn schema(&self, generator: &mut SchemaGenerator) -> Schema;

    /// Compares all sources of this kind in a manifest, for example to report conflicting paths.
    fn check_together(&self, _reader: &mut Reader<'_>, _sources: &[&Source]) {}

    /// Returns the event types that the user chose in these settings; `*` matches any number of characters. The loader
    /// compares the types in patterns with them: an unknown type that is similar to a known type gets a warning.
    fn event_types<'s>(&self, _settings: &'s Settings) -> Vec<&'s str> {
        Vec::new()
    }

    /// Returns true if events of this source can have the value `claimed` in their attribute `source`. Only kinds whose
    /// producers choose this attribute can return true.
    fn accepts_source(&self, _settings: &Settings, _claimed: &str) -> bool {
        false
    }
}

/// Position of a source's settings in a manifest.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// Span of the key of the kind, for errors about missing keys.
    pub key_span: Span,
    /// Folder in which relative paths start.
    pub folder: &'a Path,
}

/// Settings of one source: plain data. Only the kind of the source knows the type of the data. Cloning is cheap.
/// Settings of different types are never equal.
#[derive(Clone)]
pub struct Settings(Arc<dyn AnySettings>);

/// The object-safe part of a settings type.
trait AnySettings: Any + fmt::Debug + Send + Sync {
    fn is_equal(&self, other: &dyn AnySettings) -> bool;
    fn to_json(&self) -> serde_json::Result<serde_json::Value>;
}

impl<T: Any + fmt::Debug + PartialEq + Serialize + Send + Sync> AnySettings for T {
    fn is_equal(&self, other: &dyn AnySettings) -> bool {
        let other: &dyn Any = other;
        other.downcast_ref::<T>().is_some_and(|other| self == other)
    }

    fn to_json(&self) -> serde_json::Result<serde_json::Value> {
        serde_json::to_value(self)
    }
}

impl Settings {
    /// Wraps the settings of one kind.
    pub fn new<T: Any + fmt::Debug + PartialEq + Serialize + Send + Sync>(settings: T) -> Self {
        Self(Arc::new(settings))
    }

    /// Returns the settings if they have the type `T`.
    pub fn get<T: Any>(&self) -> Option<&T> {
        let settings: &dyn Any = &*self.0;
        settings.downcast_ref()
    }

    /// Returns the settings if they have the type `T`, without a copy.
    pub fn shared<T: Any + Send + Sync>(&self) -> Option<Arc<T>> {
        let settings: Arc<dyn Any + Send + Sync> = self.0.clone();
        settings.downcast().ok()
    }
}

impl PartialEq for Settings {
    fn eq(&self, other: &Self) -> bool {
        self.0.is_equal(&*other.0)
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Serializes as in a manifest, with the name and the URI: `{ name, uri, <kind>: settings }`.
impl Serialize for Source {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(3))?;
        map.serialize_entry("name", &self.name)?;
        map.serialize_entry("uri", &self.uri)?;
        map.serialize_entry(self.kind.key(), &self.settings.0.to_json().map_err(S::Error::custom)?)?;
        map.end()
    }
}

/// The kinds of sources that a manifest can have, in the order in which messages list them.
#[derive(Clone, Debug, Default)]
pub struct Registry(Vec<&'static dyn SourceKind>);

impl Registry {
    /// Makes a registry of kinds with different keys.
    pub fn new(kinds: impl IntoIterator<Item = &'static dyn SourceKind>) -> Self {
        Self(kinds.into_iter().collect())
    }

    /// Iterates over the kinds.
    pub fn iter(&self) -> impl Iterator<Item = &'static dyn SourceKind> {
        self.0.iter().copied()
    }

    /// Iterates over the keys of the kinds.
    pub fn keys(&self) -> impl Iterator<Item = &'static str> {
        self.iter().map(SourceKind::key)
    }
}

/// Allowed values of the settings `max_body` and `max_content` of sources. The maximum is larger than the largest event
/// (1 MiB), because the body of a request can contain several events. An event should not contain large content, but
/// refer to it.
pub const CONTENT_SIZE_RANGE: RangeInclusive<ByteSize> = ByteSize(1)..=ByteSize(64 << 20);

/// Default limit of the content that a source puts into one event: 1 MiB, the largest event that the bus accepts.
pub fn content_size_default() -> ByteSize {
    ByteSize(1 << 20)
}
