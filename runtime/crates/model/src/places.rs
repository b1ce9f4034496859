//! The places that no function may take alone: one rule for deliveries and for HTTP requests.

/// Returns how many of `places` are reserved for functions that hold none, so that no function takes all: an eighth, at
/// least one, but none of a single place.
pub fn reserved_places(places: u32) -> u32 {
    if places > 1 { (places / 8).max(1) } else { 0 }
}
