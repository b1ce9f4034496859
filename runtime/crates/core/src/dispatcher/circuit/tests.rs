use super::*;

fn failed() -> Outcome {
    Outcome::EndpointFailed { message: "503".into(), after: None }
}

/// A circuit and the current time, which the methods advance.
struct Fixture {
    circuit: Circuit,
    now: Instant,
    next: i64,
}

impl Fixture {
    fn new(interval: Duration) -> Self {
        Self { circuit: Circuit::new(CircuitPolicy { interval }), now: Instant::now(), next: 0 }
    }

    /// Starts and ends a delivery that takes no time.
    fn run(&mut self, outcome: &Outcome) -> Ended {
        self.run_result(&outcome.clone().into())
    }

    fn run_result(&mut self, result: &AttemptResult) -> Ended {
        assert!(self.circuit.may_start(self.now));
        self.next += 1;
        let id = DeliveryId(self.next);
        self.circuit.started(id, self.now);
        self.circuit.ended(id, result, true, self.now, 7)
    }

    /// Waits until a delivery may start, and returns the wait.
    fn wait(&mut self) -> Duration {
        if self.circuit.may_start(self.now) {
            return Duration::ZERO;
        }
        let at = self.circuit.wakes_at(self.now).unwrap();
        let waited = at - self.now;
        self.now = at;
        waited
    }

    fn open(&mut self) {
        (0..OPEN_AFTER).for_each(|_| assert_eq!(self.run(&failed()), Ended::Counted));
        assert!(self.circuit.is_open());
    }

    /// Opens the circuit, and lets the first probe succeed.
    fn recover(&mut self) {
        self.open();
        self.wait();
        self.run(&Outcome::Done);
    }
}

#[test]
fn failures_in_a_row_open_the_circuit_and_others_do_not() {
    let mut fixture = Fixture::new(Duration::ZERO);
    let timeout = Outcome::Timeout { limit: Duration::from_secs(1) };
    for ends in [Outcome::Done, Outcome::Reject { message: "404".into() }] {
        (1..OPEN_AFTER).for_each(|_| assert_eq!(fixture.run(&failed()), Ended::Counted));
        fixture.run(&ends);
        assert!(!fixture.circuit.is_open());
    }
    // The outcome of an attempt that sent no request does not count.
    for outcome in [&failed(), &timeout, &Outcome::Denied { message: String::new() }, &failed(), &failed()] {
        fixture.run(outcome);
        assert!(!fixture.circuit.is_open());
    }
    fixture.run(&timeout);
    let open = fixture.circuit.open(fixture.now).unwrap();
    assert_eq!((open.since_ms, open.failures, open.outcome.as_str()), (7, 5, "timeout"));
    assert_eq!(open.next_probe, Some(PROBE_WAIT_MIN));
}

#[test]
fn a_reject_without_a_response_is_no_proof_that_the_endpoint_is_up() {
    let mut fixture = Fixture::new(Duration::ZERO);
    let not_sent = || AttemptResult { responded: false, ..Outcome::Reject { message: "no `data.id`".into() }.into() };
    for at in 0..OPEN_AFTER {
        assert!(!fixture.circuit.is_open(), "{at} failures");
        assert_eq!(fixture.run_result(&not_sent()), Ended::Counted);
        fixture.run(&failed());
    }
    assert!(fixture.circuit.is_open());
    // As a probe, such a delivery leaves the circuit open, and another delivery becomes the probe without a wait.
    fixture.wait();
    assert_eq!(fixture.run_result(&not_sent()), Ended::Counted);
    assert!(fixture.circuit.is_open());
    assert_eq!(fixture.wait(), Duration::ZERO);
    assert_eq!(fixture.run(&failed()), Ended::FailedProbe);
    // A delivery that the endpoint fails does not count as refused, because the endpoint accepted no other.
    let mut circuit = Circuit::new(CircuitPolicy::default());
    for at in 0..OPEN_AFTER {
        assert!(!circuit.is_open(), "{at} failures");
        circuit.ended(DeliveryId(1), &failed().into(), true, fixture.now, 7);
        circuit.ended(DeliveryId(2 + i64::from(at)), &not_sent(), true, fixture.now, 7);
    }
    assert!(circuit.is_open());
}

#[test]
fn one_probe_at_a_time_runs_after_waits_that_double_up_to_the_longest() {
    let mut fixture = Fixture::new(Duration::ZERO);
    fixture.open();
    let mut waits = Vec::new();
    for _ in 0..9 {
        waits.push(fixture.wait().as_secs());
        fixture.circuit.started(DeliveryId(100), fixture.now);
        assert!(!fixture.circuit.may_start(fixture.now + HOLD_MAX), "a probe is running");
        assert_eq!(fixture.circuit.wakes_at(fixture.now), None);
        let ended = fixture.circuit.ended(DeliveryId(100), &failed().into(), true, fixture.now, 8);
        assert_eq!(ended, Ended::FailedProbe);
    }
    assert_eq!(waits, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
    assert_eq!(fixture.circuit.open(fixture.now).unwrap().failures, OPEN_AFTER + 9);
}

#[test]
fn a_probe_that_did_not_start_or_did_not_ask_the_endpoint_leaves_room_for_another() {
    let mut fixture = Fixture::new(Duration::ZERO);
    fixture.open();
    fixture.wait();
    fixture.circuit.started(DeliveryId(100), fixture.now);
    fixture.circuit.not_started(DeliveryId(99));
    assert!(!fixture.circuit.may_start(fixture.now));
    fixture.circuit.not_started(DeliveryId(100));
    assert_eq!(fixture.run(&Outcome::Denied { message: String::new() }), Ended::Counted);
    assert!(fixture.circuit.may_start(fixture.now) && fixture.circuit.is_open());
}

#[test]
fn an_attempt_from_before_the_opening_counts_when_it_fails_and_closes_when_it_succeeds() {
    let mut fixture = Fixture::new(Duration::ZERO);
    for id in [100, 101] {
        fixture.circuit.started(DeliveryId(id), fixture.now);
    }
    fixture.open();
    assert_eq!(fixture.circuit.ended(DeliveryId(100), &failed().into(), true, fixture.now, 8), Ended::Counted);
    assert!(fixture.circuit.is_open());
    assert_eq!(fixture.circuit.ended(DeliveryId(101), &Outcome::Done.into(), true, fixture.now, 8), Ended::Counted);
    assert!(!fixture.circuit.is_open());
}

#[test]
fn after_a_successful_probe_the_rate_doubles_every_second() {
    let mut fixture = Fixture::new(Duration::ZERO);
    fixture.recover();
    assert!(!fixture.circuit.is_open());
    let recovered = fixture.now;
    let mut starts = [0; 5];
    while let Some(count) = starts.get_mut((fixture.now - recovered).as_secs() as usize) {
        fixture.run(&Outcome::Done);
        *count += 1;
        fixture.wait();
    }
    for (second, count) in starts.into_iter().enumerate() {
        let expected = 10 << second;
        assert!((expected..=expected + 2).contains(&count), "{count} starts in second {second}");
    }
    fixture.now = recovered + RECOVERY;
    (0..100).for_each(|_| assert_eq!(fixture.run(&Outcome::Done), Ended::Counted));
}

#[test]
fn a_failure_during_the_recovery_opens_the_circuit_again_and_later_a_single_one_does_not() {
    let mut fixture = Fixture::new(Duration::ZERO);
    fixture.recover();
    fixture.wait();
    let no_response = || AttemptResult { responded: false, ..failed().into() };
    assert_eq!(fixture.run_result(&no_response()), Ended::Counted);
    assert!(fixture.circuit.is_open());
    fixture.wait();
    fixture.run(&Outcome::Done);
    fixture.now += RECOVERY;
    fixture.run_result(&no_response());
    assert!(!fixture.circuit.is_open());
}

#[test]
fn a_refused_delivery_during_the_recovery_does_not_open_the_circuit_and_several_in_a_row_do() {
    let mut fixture = Fixture::new(Duration::ZERO);
    fixture.recover();
    for _ in 1..OPEN_AFTER {
        assert!(!fixture.circuit.is_open());
        fixture.wait();
        assert_eq!(fixture.run(&failed()), Ended::Counted);
    }
    fixture.wait();
    fixture.run(&failed());
    assert!(fixture.circuit.is_open());
}

#[test]
fn probes_are_in_turn_the_newest_delivery_and_the_one_that_waited_longest() {
    let mut fixture = Fixture::new(Duration::ZERO);
    assert!(!fixture.circuit.probes_newest());
    fixture.open();
    for is_newest in [true, false, true, false] {
        assert_eq!(fixture.circuit.probes_newest(), is_newest);
        fixture.wait();
        assert_eq!(fixture.run(&failed()), Ended::FailedProbe);
    }
}

#[test]
fn a_rate_spaces_starts_and_late_ones_are_caught_up() {
    let mut fixture = Fixture::new(Duration::from_millis(4));
    for _ in 0..10 {
        fixture.run(&Outcome::Done);
        assert_eq!(fixture.wait(), Duration::from_millis(4));
    }
    // 9 ms late: three deliveries start together, because their planned starts are 4 ms apart. Also after a long pause,
    // no more than three start together.
    for late in [Duration::from_millis(9), Duration::from_secs(60)] {
        fixture.now += late;
        let at_once = std::iter::repeat_with(|| {
            fixture.circuit.may_start(fixture.now) && {
                fixture.run(&Outcome::Done);
                true
            }
        });
        assert_eq!(at_once.take_while(|started| *started).count(), 3, "{late:?}");
        fixture.wait();
    }
}

#[test]
fn a_wait_that_the_endpoint_asks_for_holds_everything_up_to_a_limit() {
    let mut fixture = Fixture::new(Duration::ZERO);
    let asks = |seconds| Outcome::EndpointFailed { message: "429".into(), after: Some(Duration::from_secs(seconds)) };
    fixture.run(&asks(30));
    assert!(!fixture.circuit.is_open());
    assert_eq!(fixture.wait(), Duration::from_secs(30));
    fixture.run(&asks(u64::MAX / 2_000_000_000));
    assert_eq!(fixture.wait(), HOLD_MAX);
    fixture.run(&Outcome::Done);
    fixture.open();
    fixture.wait();
    assert_eq!(fixture.run(&asks(300)), Ended::FailedProbe);
    assert_eq!(fixture.wait(), Duration::from_secs(300));
    // A reload can name another endpoint, so the wait ends.
    fixture.run(&asks(300));
    fixture.circuit.replace_policy(CircuitPolicy::default());
    assert_eq!(fixture.wait(), Duration::ZERO);
}

#[test]
fn a_wait_that_the_endpoint_asks_for_holds_everything_also_after_it_refused_one_delivery_often() {
    let mut circuit = Circuit::new(CircuitPolicy::default());
    let (refused, now) = (DeliveryId(1), Instant::now());
    for other in 2..8 {
        circuit.ended(refused, &failed().into(), true, now, 7);
        circuit.ended(DeliveryId(other), &Outcome::Done.into(), true, now, 7);
    }
    let after = Some(Duration::from_secs(30));
    circuit.ended(refused, &Outcome::EndpointFailed { message: "429".into(), after }.into(), true, now, 7);
    assert!(!circuit.is_open() && !circuit.may_start(now));
    assert!(circuit.may_start(now + Duration::from_secs(30)));
}

#[test]
fn failures_that_runtime_events_caused_are_not_reported() {
    let mut circuit = Circuit::new(CircuitPolicy::default());
    let now = Instant::now();
    for id in 1..=10 {
        circuit.ended(DeliveryId(id), &failed().into(), false, now, 7);
    }
    assert!(!circuit.open(now).unwrap().is_reported);
    circuit.ended(DeliveryId(11), &failed().into(), true, now, 7);
    assert!(circuit.open(now).unwrap().is_reported);
    circuit.ended(DeliveryId(12), &Outcome::Done.into(), true, now, 7);
    assert_eq!(circuit.open(now), None);
    assert!(Circuit::open_since(CircuitPolicy::default(), 3).open(now).unwrap().is_reported);
}

#[test]
fn a_probe_that_this_side_could_not_send_waits_and_does_not_count() {
    let mut fixture = Fixture::new(Duration::ZERO);
    let not_sent = || AttemptResult { responded: false, ..Outcome::Unavailable { message: "busy".into() }.into() };
    assert_eq!(fixture.run_result(&not_sent()), Ended::Counted);
    fixture.open();
    for _ in 0..3 {
        assert_eq!(fixture.wait(), PROBE_WAIT_MIN);
        assert_eq!(fixture.run_result(&not_sent()), Ended::FailedProbe);
    }
}
