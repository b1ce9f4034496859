//! A thousand monitors: their cost and their lateness.
//!
//! `EVOKE_CAMPAIGN=long cargo test --release -p evoke --test blackbox a_thousand_monitors -- --nocapture` measures for a
//! minute; for the figures of the documentation, build with `--profile dist` on an idle machine.

use std::fmt::Write as _;
use std::time::{Duration, Instant};

use crate::assert_eventually;
use crate::faults::random::size;
use crate::support::Evoke;

/// Returns a manifest with this many monitors of all kinds that need no other machine.
fn manifest(count: usize) -> String {
    let mut text = "evoke: 1\napp: host\nsources:\n".to_owned();
    for number in 0..count {
        let monitor = match number % 10 {
            0 => "memory: {}, warning: \"> 100%\"",
            1 => "load: {}, warning: 100000",
            2 => "cpu: {}, warning: \"> 100%\"",
            3 => "swap: {}, warning: \"> 100%\"",
            4 | 5 => "disk: { path: / }, warning: \"> 100%\"",
            6 => "file: { path: ./evoke.yaml, of: age }, warning: 1d",
            7 => "process: { name: blackbox-none }, for: 1h",
            8 => "network: { interface: lo, of: sent }, warning: 1000GiB/s",
            _ => "disk_io: { device: \"*\", of: written }, warning: 1000GiB/s",
        };
        writeln!(text, "  m{number}: {{ monitor: {{ every: 5s, {monitor} }} }}").unwrap();
    }
    text
}

/// Returns the buckets of the lateness: bound in seconds and cumulative count.
fn lateness(evoke: &Evoke) -> Vec<(f64, u64)> {
    let metrics = evoke.get_admin("/metrics", &[]).body;
    let buckets = metrics.lines().filter_map(|line| line.strip_prefix("evoke_monitor_lateness_seconds_bucket{le=\""));
    let parse = |line: &str| {
        let (bound, count) = line.split_once("\"} ").unwrap();
        (bound.parse().unwrap_or(f64::INFINITY), count.trim().parse().unwrap())
    };
    buckets.map(parse).collect()
}

#[test]
fn a_thousand_monitors_cost_little_and_are_on_time() {
    let have_read = |evoke: &Evoke, count| lateness(evoke).last().is_some_and(|(_, read)| *read >= count);
    let one = Evoke::up_with(&manifest(1));
    // The parts of the program that readings and `/metrics` use are in memory then.
    assert_eventually!(have_read(&one, 1), "no reading: {}", one.log());
    let base_kib = one.rss_kib();
    drop(one);
    let evoke = Evoke::up_with(&manifest(1_000));
    assert_eventually!(have_read(&evoke, 1_000), "no readings: {}", evoke.log());
    let (ticks, started, before) = (evoke.cpu_ticks(), Instant::now(), lateness(&evoke));
    let window = Duration::from_secs(size(10, 60) as u64);
    assert_eventually!(started.elapsed() >= window, "the clock does not advance");
    // A tick is a hundredth of a second.
    let cpu = (evoke.cpu_ticks() - ticks) as f64 / started.elapsed().as_secs_f64();
    let after = lateness(&evoke);
    let passed: Vec<(f64, u64)> =
        after.iter().zip(&before).map(|((bound, after), (_, before))| (*bound, after - before)).collect();
    let readings = passed.last().unwrap().1;
    let p99 = passed.iter().find(|(_, count)| *count as f64 >= readings as f64 * 0.99).unwrap().0;
    let memory_mib = (evoke.rss_kib().saturating_sub(base_kib)) as f64 / 1024.0;
    println!(
        "{readings} readings, {cpu:.1} % of a core, {memory_mib:.1} MiB more than one monitor, p99 of the lateness within {p99} s"
    );
    assert!(readings as f64 >= 150.0 * window.as_secs_f64(), "too few readings");
    // On an idle machine, the goal is 3 % and 100 ms; tests run beside others.
    assert!(cpu < 15.0, "{cpu} % of a core");
    assert!(memory_mib < 60.0, "{memory_mib} MiB");
    assert!(p99 <= 1.0, "{p99} s late");
}
