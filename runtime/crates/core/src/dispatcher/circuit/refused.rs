//! The deliveries that an endpoint refuses while it takes others: they say nothing about the endpoint.

use std::collections::VecDeque;

use evoke_model::DeliveryId;

/// A delivery is refused after this many failures, each after the endpoint took another delivery in between. An endpoint
/// that is up and down in turn fails others, too, and so still opens its circuit.
const FAILURES: u32 = 3;

/// Largest number of remembered deliveries; the oldest is forgotten first. An endpoint that refuses more than these at a
/// time is better tested by probes.
const REMEMBERED_MAX: usize = 16;

/// The failures of single deliveries, compared with the successes of others.
#[derive(Default)]
pub(super) struct Refused {
    /// The number of deliveries that the endpoint took.
    taken: u64,
    failed: VecDeque<Failed>,
}

struct Failed {
    id: DeliveryId,
    /// The value of `taken` at the last failure.
    taken: u64,
    /// The number of failures before which the endpoint took another delivery.
    count: u32,
}

impl Refused {
    /// Records that the endpoint took a delivery.
    pub(super) fn taken(&mut self, id: DeliveryId) {
        self.taken += 1;
        self.failed.retain(|failed| failed.id != id);
    }

    /// Records that a delivery failed. Returns true if the endpoint refuses it and takes others.
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
        // An endpoint that is down fails every delivery, not only this one.
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
