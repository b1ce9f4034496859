//! The number of reserved places, so that no function can take all places. The same rule holds for deliveries and for
//! HTTP requests.

/// Returns how many of `places` are reserved for functions that do not hold a place yet: an eighth, but at least one.
/// Returns 0 if there is only one place.
pub fn reserved_places(places: u32) -> u32 {
    if places > 1 { (places / 8).max(1) } else { 0 }
}
