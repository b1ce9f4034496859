//! Caches the grant of the last request of an owner. Most functions send all requests to one origin, and parsing the
//! URL of a request takes longer than finding the grant for the parsed URL.

use std::sync::{Mutex, PoisonError};

use http::Uri;
use http::uri::Scheme;

use evoke_model::destination::Target;

/// The last granted origin, with the scheme and the authority as they were written in the request.
#[derive(Default)]
pub(crate) struct Recent(Mutex<Option<Granted>>);

struct Granted {
    scheme: Scheme,
    authority: Box<str>,
    grant: usize,
    target: Target,
}

impl Recent {
    /// Returns the target of this URI, and the position of its grant. Returns `None` unless the last granted request
    /// had the scheme and the authority of this URI.
    pub(crate) fn get(&self, uri: &Uri) -> Option<(usize, Target)> {
        let recent = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Granted { scheme, authority, grant, target } = recent.as_ref()?;
        // The comparison is byte by byte. For another spelling of the same origin, the caller parses the URI.
        let is_same = uri.scheme() == Some(scheme) && uri.authority()?.as_str() == &**authority;
        is_same.then(|| (*grant, target.clone()))
    }

    /// Stores the target of a URI and the position of the grant that covers the target.
    pub(crate) fn set(&self, uri: &Uri, grant: usize, target: &Target) {
        let (Some(scheme), Some(authority)) = (uri.scheme(), uri.authority()) else { return };
        let granted =
            Granted { scheme: scheme.clone(), authority: authority.as_str().into(), grant, target: target.clone() };
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(granted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_same_scheme_host_and_port_have_the_last_grant() {
        let recent = Recent::default();
        let uri = |text: &'static str| Uri::from_static(text);
        let target = Target::parse("https", "api.example").unwrap();
        assert!(recent.get(&uri("https://api.example/")).is_none());
        recent.set(&uri("https://api.example/orders"), 1, &target);
        assert_eq!(recent.get(&uri("https://api.example/other?query")), Some((1, target)));
        for other in
            ["http://api.example/", "https://api.example:8443/", "https://api.example.evil/", "https://x@api.example/"]
        {
            assert!(recent.get(&uri(other)).is_none(), "{other}");
        }
        assert!(recent.get(&uri("/orders")).is_none());
    }
}
