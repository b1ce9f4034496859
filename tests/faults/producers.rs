//! Producers that stay outside: they send items until each is acknowledged, whatever happens to whom they send to, and
//! send some again that they know were acknowledged.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use super::items::Items;
use super::random::Random;

pub(crate) struct Producers<'a> {
    items: &'a Items,
    /// How many items there are.
    count: usize,
    next: AtomicUsize,
    /// Where they send to; changes with every start.
    address: Mutex<String>,
    acknowledged: Mutex<BTreeSet<usize>>,
    stopped: AtomicBool,
    /// Events that were acknowledged, also those that had been before.
    pub(crate) sent: AtomicUsize,
    /// Requests of which nobody knows what became.
    pub(crate) unknown: AtomicUsize,
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
            sent: AtomicUsize::new(0),
            unknown: AtomicUsize::new(0),
        }
    }

    pub(crate) fn send_to(&self, address: &str) {
        *self.address.lock().unwrap() = address.to_owned();
    }

    /// What was acknowledged until now.
    pub(crate) fn acknowledged(&self) -> BTreeSet<usize> {
        self.acknowledged.lock().unwrap().clone()
    }

    pub(crate) fn acknowledged_count(&self) -> usize {
        self.acknowledged.lock().unwrap().len()
    }

    /// Nothing new is begun. What was begun and is not acknowledged yet is sent until it is.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// One of them.
    pub(crate) fn run(&self, seed: u64) {
        let mut random = Random::new(seed);
        let mut mine = Vec::new();
        while !self.stopped.load(Ordering::Relaxed) {
            if !mine.is_empty() && random.percent(55) {
                let again: &Vec<usize> = &mine[random.below(mine.len())];
                let duplicates = self.send(again);
                assert_eq!(duplicates, again.len(), "{again:?} were acknowledged before, and not known");
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

    /// Sends until it is acknowledged; answers how many were known before.
    fn send(&self, numbers: &[usize]) -> usize {
        loop {
            let address = self.address.lock().unwrap().clone();
            match self.items.send(&address, numbers) {
                Ok(answer) if [200, 202].contains(&answer.status) => {
                    self.sent.fetch_add(numbers.len(), Ordering::Relaxed);
                    self.acknowledged.lock().unwrap().extend(numbers);
                    let answer = answer.json();
                    let events = answer["events"].as_array().unwrap();
                    let ids: Vec<_> = events.iter().map(|event| event["id"].as_str().unwrap()).collect();
                    assert_eq!(ids, numbers.iter().map(|&number| Items::id(number)).collect::<Vec<_>>());
                    return events.iter().filter(|event| event["duplicate"] == true).count();
                }
                // It stops, or there is too much already.
                Ok(answer) => assert!([429, 503].contains(&answer.status), "{answer:?}"),
                Err(_) => drop(self.unknown.fetch_add(1, Ordering::Relaxed)),
            }
            // Nobody is there: the next one is on its way up.
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}
