//! A lock that another program holds on the store: Evoke refuses events meanwhile, waits at its start, and continues
//! without a loss when the lock is released.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::assert_eventually;
use crate::faults::items::{Items, manifest};
use crate::support::{Evoke, Response, get};

/// Longer than SQLite's usual busy timeout of five seconds.
const LONG: Duration = Duration::from_secs(8);

/// A connection to the store of another process than Evoke: that of the test.
struct Other(Connection);

impl Other {
    fn open(evoke: &Evoke) -> Self {
        let connection = Connection::open(evoke.path(".evoke/evoke.db")).unwrap();
        connection.busy_timeout(Duration::from_secs(30)).unwrap();
        Self(connection)
    }

    /// Takes the lock that every write needs.
    fn lock(&self) {
        self.0.execute_batch("BEGIN IMMEDIATE").unwrap();
    }

    fn release(&self) {
        self.0.execute_batch("ROLLBACK").unwrap();
    }
}

fn ready(evoke: &Evoke) -> Response {
    get(evoke.admin(), "/readyz")
}

fn assert_refused(response: &Response) {
    assert_eq!(response.status, 503, "{response:?}");
    assert!(response.headers["retry-after"].to_str().unwrap().parse::<u32>().unwrap() > 0, "{response:?}");
    assert!(response.body.contains("another program has locked the store"), "{response:?}");
}

/// Waits until all items went through all functions, each once.
fn assert_all_handled(evoke: &Evoke, items: &Items, accepted: &BTreeSet<usize>) {
    evoke.settle();
    let by_type = evoke.verify(items, accepted);
    assert!(by_type.values().all(|numbers| numbers == accepted), "{}", evoke.log());
    evoke.stdout(&["check"]);
}

#[test]
fn a_long_lock_refuses_events_with_a_retry_time_and_loses_nothing_in_flight() {
    let items = Items { retries: 10, ..Items::plain(7, 20, 500) };
    let mut evoke = Evoke::up_with(&manifest());
    let other = Other::open(&evoke);
    let send = |number: usize| items.send(evoke.http(), &[number]).unwrap();
    // Deliveries of these items are under way when the lock is taken.
    let mut accepted: BTreeSet<usize> = (0..40).collect();
    accepted.iter().for_each(|number| assert_eq!(send(*number).status, 202));
    other.lock();
    let locked = Instant::now();
    let mut number = 40;
    assert_eventually!(
        {
            number += 1;
            let response = send(number);
            if response.status == 202 {
                accepted.insert(number);
            } else {
                assert_refused(&response);
            }
            locked.elapsed() > LONG
        },
        "never"
    );
    let not_ready = ready(&evoke);
    assert_refused(&not_ready);
    assert_eq!(get(evoke.admin(), "/healthz").status, 200);
    evoke.stdout(&["check"]);
    evoke.stdout(&["backup", "copy.db"]);
    other.release();
    assert_eventually!(send(999).status == 202, "not accepted again: {}", evoke.log());
    accepted.insert(999);
    assert_eventually!(ready(&evoke).status == 200, "{:?}", ready(&evoke));
    assert_all_handled(&evoke, &items, &accepted);
    assert!(evoke.stop().success(), "{}", evoke.log());
    evoke.stdout(&["check"]);
}

#[test]
fn a_stop_while_the_store_is_locked_ends_within_its_limit_and_loses_nothing() {
    let items = Items::plain(8, 20, 500);
    let mut evoke = Evoke::with(&manifest());
    evoke.up_with_arguments(&["--drain", "1s"]);
    let other = Other::open(&evoke);
    let accepted: BTreeSet<usize> = (0..40).collect();
    accepted.iter().for_each(|number| assert_eq!(items.send(evoke.http(), &[*number]).unwrap().status, 202));
    other.lock();
    assert!(evoke.stop().success(), "{}", evoke.log());
    other.release();
    evoke.up();
    assert_all_handled(&evoke, &items, &accepted);
}

#[test]
fn a_start_waits_for_a_locked_store_says_so_and_can_be_stopped() {
    let items = Items::plain(9, 5, 100);
    for exclusive in [false, true] {
        let mut evoke = Evoke::up_with(&manifest());
        assert_eq!(items.send(evoke.http(), &[1]).unwrap().status, 202);
        assert!(evoke.stop().success());
        let other = Other::open(&evoke);
        if exclusive {
            other.0.pragma_update(None, "locking_mode", "EXCLUSIVE").unwrap();
        }
        other.lock();
        evoke.start(&[]);
        let waiting = |evoke: &Evoke| evoke.log().matches("another program has locked").count();
        assert_eventually!(waiting(&evoke) == 1, "{}", evoke.log());
        assert!(evoke.stop().success(), "{}", evoke.log());

        evoke.start(&[]);
        let started = Instant::now();
        assert_eventually!(started.elapsed() > LONG, "never");
        assert!(!evoke.has_ended(), "{}", evoke.log());
        assert_eq!(waiting(&evoke), 2, "{}", evoke.log());
        other.0.close().unwrap();
        evoke.await_ready();
        assert_eq!(items.send(evoke.http(), &[2]).unwrap().status, 202);
        assert_all_handled(&evoke, &items, &BTreeSet::from([1, 2]));
    }
}
