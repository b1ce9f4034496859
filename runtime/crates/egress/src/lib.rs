//! Outbound HTTP: sends a request to a destination that was granted, and to no other.
