//! An endpoint that asks to wait until a date, while the wall clock of Evoke is wrong.

use std::sync::atomic::{AtomicBool, Ordering};

use super::endpoint::Endpoint;
use super::{manifest, send};
use crate::assert_eventually;
use crate::faults::shim::{Shim, WallClock};
use crate::support::Evoke;

const YEAR: i64 = 365 * 86_400;

#[test]
fn a_date_to_wait_for_is_one_of_the_endpoints_clock_and_kills_no_delivery() {
    for seconds in [-20 * YEAR, YEAR] {
        let is_first = AtomicBool::new(true);
        let endpoint = Endpoint::start(move |_| {
            let dates = [("date", "06 Nov 1994 08:49:37"), ("retry-after", "06 Nov 1994 08:49:39")];
            match is_first.swap(false, Ordering::SeqCst) {
                true => (503, dates.map(|(name, at)| (name, format!("Sun, {at} GMT"))).to_vec(), String::new()),
                false => (204, Vec::new(), String::new()),
            }
        });
        let mut evoke = Evoke::with(&manifest(&endpoint.url("/"), "", "    retry: { backoff: 10ms, max_age: 1h }"));
        let clock = WallClock::of(&evoke);
        clock.set(seconds);
        let shim = Shim::for_data_of(&evoke).with_clock(&clock);
        evoke.try_up(&[], shim.environment()).unwrap();
        evoke.post_accepted("/in", "{}");
        evoke.settle();
        assert_eq!((&send(&evoke)["done"], &send(&evoke)["dead"]), (&1.into(), &0.into()), "{}", evoke.log());
        let received = endpoint.received();
        assert_eventually!(received.len() == 2, "{received:?}");
        assert!((received[1].at - received[0].at).as_secs_f32() > 1.9, "{received:?}");
    }
}
