//! Finds the deliveries that an endpoint refuses while it accepts others. Their failures do not show that the endpoint
//! is down.

use std::collections::VecDeque;

use evoke_model::DeliveryId;

/// A delivery counts as refused after its first failure and this many more, if the endpoint accepted another delivery
/// between each failure and the next. If an endpoint is alternately up and down, other deliveries fail too, and open
/// the circuit.
const FAILURES: u32 = 3;

/// The maximum number of deliveries whose failures are counted; the oldest is forgotten first. If an endpoint refuses
/// more deliveries than this, the circuit should open, so that probes test the endpoint.
const REMEMBERED_MAX: usize = 16;

/// The failures of single deliveries, and the number of accepted deliveries.
#[derive(Default)]
pub(super) struct Refused {
    /// The number of deliveries that the endpoint accepted.
    taken: u64,
    failed: VecDeque<Failed>,
}

struct Failed {
    id: DeliveryId,
    /// The value of `Refused::taken` at the last failure of this delivery.
    taken: u64,
    /// The number of failures after the first one. A failure counts only if the endpoint has accepted another delivery
    /// since the previous failure.
    count: u32,
}

impl Refused {
    /// Records that the endpoint accepted a delivery.
    pub(super) fn taken(&mut self, id: DeliveryId) {
        self.taken += 1;
        self.failed.retain(|failed| failed.id != id);
    }

    /// Records that a delivery failed. Returns true if the endpoint refuses this delivery and accepts others.
    pub(super) fn failed(&mut self, id: DeliveryId) -> bool {
        let taken = self.taken;
        let Some(failed) = self.failed.iter_mut().find(|failed| failed.id == id) else {
            if self.failed.len() >= REMEMBERED_MAX {
                self.failed.pop_front();
            }
            self.failed.push_back(Failed { id, taken, count: 0 });
            return false;
        };
        if failed.taken < taken {
            failed.count = failed.count.saturating_add(1);
            failed.taken = taken;
        }
        failed.count >= FAILURES
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_delivery_is_refused_after_failures_between_which_others_were_taken() {
        let (mut refused, poison) = (Refused::default(), DeliveryId(1));
        // The endpoint accepts no other delivery in between, so it may be down.
        for _ in 0..10 {
            assert!(!refused.failed(poison));
        }
        for other in 2..4 {
            refused.taken(DeliveryId(other));
            assert!(!refused.failed(poison));
        }
        refused.taken(DeliveryId(4));
        assert!(refused.failed(poison) && refused.failed(poison));
        assert!(!refused.failed(DeliveryId(5)));
        refused.taken(poison);
        assert!(!refused.failed(poison));
        for id in 10..1_000 {
            refused.failed(DeliveryId(id));
        }
        assert_eq!(refused.failed.len(), REMEMBERED_MAX);
    }
}
