//! Identifiers within one store. Each kind of identifier is a type of its own, so that the compiler detects a mix-up.

use std::fmt;
use std::num::ParseIntError;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(
            Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
        )]
        #[serde(transparent)]
        pub struct $name(pub i64);

        impl $name {
            /// Returns the identifier after this one.
            pub fn next(self) -> Self {
                Self(self.0.saturating_add(1))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                self.0.fmt(f)
            }
        }

        impl FromStr for $name {
            type Err = ParseIntError;

            fn from_str(text: &str) -> Result<Self, ParseIntError> {
                text.parse().map(Self)
            }
        }
    };
}

identifier! {
    /// The position of an event in the order in which events were accepted, from 1. 0 means before the first event.
    Seq
}
identifier! {
    /// The number of a delivery, from 1, ascending in accept order. 0 means before the first delivery.
    DeliveryId
}

identifier! {
    /// The number that a store gave a function when the function was registered, from 1. The number never changes
    /// within this store.
    FunctionId
}
identifier! {
    /// The number of a replay, from 1, ascending.
    ReplayId
}

/// The start of the ids that guests get for HTTP requests. The id of a delivery starts with the name of the store.
pub const REQUEST_ID_PREFIX: &str = "request-";

impl DeliveryId {
    /// Returns the number of a delivery from the id that guests get, `STORE-NUMBER`. Returns `None` for the id of an
    /// HTTP request, which also ends with a number.
    pub fn from_guest_id(id: &str) -> Option<Self> {
        if id.starts_with(REQUEST_ID_PREFIX) {
            return None;
        }
        let (_, number) = id.rsplit_once('-')?;
        number.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_that_guests_get_has_the_number_of_the_delivery_but_that_of_a_request_has_none() {
        assert_eq!(DeliveryId::from_guest_id("0a1b2c-7"), Some(DeliveryId(7)));
        assert_eq!(DeliveryId::from_guest_id("0a1b-2c3d-42"), Some(DeliveryId(42)));
        for other in ["request-0a1b2c-7", "request-7", "7", "0a1b2c-", "0a1b2c-x", ""] {
            assert_eq!(DeliveryId::from_guest_id(other), None, "{other}");
        }
    }
}
