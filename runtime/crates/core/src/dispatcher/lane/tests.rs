//! Tests of a lane.

use std::sync::Arc;

use super::*;
use evoke_model::event::Event;
use evoke_model::{FunctionId, Lineage, Origin, ReplayId, Seq, StoredEvent};

/// Returns the delivery with this number, of the event with the same number.
fn delivery(number: i64) -> ReadyDelivery {
    let (id, seq, function) = (DeliveryId(number), Seq(number), FunctionId(1));
    let event = Event::from_json(br#"{"id":"1","source":"/a","type":"t"}"#, |_| {}).unwrap();
    let (lineage, event) = (Lineage::default(), Arc::new(event));
    let event = StoredEvent { seq, accepted_ms: 0, lineage, event };
    let (trigger, origin, event) = ("on[0]".into(), Origin::default(), Ok(Arc::new(event)));
    let (attempts, attempts_forgiven, since_ms, replay) = (0, 0, 0, None);
    ReadyDelivery { id, function, trigger, attempts, attempts_forgiven, since_ms, replay, origin, event }
}

/// Starts a load, and returns the id after which to load.
fn start_load(lane: &mut Lane) -> Option<DeliveryId> {
    lane.start_load().map(|(after, _)| after)
}

/// Offers a delivery to the lane of a function whose circuit is open.
fn offer(lane: &mut Lane, delivery: ReadyDelivery) {
    if let Some(left) = lane.offer(delivery) {
        lane.keep_newest(left);
    }
}

/// Runs all waiting deliveries, and returns their numbers.
fn run_all(lane: &mut Lane) -> Vec<i64> {
    std::iter::from_fn(|| {
        let id = lane.pick()?.id;
        lane.release_slot();
        lane.completed(id, None);
        Some(id.0)
    })
    .collect()
}

#[test]
fn a_full_window_leaves_deliveries_in_the_store_and_loads_them_later() {
    let mut lane = Lane::default();
    let total = WINDOW_MAX as i64 + 10;
    (1..=total).for_each(|id| offer(&mut lane, delivery(id)));
    assert_eq!(start_load(&mut lane), None);
    assert_eq!(run_all(&mut lane).len(), WINDOW_MAX);
    let after = start_load(&mut lane).unwrap();
    assert_eq!(after, DeliveryId(WINDOW_MAX as i64));
    lane.loaded(after, (after.0 + 1..=total).map(delivery).collect());
    assert_eq!(run_all(&mut lane), (after.0 + 1..=total).collect::<Vec<_>>());
    assert_eq!(start_load(&mut lane), None);
}

#[test]
fn deliveries_announced_during_a_load_are_neither_lost_nor_run_twice() {
    let mut lane = Lane::new_behind_store();
    assert_eq!(start_load(&mut lane), Some(DeliveryId(0)));
    (3..=5).for_each(|id| offer(&mut lane, delivery(id)));
    lane.loaded(DeliveryId(0), vec![delivery(1), delivery(2), delivery(3)]);
    assert_eq!(start_load(&mut lane), Some(DeliveryId(2)));
    lane.loaded(DeliveryId(2), vec![delivery(3), delivery(4), delivery(5)]);
    assert_eq!(run_all(&mut lane), vec![1, 2, 3, 4, 5]);
    assert_eq!(start_load(&mut lane), None);
    offer(&mut lane, delivery(6));
    assert_eq!(run_all(&mut lane), vec![6]);
}

#[test]
fn a_load_that_read_a_delivery_before_its_completion_does_not_run_it_again() {
    let mut lane = Lane::default();
    offer(&mut lane, delivery(1));
    let running = lane.pick().unwrap();
    lane.behind = true;
    let after = start_load(&mut lane).unwrap();
    lane.completed(running.id, None);
    lane.loaded(after, vec![delivery(1), delivery(2)]);
    assert_eq!(run_all(&mut lane), vec![2]);
}

#[test]
fn a_delivery_redriven_while_the_lane_is_behind_is_loaded() {
    let mut lane = Lane { behind: true, cursor: DeliveryId(500), ..Lane::default() };
    offer(&mut lane, delivery(7));
    assert_eq!(start_load(&mut lane), Some(DeliveryId(6)));
}

#[test]
fn released_deliveries_are_loaded_again_and_running_ones_stay_held() {
    let mut lane = Lane::default();
    (1..=3).for_each(|id| offer(&mut lane, delivery(id)));
    lane.start_retry_load();
    lane.retries_loaded(vec![delivery(4)], None);
    assert_eq!(lane.pick().map(|picked| picked.id), Some(DeliveryId(1)));
    assert_eq!(lane.release_waiting(), [2, 3, 4].map(DeliveryId));
    assert_eq!(
        (lane.has_work(), lane.started(), lane.next_retry_ms()),
        (false, vec![DeliveryId(1)], Some(UnixMs::MIN))
    );
    let after = start_load(&mut lane).unwrap();
    lane.loaded(after, (1..=3).map(delivery).collect());
    lane.start_retry_load();
    lane.retries_loaded(vec![delivery(4)], None);
    assert_eq!(run_all(&mut lane), [2, 3, 4]);
}

#[test]
fn a_lane_that_loads_again_finds_deliveries_before_its_cursor_and_earlier_retries() {
    let mut lane = Lane::default();
    offer(&mut lane, delivery(9));
    assert!(lane.is_quiet());
    let running = lane.pick().unwrap();
    lane.release_slot();
    assert!(!lane.is_quiet(), "the attempt is not committed yet");
    lane.completed(running.id, Some(90));
    assert!(lane.is_quiet());
    lane.load_again();
    assert_eq!((start_load(&mut lane), lane.next_retry_ms()), (Some(DeliveryId(0)), Some(UnixMs::MIN)));
    assert!(!lane.is_quiet(), "a load is running");
    lane.loaded(DeliveryId(0), vec![delivery(3)]);
    lane.start_retry_load();
    assert!(!lane.is_quiet(), "a load of retries is running");
    lane.retries_loaded(vec![delivery(4)], None);
    assert_eq!(run_all(&mut lane), [3, 4]);
}

#[test]
fn a_cancelled_delivery_does_not_run_and_is_not_held_by_a_running_load() {
    let mut lane = Lane::default();
    (1..=3).for_each(|id| offer(&mut lane, delivery(id)));
    let running = lane.pick().unwrap();
    lane.behind = true;
    let after = start_load(&mut lane).unwrap();
    for id in [1, 2, 5] {
        lane.cancel(DeliveryId(id));
    }
    assert_eq!(lane.started(), vec![running.id]);
    lane.loaded(after, vec![delivery(2), delivery(3), delivery(4), delivery(5)]);
    assert_eq!(run_all(&mut lane), vec![3, 4]);
    lane.completed(running.id, None);
    assert!(!lane.holds(running.id));
}

#[test]
fn a_full_load_is_followed_by_another_load_from_its_end() {
    let mut lane = Lane::new_behind_store();
    start_load(&mut lane).unwrap();
    lane.loaded(DeliveryId(0), (1..=LOAD_MAX as i64).map(delivery).collect());
    assert_eq!(start_load(&mut lane), Some(DeliveryId(LOAD_MAX as i64)));
}

#[test]
fn the_next_retry_is_the_earliest_even_if_its_attempt_ended_during_a_load() {
    let mut lane = Lane::default();
    for id in [1, 2] {
        offer(&mut lane, delivery(id));
        lane.pick().unwrap();
    }
    lane.completed(DeliveryId(1), Some(90));
    assert_eq!(lane.next_retry_ms(), Some(90));
    lane.start_retry_load();
    assert_eq!(lane.next_retry_ms(), None);
    lane.completed(DeliveryId(2), Some(50));
    lane.retries_loaded(vec![], Some(90));
    assert_eq!(lane.next_retry_ms(), Some(50));
}

#[test]
fn a_retry_due_during_a_load_of_first_attempts_is_not_lost() {
    let mut lane = Lane::default();
    offer(&mut lane, delivery(1));
    lane.pick().unwrap();
    lane.behind = true;
    let after = start_load(&mut lane).unwrap();
    lane.completed(DeliveryId(1), Some(90));
    lane.start_retry_load();
    lane.retries_loaded(vec![delivery(1)], None);
    lane.loaded(after, vec![delivery(1), delivery(2)]);
    assert_eq!(run_all(&mut lane), vec![2, 1]);
}

#[test]
fn a_retry_load_that_read_a_delivery_before_its_completion_is_repeated() {
    let mut lane = Lane::default();
    lane.start_retry_load();
    offer(&mut lane, delivery(1));
    lane.pick().unwrap();
    lane.completed(DeliveryId(1), Some(90));
    lane.retries_loaded(vec![delivery(1)], None);
    assert_eq!((lane.has_work(), lane.next_retry_ms()), (false, Some(90)));
}

#[test]
fn retries_make_progress_without_displacing_first_attempts() {
    let mut lane = Lane::default();
    (1..=8).for_each(|id| offer(&mut lane, delivery(id)));
    lane.start_retry_load();
    lane.retries_loaded(vec![delivery(101), delivery(102), delivery(103)], None);
    assert_eq!(run_all(&mut lane), vec![1, 2, 3, 4, 101, 5, 6, 7, 8, 102, 103]);
}

/// Returns a delivery of an event with about this many bytes.
fn large(number: i64, size: usize) -> ReadyDelivery {
    let json = format!(r#"{{"id":"1","source":"/a","type":"t","data":"{}"}}"#, "x".repeat(size));
    let event = Arc::new(Event::from_json(json.as_bytes(), |_| {}).unwrap());
    let event = Ok(Arc::new(StoredEvent { seq: Seq(number), accepted_ms: 0, lineage: Lineage::default(), event }));
    ReadyDelivery { event, ..delivery(number) }
}

const MIB: usize = 1024 * 1024;

#[test]
fn a_load_has_the_size_of_the_free_window_and_continues_when_half_of_it_is_free() {
    let mut lane = Lane::new_behind_store();
    lane.put_back(large(1, MIB));
    let (after, limit) = lane.start_load().unwrap();
    assert!(limit.deliveries == LOAD_MAX && limit.bytes < 5 * MIB, "{limit:?}");
    let found: Vec<_> = (2..=6).map(|id| large(id, MIB)).collect();
    assert!(limit.is_reached_by(&found) && !limit.is_reached_by(&found[..4]));
    lane.loaded(after, found);
    let mut ran = Vec::new();
    while start_load(&mut lane).is_none() {
        ran.push(lane.pick().unwrap().id.0);
    }
    assert_eq!(ran, [1, 2, 3, 4]);
    lane.loaded(DeliveryId(6), vec![delivery(7)]);
    assert_eq!(start_load(&mut lane), None, "the second load was not cut");
    assert_eq!(run_all(&mut lane), [5, 6, 7]);
}

#[test]
fn retries_are_loaded_up_to_their_size_and_again_when_there_is_room() {
    let mut lane = Lane::new_behind_store();
    assert!(lane.has_regained_retry_room());
    let (held, limit) = lane.start_retry_load();
    assert!(held.is_empty());
    assert_eq!(limit, LoadLimit { deliveries: LOAD_MAX, bytes: RETRY_BYTES_MAX });
    lane.retries_loaded(vec![large(1, MIB), large(2, MIB)], Some(5));
    assert_eq!((lane.has_regained_retry_room(), lane.next_retry_ms()), (false, None));
    // Retries run in order, and the lane asks for the next ones once.
    assert_eq!(lane.pick().map(|picked| picked.id), Some(DeliveryId(1)));
    assert_eq!((lane.has_regained_retry_room(), lane.next_retry_ms()), (false, None));
    assert_eq!(lane.pick().map(|picked| picked.id), Some(DeliveryId(2)));
    assert_eq!((lane.has_regained_retry_room(), lane.next_retry_ms()), (true, Some(5)));
    assert!(!lane.has_regained_retry_room());
    assert_eq!(lane.start_retry_load().0, [1, 2].map(DeliveryId).into_iter().collect());
}

#[test]
fn large_first_attempts_do_not_keep_retries_from_being_loaded() {
    let mut lane = Lane::default();
    (1..=8).for_each(|id| offer(&mut lane, large(id, MIB)));
    assert_eq!(lane.waiting(), 6);
    assert_eq!(start_load(&mut lane), None);
    lane.load_again();
    assert_eq!(lane.next_retry_ms(), Some(UnixMs::MIN));
    lane.start_retry_load();
    lane.retries_loaded(vec![delivery(101)], None);
    assert_eq!(run_all(&mut lane), [1, 2, 3, 4, 101, 5, 6]);
    assert_eq!(start_load(&mut lane), Some(DeliveryId(0)));
}

#[test]
fn the_newest_delivery_is_taken_from_a_full_window_and_from_the_store() {
    let mut lane = Lane::default();
    let (last, left) = (WINDOW_MAX as i64, WINDOW_MAX as i64 + 1);
    (1..=last).for_each(|id| offer(&mut lane, delivery(id)));
    assert_eq!(lane.pick_newest().unwrap().id, DeliveryId(last));
    lane.release_slot();
    lane.put_back_last(delivery(last));
    offer(&mut lane, delivery(left));
    assert_eq!(lane.pick_newest().unwrap().id, DeliveryId(left));
    lane.release_slot();
    // There is no room for this delivery: a load finds it again.
    lane.put_back_last(delivery(left));
    assert_eq!(lane.waiting(), WINDOW_MAX as u32);
    assert_eq!(lane.pick_newest().unwrap().id, DeliveryId(last));
    lane.completed(DeliveryId(last), None);
    assert_eq!(run_all(&mut lane).len(), WINDOW_MAX - 1);
    assert_eq!(start_load(&mut lane), Some(DeliveryId(last)));
    lane.loaded(DeliveryId(last), vec![delivery(left)]);
    assert_eq!(run_all(&mut lane), vec![left]);
}

#[test]
fn a_delivery_that_was_left_in_the_store_runs_once() {
    let full = || {
        let mut lane = Lane::default();
        (1..=WINDOW_MAX as i64 + 1).for_each(|id| offer(&mut lane, delivery(id)));
        lane
    };
    let left = DeliveryId(WINDOW_MAX as i64 + 1);
    // A load finds and completes it first.
    let mut lane = full();
    assert_eq!(run_all(&mut lane).len(), WINDOW_MAX);
    let after = start_load(&mut lane).unwrap();
    lane.loaded(after, vec![delivery(left.0)]);
    assert_eq!(run_all(&mut lane), vec![left.0]);
    offer(&mut lane, delivery(1_000));
    assert_eq!(lane.pick_newest().unwrap().id, DeliveryId(1_000));
    // It is taken first, and a load finds it while it runs.
    let mut lane = full();
    assert_eq!(lane.pick_newest().unwrap().id, left);
    assert_eq!(run_all(&mut lane).len(), WINDOW_MAX);
    let after = start_load(&mut lane).unwrap();
    lane.loaded(after, vec![delivery(left.0)]);
    assert!(run_all(&mut lane).is_empty());
    // It was offered again while it is held.
    let mut lane = full();
    offer(&mut lane, delivery(left.0));
    assert_eq!(lane.pick_newest().unwrap().id, left);
    assert_eq!(lane.pick_newest().unwrap().id, DeliveryId(WINDOW_MAX as i64));
    // It is cancelled, or it is released with the waiting ones.
    for change in [|lane: &mut Lane, left| lane.cancel(left), |lane: &mut Lane, _| drop(lane.release_waiting())] {
        let mut lane = full();
        change(&mut lane, left);
        assert_ne!(lane.pick_newest().map(|delivery| delivery.id), Some(left));
    }
}

#[test]
fn waiting_deliveries_of_a_cancelled_replay_are_forgotten() {
    let of = |id, replay| ReadyDelivery { replay: Some(ReplayId(replay)), ..delivery(id) };
    let mut lane = Lane::default();
    for one in [of(1, 7), of(2, 8), of(3, 7)] {
        lane.offer(one);
    }
    lane.start_retry_load();
    lane.retries_loaded(vec![of(4, 7)], None);
    assert_eq!(lane.pick().unwrap().id, DeliveryId(1));
    lane.keep_newest(of(5, 7));
    lane.forget_replay(ReplayId(7));
    assert_eq!((lane.waiting(), lane.started()), (1, vec![DeliveryId(1)]));
    assert_eq!(lane.pick_newest().unwrap().id, DeliveryId(2));
}
