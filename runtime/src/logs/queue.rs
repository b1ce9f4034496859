//! Counts the lines that wait to be written, so that the lines of one function cannot fill the queue.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Maximum number of lines that wait to be written. They take about 1 MB if each has 100 bytes, and 32 MiB if each has
/// the maximum length of 4 KiB.
pub(super) const LINES_MAX: usize = 8 * 1024;

/// The number of lines that wait, by function. A line is accepted while its function has fewer waiting lines than the
/// queue has free places. So one function that floods the log gets half of the queue, and two such functions get a
/// third each.
#[derive(Default)]
pub(super) struct Queue(Mutex<Counts>);

#[derive(Default)]
struct Counts {
    waiting: usize,
    functions: HashMap<Arc<str>, Count>,
}

#[derive(Default)]
struct Count {
    waiting: usize,
    /// Number of lines that were dropped and not yet reported.
    dropped: u64,
}

impl Queue {
    /// Sends a line of a function if there is room for it, and counts it as dropped otherwise. `send` must not block;
    /// it returns false if the line was not sent.
    pub(super) fn send(&self, function: &Arc<str>, send: impl FnOnce() -> bool) {
        // `send` is called without the lock, because it wakes a thread that immediately takes this lock and would
        // have to wait for it.
        if self.take_room(function) && !send() {
            let mut counts = self.lock();
            counts.waiting = counts.waiting.saturating_sub(1);
            let count = counts.functions.entry(function.clone()).or_default();
            count.waiting = count.waiting.saturating_sub(1);
            count.dropped += 1;
        }
    }

    /// Counts a line as waiting if there is room for it, and as dropped otherwise.
    fn take_room(&self, function: &Arc<str>) -> bool {
        let mut counts = self.lock();
        let free = LINES_MAX.saturating_sub(counts.waiting);
        let has_room = counts.functions.get(function).map_or(0, |count| count.waiting) < free;
        counts.waiting += usize::from(has_room);
        let count = counts.functions.entry(function.clone()).or_default();
        count.waiting += usize::from(has_room);
        count.dropped += u64::from(!has_room);
        has_room
    }

    /// Called when the writer takes a line of `function` out of the queue. Returns the number of lines of this function
    /// that were dropped and not yet reported.
    pub(super) fn received(&self, function: &Arc<str>) -> u64 {
        let mut counts = self.lock();
        counts.waiting = counts.waiting.saturating_sub(1);
        let Some(count) = counts.functions.get_mut(function) else { return 0 };
        count.waiting = count.waiting.saturating_sub(1);
        let dropped = std::mem::take(&mut count.dropped);
        if count.waiting == 0 {
            counts.functions.remove(function);
        }
        dropped
    }

    /// Returns the number of lines that were dropped and not yet reported, for each function with such lines.
    pub(super) fn take_dropped(&self) -> Vec<(Arc<str>, u64)> {
        let mut counts = self.lock();
        let mut taken = Vec::new();
        counts.functions.retain(|function, count| {
            if count.dropped > 0 {
                taken.push((function.clone(), std::mem::take(&mut count.dropped)));
            }
            count.waiting > 0
        });
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_function_takes_half_of_the_queue_and_others_find_room() {
        let queue = Queue::default();
        let send = |function: &str, count: usize| (0..count).for_each(|_| queue.send(&function.into(), || true));
        send("a/flood", 2 * LINES_MAX);
        send("a/quiet", 100);
        assert_eq!(queue.take_dropped(), vec![(Arc::from("a/flood"), (LINES_MAX + LINES_MAX / 2) as u64)]);
        send("a/flood", 3);
        for _ in 0..LINES_MAX / 2 - 1 {
            queue.received(&"a/flood".into());
        }
        send("a/flood", 1);
        assert_eq!(queue.received(&"a/flood".into()), 0, "the three dropped lines are reported only once");
        (0..100).for_each(|_| assert_eq!(queue.received(&"a/quiet".into()), 0));
        queue.received(&"a/flood".into());
        assert!(queue.lock().functions.is_empty() && queue.lock().waiting == 0);
    }
}
