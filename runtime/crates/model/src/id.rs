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
