use super::*;

fn cron(expr: &str, timezone: &str) -> Times {
    Times::new(&Schedule::Cron { expr: expr.into(), timezone: timezone.into() }).unwrap()
}

fn at(text: &str) -> UnixMs {
    text.parse::<Timestamp>().unwrap().as_millisecond()
}

/// Returns the instants after `from` and until `until`, in the local time of the zone with its offset at that time.
fn ticks(expr: &str, timezone: &str, from: &str, until: &str) -> Vec<String> {
    let times = cron(expr, timezone);
    std::iter::successors(times.after(at(from)), |at| times.after(*at))
        .take_while(|found| *found <= at(until))
        .map(|found| {
            let zoned = Timestamp::from_millisecond(found).unwrap().to_zoned(TimeZone::get(timezone).unwrap());
            zoned.strftime("%m-%dT%H:%M:%S%:z").to_string()
        })
        .collect()
}

/// Time zone, start, end, cron expression, and the expected ticks.
type Case = (&'static str, &'static str, &'static str, &'static str, &'static [&'static str]);

fn check(cases: &[Case]) {
    for (zone, from, until, expr, expected) in cases {
        assert_eq!(ticks(expr, zone, from, until), *expected, "{expr} in {zone}");
    }
}

#[test]
fn one_time_a_day_ticks_once_on_a_day_with_a_gap() {
    check(&[
        (
            "America/New_York",
            "2025-03-09T05:00:00Z",
            "2025-03-10T12:00:00Z",
            "30 2 * * *",
            &["03-09T03:00:00-04:00", "03-10T02:30:00-04:00"],
        ),
        (
            "Europe/Berlin",
            "2025-03-29T12:00:00Z",
            "2025-03-31T12:00:00Z",
            "30 2 * * *",
            &["03-30T03:00:00+02:00", "03-31T02:30:00+02:00"],
        ),
        (
            "Europe/Berlin",
            "2025-03-29T12:00:00Z",
            "2025-03-31T12:00:00Z",
            "59 59 1 * * *",
            &["03-30T01:59:59+01:00", "03-31T01:59:59+02:00"],
        ),
        (
            "Australia/Lord_Howe",
            "2025-10-04T12:00:00Z",
            "2025-10-06T00:00:00Z",
            "15 2 * * *",
            &["10-05T02:30:00+11:00", "10-06T02:15:00+11:00"],
        ),
        (
            "Africa/Casablanca",
            "2025-04-05T12:00:00Z",
            "2025-04-07T12:00:00Z",
            "30 2 * * *",
            &["04-06T03:00:00+01:00", "04-07T02:30:00+01:00"],
        ),
    ]);
}

#[test]
fn one_time_a_day_ticks_once_on_a_day_on_which_it_occurs_twice() {
    check(&[
        (
            "America/New_York",
            "2025-11-01T12:00:00Z",
            "2025-11-03T12:00:00Z",
            "30 1 * * *",
            &["11-02T01:30:00-04:00", "11-03T01:30:00-05:00"],
        ),
        (
            "Europe/Berlin",
            "2025-10-25T12:00:00Z",
            "2025-10-27T12:00:00Z",
            "30 2 * * *",
            &["10-26T02:30:00+02:00", "10-27T02:30:00+01:00"],
        ),
        (
            "Australia/Lord_Howe",
            "2025-04-05T12:00:00Z",
            "2025-04-07T00:00:00Z",
            "45 1 * * *",
            &["04-06T01:45:00+11:00", "04-07T01:45:00+10:30"],
        ),
        (
            "Africa/Casablanca",
            "2025-02-22T12:00:00Z",
            "2025-02-24T12:00:00Z",
            "30 2 * * *",
            &["02-23T02:30:00+01:00", "02-24T02:30:00+00:00"],
        ),
    ]);
}

#[test]
fn several_times_a_day_follow_the_wall_clock_over_a_gap() {
    check(&[
        (
            "America/New_York",
            "2025-03-09T05:30:00Z",
            "2025-03-09T08:00:00Z",
            "*/30 * * * *",
            &[
                "03-09T01:00:00-05:00",
                "03-09T01:30:00-05:00",
                "03-09T03:00:00-04:00",
                "03-09T03:30:00-04:00",
                "03-09T04:00:00-04:00",
            ],
        ),
        (
            "Europe/Berlin",
            "2025-03-29T23:00:00Z",
            "2025-03-30T02:00:00Z",
            "0 * * * *",
            &["03-30T01:00:00+01:00", "03-30T03:00:00+02:00", "03-30T04:00:00+02:00"],
        ),
        (
            "Australia/Lord_Howe",
            "2025-10-04T14:30:00Z",
            "2025-10-04T16:00:00Z",
            "0,30 1-3 * * *",
            &["10-05T01:30:00+10:30", "10-05T02:30:00+11:00", "10-05T03:00:00+11:00"],
        ),
        (
            "Africa/Casablanca",
            "2025-04-06T00:45:00Z",
            "2025-04-06T02:30:00Z",
            "0,30 1-3 * * *",
            &["04-06T01:00:00+00:00", "04-06T01:30:00+00:00", "04-06T03:00:00+01:00", "04-06T03:30:00+01:00"],
        ),
    ]);
}

#[test]
fn several_times_a_day_follow_the_wall_clock_through_a_repeated_hour() {
    check(&[
        (
            "America/New_York",
            "2025-11-02T04:30:00Z",
            "2025-11-02T07:00:00Z",
            "*/30 * * * *",
            &[
                "11-02T01:00:00-04:00",
                "11-02T01:30:00-04:00",
                "11-02T01:00:00-05:00",
                "11-02T01:30:00-05:00",
                "11-02T02:00:00-05:00",
            ],
        ),
        (
            "Europe/Berlin",
            "2025-10-25T22:30:00Z",
            "2025-10-26T02:00:00Z",
            "0 * * * *",
            &["10-26T01:00:00+02:00", "10-26T02:00:00+02:00", "10-26T02:00:00+01:00", "10-26T03:00:00+01:00"],
        ),
        (
            "Australia/Lord_Howe",
            "2025-04-05T13:45:00Z",
            "2025-04-05T16:00:00Z",
            "*/30 * * * *",
            &[
                "04-06T01:00:00+11:00",
                "04-06T01:30:00+11:00",
                "04-06T01:30:00+10:30",
                "04-06T02:00:00+10:30",
                "04-06T02:30:00+10:30",
            ],
        ),
        (
            "Africa/Casablanca",
            "2025-02-23T00:30:00Z",
            "2025-02-23T03:00:00Z",
            "*/30 2 * * *",
            &["02-23T02:00:00+01:00", "02-23T02:30:00+01:00", "02-23T02:00:00+00:00", "02-23T02:30:00+00:00"],
        ),
    ]);
}

#[test]
fn a_date_that_a_zone_skips_does_not_tick_and_the_next_one_does() {
    check(&[
        (
            "Pacific/Apia",
            "2011-12-29T00:00:00Z",
            "2012-01-01T10:00:00Z",
            "30 2 * * *",
            &["12-29T02:30:00-10:00", "12-31T02:30:00+14:00", "01-01T02:30:00+14:00"],
        ),
        (
            "Pacific/Apia",
            "2011-12-30T08:30:00Z",
            "2011-12-30T11:00:00Z",
            "0 * * * *",
            &["12-29T23:00:00-10:00", "12-31T00:00:00+14:00", "12-31T01:00:00+14:00"],
        ),
        ("Pacific/Apia", "2011-12-01T00:00:00Z", "2012-12-31T00:00:00Z", "0 12 30 12 *", &["12-30T12:00:00+14:00"]),
    ]);
}

#[test]
fn a_schedule_that_has_ended_has_no_next_instant() {
    assert_eq!(cron("0 0 12 1 1 * 2020", "UTC").after(at("2021-01-01T00:00:00Z")), None);
}

/// Clock changes of many kinds: gaps and repeated times of half an hour, one hour, two hours and a day; at night, at
/// midnight and in winter.
const CLOCK_CHANGES: [(&str, &str); 12] = [
    ("Europe/Berlin", "2025-10-25T12:00:00Z"),
    ("Europe/Berlin", "2025-03-29T12:00:00Z"),
    ("Australia/Lord_Howe", "2025-10-04T03:00:00Z"),
    ("Australia/Lord_Howe", "2025-04-05T03:00:00Z"),
    ("America/Sao_Paulo", "2017-10-14T15:00:00Z"),
    ("America/Sao_Paulo", "2018-02-17T15:00:00Z"),
    ("America/Havana", "2025-11-01T16:00:00Z"),
    ("Asia/Beirut", "2022-03-26T10:00:00Z"),
    ("Antarctica/Troll", "2025-03-29T12:00:00Z"),
    ("Antarctica/Troll", "2025-10-25T12:00:00Z"),
    ("Europe/Dublin", "2025-10-25T12:00:00Z"),
    ("Pacific/Apia", "2011-12-29T20:00:00Z"),
];

#[test]
fn iterating_gives_the_same_instants_from_any_start() {
    for (zone, day) in CLOCK_CHANGES {
        for expr in [
            "*/20 * * * *",
            "30 0 * * *",
            "30 23 * * *",
            "15 1 * * *",
            "30 2 * * *",
            "0 0 * * *",
            "5,35 0-2 * * SAT,SUN",
        ] {
            let times = cron(expr, zone);
            let start = at(day);
            let all: Vec<UnixMs> = std::iter::successors(times.after(start), |at| times.after(*at)).take(100).collect();
            assert_eq!(all.len(), 100, "{expr} in {zone} must not end");
            for minute in (0..24 * 60).step_by(5) {
                let from = start + minute * 60_000 + 1;
                let next = all.iter().copied().find(|tick| *tick > from);
                assert_eq!(times.after(from), next, "{expr} in {zone} from minute {minute}");
            }
        }
    }
}

/// Compares the instants of a schedule with a simple search: every minute at which the wall clock shows a matching
/// time.
#[test]
fn several_times_of_day_are_those_that_the_wall_clock_shows() {
    for (zone, day) in CLOCK_CHANGES {
        let start = at(day);
        let times = cron("*/15 0-3,22-23 * * *", zone);
        let found: Vec<UnixMs> = std::iter::successors(times.after(start), |at| times.after(*at))
            .take_while(|at| *at < start + 36 * 3_600_000)
            .collect();
        let zone = TimeZone::get(zone).unwrap();
        let shown = (1..36 * 60).map(|minute| start + minute * 60_000).filter(|at| {
            let local = Timestamp::from_millisecond(*at).unwrap().to_zoned(zone.clone());
            local.minute() % 15 == 0 && [0, 1, 2, 3, 22, 23].contains(&local.hour())
        });
        assert_eq!(found, shown.collect::<Vec<_>>(), "{zone:?} {day}");
    }
}

#[test]
fn intervals_are_multiples_of_the_period_since_the_epoch() {
    let times = Times::new(&Schedule::Every { every: std::time::Duration::from_secs(7) }).unwrap();
    assert_eq!(times.after(0), Some(7_000));
    assert_eq!(times.after(6_999), Some(7_000));
    assert_eq!(times.after(7_000), Some(14_000));
    assert_eq!(times.after(-1), Some(0));
    assert_eq!(times.after(UnixMs::MAX), None);
}

fn scheduled(due: &Due) -> Vec<(UnixMs, bool)> {
    due.ticks.iter().map(|tick| (tick.scheduled, tick.missed)).collect()
}

#[test]
fn ticks_missed_during_downtime_follow_the_policy() {
    let times = Times::new(&Schedule::Every { every: std::time::Duration::from_millis(10) }).unwrap();
    for (missed, expected) in [
        (Missed::None, vec![]),
        (Missed::Last, vec![(50, true)]),
        (Missed::All(3), vec![(30, true), (40, true), (50, true)]),
        (Missed::All(1000), vec![(20, true), (30, true), (40, true), (50, true)]),
    ] {
        let due = due(&times, 10, 55, 55, missed, 64);
        assert_eq!(scheduled(&due), expected, "{missed:?}");
        assert_eq!((due.processed, due.next), (55, Some(60)));
    }
}

#[test]
fn instants_that_came_due_while_running_are_never_skipped() {
    let times = Times::new(&Schedule::Every { every: std::time::Duration::from_millis(10) }).unwrap();
    let due = due(&times, 10, 35, 55, Missed::None, 64);
    assert_eq!(scheduled(&due), [(40, false), (50, false)]);
}

#[test]
fn a_truncated_batch_continues_where_it_ended() {
    let times = Times::new(&Schedule::Every { every: std::time::Duration::from_millis(10) }).unwrap();
    for (missed, running_since) in
        [(Missed::All(5), 75), (Missed::All(100), 1000), (Missed::Last, 55), (Missed::None, 0)]
    {
        let whole = due(&times, 10, running_since, 100, missed, 64);
        let (mut last, mut parts) = (10, Vec::new());
        loop {
            let part = due(&times, last, running_since, 100, missed, 2);
            assert!(part.ticks.len() <= 2);
            parts.extend(scheduled(&part));
            last = part.processed;
            if part.next.is_none_or(|next| next > 100) {
                break;
            }
        }
        assert_eq!(parts, scheduled(&whole), "{missed:?}");
    }
}

#[test]
fn the_newest_ticks_of_a_month_of_downtime_are_found_from_its_end() {
    let month = 30 * 86_400_000;
    for (expr, zone) in
        [("* * * * * *", "Europe/Berlin"), ("0 0 29 2 *", "UTC"), ("*/5 9-17 * * 1-5", "America/New_York")]
    {
        let times = cron(expr, zone);
        let from = at("2025-10-10T00:00:00Z");
        let all = due(&times, from, from + month, from + month, Missed::All(50), 100);
        let last = due(&times, from, from + month, from + month, Missed::Last, 100);
        assert_eq!(last.ticks.last(), all.ticks.last());
        for (earlier, later) in all.ticks.iter().zip(all.ticks.iter().skip(1)) {
            assert_eq!(times.after(earlier.scheduled), Some(later.scheduled), "no instant may lie between");
        }
    }
}

#[test]
fn nothing_is_due_after_a_backward_jump() {
    let times = Times::new(&Schedule::Every { every: std::time::Duration::from_millis(10) }).unwrap();
    let due = due(&times, 100, 20, 20, Missed::All(1000), 64);
    assert_eq!((scheduled(&due), due.processed, due.next), (vec![], 100, Some(110)));
}
