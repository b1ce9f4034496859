//! A place is the permission to run one delivery, or one HTTP request. Some places are reserved, so that one function
//! cannot occupy all of them. The same rule is used for deliveries and for HTTP requests.

/// Returns how many of `places` are reserved for functions that do not hold a place: an eighth, but at least one.
/// Returns 0 if there is only one place.
pub fn reserved_places(places: u32) -> u32 {
    if places > 1 { (places / 8).max(1) } else { 0 }
}
