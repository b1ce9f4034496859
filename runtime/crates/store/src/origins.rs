//! The origins of a store, with their numbers and URIs. An origin is a source through which chains of events enter.

use std::sync::Arc;

use evoke_model::Origin;
use foldhash::HashMap;

/// A store's table of origins, in memory.
#[derive(Debug, Clone)]
pub struct Origins {
    uris: HashMap<Origin, Arc<str>>,
    numbers: HashMap<Arc<str>, Origin>,
    /// All smaller positive numbers are assigned.
    next: u32,
}

impl Default for Origins {
    fn default() -> Self {
        let mut origins = Self { uris: HashMap::default(), numbers: HashMap::default(), next: 1 };
        for (origin, uri) in Origin::BUILT_IN {
            origins.add(origin, uri.into());
        }
        origins
    }
}

impl Origins {
    /// Adds an origin that is in the store. Returns false if the number already has another URI, or if the URI already
    /// has another number.
    pub fn add(&mut self, origin: Origin, uri: Arc<str>) -> bool {
        if self.uris.contains_key(&origin) || self.numbers.contains_key(&uri) {
            return self.uris.get(&origin) == Some(&uri);
        }
        self.numbers.insert(uri.clone(), origin);
        self.uris.insert(origin, uri);
        true
    }

    /// Changes the URI of an origin, unless another origin already has the new URI or the origin is not in the table.
    /// Returns true if the origin has the new URI now.
    pub fn rename(&mut self, origin: Origin, uri: Arc<str>) -> bool {
        if self.numbers.contains_key(&uri) {
            return self.uris.get(&origin) == Some(&uri);
        }
        let Some(before) = self.uris.insert(origin, uri.clone()) else {
            self.uris.remove(&origin);
            return false;
        };
        self.numbers.remove(&before);
        self.numbers.insert(uri, origin);
        true
    }

    /// Returns all origins with their URIs, in no particular order.
    pub fn iter(&self) -> impl Iterator<Item = (Origin, &Arc<str>)> {
        self.uris.iter().map(|(origin, uri)| (*origin, uri))
    }

    /// Assigns a number to a new URI and returns it.
    pub fn insert(&mut self, uri: &str) -> Origin {
        while self.uris.contains_key(&Origin(self.next)) {
            self.next += 1;
        }
        let origin = Origin(self.next);
        self.add(origin, uri.into());
        origin
    }

    /// Returns the number of a URI.
    pub fn find(&self, uri: &str) -> Option<Origin> {
        self.numbers.get(uri).copied()
    }

    /// Returns the URI of an origin.
    pub fn uri(&self, origin: Origin) -> Option<Arc<str>> {
        self.uris.get(&origin).cloned()
    }
}
