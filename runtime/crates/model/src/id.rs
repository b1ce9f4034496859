//! Identifiers within one store. They are distinct types, so that one is never passed in place of another.

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
    /// The position of an event in the total order of accepted events, from 1. 0 is before the first.
    Seq
}
identifier! {
    /// A delivery; ascending in accept order, from 1. 0 is before the first.
    DeliveryId
}
identifier! {
    /// A function as registered with the store, from 1; the same for the life of the store.
    FunctionId
}
identifier! {
    /// A replay; ascending, from 1.
    ReplayId
}
