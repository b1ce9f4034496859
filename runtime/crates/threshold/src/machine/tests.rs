use super::*;

fn at(second: i64) -> Moment {
    Moment { wall_ms: 1_700_000_000_000 + second * 1_000, mono_us: second * 1_000_000 }
}

fn disk() -> Rules {
    Rules { thresholds: Thresholds::rising(80.0, 90.0).clear(5.0), ..Rules::default() }
}

/// Observes one reading per second, starting at the second `from`. Returns for each change: the second, the old state
/// and the new state.
fn changes(machine: &mut Machine, rules: &Rules, from: i64, samples: &[Sample]) -> Vec<(i64, State, State)> {
    let seconds = samples.iter().zip(from..);
    let observed = seconds.filter_map(|(sample, second)| Some((second, machine.observe(rules, at(second), *sample)?)));
    observed.map(|(second, change)| (second, change.from, change.to)).collect()
}

fn values(values: &[f64]) -> Vec<Sample> {
    values.iter().map(|value| Sample::value(*value)).collect()
}

use State::{Critical, Ok, Unknown, Warning};

#[test]
fn each_change_of_state_is_told_once_with_its_duration() {
    let mut machine = Machine::new(at(0));
    let readings = values(&[50.0, 85.0, 85.0, 95.0, 86.0, 84.0, 76.0, 74.0, 74.0]);
    let expected = [(1, Ok, Warning), (3, Warning, Critical), (5, Critical, Warning), (7, Warning, Ok)];
    assert_eq!(changes(&mut machine, &disk(), 0, &readings), expected);
    let change = machine.observe(&disk(), at(20), Sample::value(99.0)).unwrap();
    assert_eq!((change.since, change.lasted_ms, change.missed), (at(20), 13_000, false));
}

#[test]
fn a_state_lasts_no_less_than_the_hold_time() {
    let rules = Rules { hold_ms: 2_000, ..disk() };
    let mut machine = Machine::new(at(0));
    // Rounded down to milliseconds, the second reading is 2,000 ms after the first.
    let mut observe = |mono_us: i64| machine.observe(&rules, Moment { mono_us, ..at(0) }, Sample::value(95.0));
    assert_eq!(observe(999), None);
    assert_eq!(observe(2_000_998), None);
    assert_eq!(observe(2_000_999).map(|change| change.to), Some(Critical));
}

#[test]
fn a_state_counts_after_all_readings_of_the_hold_time() {
    let rules = Rules { hold_ms: 3_000, ..disk() };
    let mut machine = Machine::new(at(0));
    let readings = values(&[85.0, 85.0, 70.0, 85.0, 85.0, 95.0, 85.0, 70.0, 70.0, 85.0, 70.0, 70.0, 70.0, 70.0]);
    // The readings from second 3 to 6 support a warning, also the critical reading at second 5. The readings from
    // second 10 to 13 support ok.
    assert_eq!(changes(&mut machine, &rules, 0, &readings), [(6, Ok, Warning), (13, Warning, Ok)]);
    assert_eq!(machine.since(), at(10), "the state must count from its first reading");
}

#[test]
fn a_rise_through_both_thresholds_is_held_for_each() {
    let rules = Rules { hold_ms: 3_000, ..disk() };
    let mut machine = Machine::new(at(0));
    let readings = values(&[85.0, 85.0, 95.0, 95.0, 95.0, 95.0, 95.0]);
    assert_eq!(changes(&mut machine, &rules, 0, &readings), [(3, Ok, Warning), (5, Warning, Critical)]);
}

#[test]
fn no_reading_is_unknown_and_the_next_one_ends_it() {
    let mut machine = Machine::new(at(0));
    let samples = [Sample::value(10.0), Sample::Missing, Sample::Missing, Sample::value(95.0), Sample::value(10.0)];
    let expected = [(1, Ok, Unknown), (3, Unknown, Critical), (4, Critical, Ok)];
    assert_eq!(changes(&mut machine, &disk(), 0, &samples), expected);
}

#[test]
fn a_level_of_the_check_is_the_least_that_counts() {
    let mut machine = Machine::new(at(0));
    let both = Sample::Read { value: Some(95.0), at_least: Level::Warning };
    let samples = [Sample::level(Level::Warning), both, Sample::level(Level::Ok)];
    let expected = [(0, Ok, Warning), (1, Warning, Critical), (2, Critical, Ok)];
    assert_eq!(changes(&mut machine, &disk(), 0, &samples), expected);
}

#[test]
fn a_restart_tells_what_changed_meanwhile_and_nothing_else() {
    let mut machine = Machine::new(at(0));
    machine.observe(&disk(), at(10), Sample::value(85.0)).unwrap();
    let saved = machine.saved(at(10));

    let mut same = Machine::restore(&saved, at(100));
    // 76 is within the hysteresis of the stored warning: below 80, but not below 75.
    assert_eq!(changes(&mut same, &disk(), 100, &values(&[76.0, 85.0])), []);
    let later = same.observe(&disk(), at(102), Sample::value(10.0)).unwrap();
    assert_eq!((later.missed, later.lasted_ms), (false, 92_000), "only a change at the first reading is missed");

    let mut changed = Machine::restore(&saved, at(100));
    let change = changed.observe(&disk(), at(100), Sample::value(95.0)).unwrap();
    assert_eq!((change.from, change.to, change.missed), (Warning, Critical, true));

    let held = Rules { hold_ms: 3_000, ..disk() };
    let mut changed = Machine::restore(&saved, at(100));
    assert_eq!(changes(&mut changed, &held, 100, &values(&[95.0, 95.0, 95.0])), []);
    assert!(changed.observe(&held, at(103), Sample::value(95.0)).unwrap().missed);
}

#[test]
fn a_machine_survives_the_way_through_its_stored_form() {
    let rules = Rules { flap: Some(Flap { changes: 3, within_ms: 60_000 }), ..disk() };
    let mut machine = Machine::new(at(0));
    changes(&mut machine, &rules, 1, &values(&[95.0, 10.0, 95.0]));
    let saved = machine.saved(at(4));
    assert!(saved.flapping);
    assert_eq!(Machine::restore(&saved, at(50)).saved(at(50)), saved);
}

#[test]
fn a_flapping_thing_is_told_once_and_again_when_it_settles() {
    let rules = Rules { flap: Some(Flap { changes: 4, within_ms: 60_000 }), ..disk() };
    let mut machine = Machine::new(at(0));
    let mut told = Vec::new();
    for second in 0..30 {
        let value = if second % 2 == 0 { 95.0 } else { 10.0 };
        told.extend(machine.observe(&rules, at(second), Sample::value(value)).map(|change| (second, change.kind)));
    }
    use ChangeKind::{Changed, Flapping, Settled};
    assert_eq!(told, [(0, Changed), (1, Changed), (2, Changed), (3, Flapping)]);
    assert_eq!(machine.state(), Ok);
    told.clear();
    for second in 30..200 {
        told.extend(machine.observe(&rules, at(second), Sample::value(95.0)).map(|change| (second, change.kind)));
    }
    // The last four changes are at seconds 27 to 30. From second 88 on, only two of them are within the last 60 s.
    assert_eq!(told, [(88, Settled)]);
}

#[test]
fn a_reminder_comes_at_each_interval_while_the_state_lasts() {
    let rules = Rules { repeat_ms: Some(10_000), ..disk() };
    let mut machine = Machine::new(at(0));
    let mut told = Vec::new();
    for second in 0..40 {
        let value = if (5..30).contains(&second) { 85.0 } else { 10.0 };
        told.extend(machine.observe(&rules, at(second), Sample::value(value)).map(|change| (second, change.kind)));
    }
    use ChangeKind::{Changed, Reminder};
    assert_eq!(told, [(5, Changed), (15, Reminder), (25, Reminder), (30, Changed)]);
}

#[test]
fn a_reminder_is_due_by_the_time_of_the_last_one_also_after_a_restart() {
    let rules = Rules { repeat_ms: Some(3_600_000), ..disk() };
    let mut machine = Machine::new(at(0));
    machine.observe(&rules, at(0), Sample::value(85.0)).unwrap();
    let saved = machine.saved(at(0));
    let mut restarted = Machine::restore(&saved, at(3_000));
    assert_eq!(restarted.observe(&rules, at(3_000), Sample::value(85.0)), None);
    let reminder = restarted.observe(&rules, at(3_600), Sample::value(85.0)).unwrap();
    assert_eq!((reminder.kind, reminder.lasted_ms), (ChangeKind::Reminder, 3_600_000));
}

#[test]
fn a_jump_of_the_wall_clock_changes_no_wait() {
    let rules = Rules { hold_ms: 5_000, ..disk() };
    let mut machine = Machine::new(at(0));
    let jumped =
        |second: i64, by_hours: i64| Moment { wall_ms: at(second).wall_ms + by_hours * 3_600_000, ..at(second) };
    assert_eq!(machine.observe(&rules, at(0), Sample::value(95.0)), None);
    assert_eq!(machine.observe(&rules, jumped(1, 1_000), Sample::value(95.0)), None);
    assert_eq!(machine.observe(&rules, jumped(4, -1_000), Sample::value(95.0)), None);
    let change = machine.observe(&rules, jumped(5, -1_000), Sample::value(95.0)).unwrap();
    assert_eq!((change.since, change.lasted_ms), (at(0), 0));
    // A stored time in the future becomes the current time.
    let saved = machine.saved(at(5));
    let restarted = Machine::restore(&saved, jumped(6, -10_000));
    assert_eq!(restarted.since().mono_us, at(6).mono_us);
}

#[test]
fn a_deviation_is_a_warning() {
    let deviation = Some(Deviation { sigmas: 3.0, over_ms: 100_000 });
    let rules = Rules { deviation, ..Rules::default() };
    let mut machine = Machine::new(at(0));
    let usual: Vec<f64> = (0..200).map(|n| 100.0 + f64::from(n % 5)).collect();
    assert_eq!(changes(&mut machine, &rules, 0, &values(&usual)), []);
    assert_eq!(changes(&mut machine, &rules, 200, &values(&[150.0, 101.0])), [(200, Ok, Warning), (201, Warning, Ok)]);
    // With `learn`, readings from before a restart fill the baseline, so that a first new reading can deviate.
    let mut restarted = Machine::restore(&machine.saved(at(202)), at(202));
    usual.iter().zip(0..).for_each(|(value, second)| restarted.learn(&rules, at(second).mono_ms(), *value));
    assert_eq!(changes(&mut restarted, &rules, 203, &values(&[150.0])), [(203, Ok, Warning)]);
}
