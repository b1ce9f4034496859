//! Producers that outlive the server: they repeat each item until it is acknowledged, across restarts, and send some
//! acknowledged items again as duplicates.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::items::Items;
use super::random::Random;

pub(crate) struct Producers<'a> {
    items: &'a Items,
    /// The number of items to send.
    count: usize,
    next: AtomicUsize,
    /// The address of the server, which changes with every start.
    address: Mutex<String>,
    acknowledged: Mutex<BTreeSet<usize>>,
    stopped: AtomicBool,
    /// The number of acknowledgements, including those of duplicates.
    pub(crate) acknowledgements: AtomicUsize,
    /// The number of requests without a response, of which it is unknown whether they were stored.
    pub(crate) unanswered: AtomicUsize,
}

impl<'a> Producers<'a> {
    pub(crate) fn new(items: &'a Items, count: usize) -> Self {
        Self {
            items,
            count,
            next: AtomicUsize::new(0),
            address: Mutex::default(),
            acknowledged: Mutex::default(),
            stopped: AtomicBool::new(false),
            acknowledgements: AtomicUsize::new(0),
            unanswered: AtomicUsize::new(0),
        }
    }

    pub(crate) fn send_to(&self, address: &str) {
        *self.address.lock().unwrap() = address.to_owned();
    }

    /// The items that were acknowledged so far.
    pub(crate) fn acknowledged(&self) -> BTreeSet<usize> {
        self.acknowledged.lock().unwrap().clone()
    }

    pub(crate) fn acknowledged_count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Sends no new items. Items that were sent and are not acknowledged are repeated until they are.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Runs one producer until all items are sent, or until [`Self::stop`].
    pub(crate) fn run(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut mine = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            if !mine.is_empty() && random.percent(55) {
                let again: &Vec<usize> = &mine[random.below(mine.len())];
                let duplicates = self.send(again);
                assert_eq!(
                    duplicates,
                    again.len(),
                    "{again:?} were acknowledged before, and were not reported as duplicates"
                );
                continue;
            }
            let size = if random.percent(50) { 1 } else { 1 + random.below(20) };
            let first = self.next.fetch_add(size, Ordering::Relaxed);
            let numbers: Vec<usize> = (first..self.count.min(first + size)).collect();
            if numbers.is_empty() {
                return;
            }
            self.send(&numbers);
            mine.push(numbers);
        }
    }

    /// Sends items until they are acknowledged. Returns the number of duplicates.
    fn send(&self, numbers: &[usize]) -> usize {
        loop {
            let address = self.address.lock().unwrap().clone();
            match self.items.send(&address, numbers) {
                Ok(response) if [200, 202].contains(&response.status) => {
                    self.acknowledgements.fetch_add(numbers.len(), Ordering::Relaxed);
                    self.acknowledged.lock().unwrap().extend(numbers);
                    let response = response.json();
                    let events = response["events"].as_array().unwrap();
                    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
                    assert_eq!(ids, numbers.iter().map(|&number| Items::id(number)).collect::<Vec<_>>());
                    return events.iter().filter(|event| event["duplicate"] == true).count();
                }
                // The server is draining or overloaded.
                Ok(response) => assert!([429, 503].contains(&response.status), "{response:?}"),
                Err(_) => drop(self.unanswered.fetch_add(1, Ordering::Relaxed)),
            }
            // The server is down: wait for the next start.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
