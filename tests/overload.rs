//! Overload: excess events are refused before the acknowledgement with a retry time; acknowledged events are handled.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::assert_eventually;
use crate::faults::random::is_long_form;
use crate::support::{Evoke, Response, post};

/// The function handles about 100 deliveries per second, so few that clients on the same machine can send ten times as
/// many.
const MANIFEST: &str = r#"
evoke: 1
app: lab
sources:
  flood:
    http: { path: /flood, type: lab.in }
  quiet:
    http: { path: /quiet, type: lab.in }
functions:
  witness:
    component: $FUNCTIONS/witness.wasm
    on:
      - events: { type: [lab.in] }
    concurrency: 2
    allow: { publish: ["witnessed"] }
"#;
const BODY: &str = r#"{"ms":20}"#;
const PENDING_MAX: u64 = 600;
const CLIENTS: usize = 4;

fn send(address: &str, path: &str) -> Response {
    post(address, path, &[("content-type", "application/json")], BODY).unwrap()
}

fn id(response: &Response) -> String {
    response.json()["events"][0]["id"].as_str().unwrap().to_owned()
}

/// The totals of all clients.
#[derive(Default)]
struct ClientTotals {
    offered: AtomicUsize,
    acknowledged: Mutex<HashSet<String>>,
    statuses: Mutex<std::collections::BTreeMap<u16, usize>>,
}

/// The long form runs for two minutes: `EVOKE_CAMPAIGN=long cargo test -p evoke --test blackbox overload`.
#[test]
fn ten_times_the_load_keeps_memory_flat_and_goodput_high_and_loses_nothing_acknowledged() {
    let time = Duration::from_secs(if is_long_form() { 120 } else { 8 });
    let mut evoke = Evoke::with(MANIFEST);
    evoke.up_with_arguments(&["--pending-max", &PENDING_MAX.to_string()]);
    let address = evoke.http().to_owned();

    // The peak rate: there is always work, and no overload.
    let started = Instant::now();
    let mut all: HashSet<String> = (0..200).map(|_| id(&send(&address, "/flood"))).collect();
    assert_eventually!(evoke.done_count("lab/witness") >= 200, "the first 200 events are not done");
    let peak = 200.0 / started.elapsed().as_secs_f64();

    let (totals, stop) = (ClientTotals::default(), AtomicBool::new(false));
    let interval = Duration::from_secs_f64(CLIENTS as f64 / (11.0 * peak));
    let (mut goodput, mut rss) = (0.0, (0, 0));
    let mut quiet_latencies = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut next = Instant::now();
                while !stop.load(Ordering::Relaxed) {
                    // The send rate is fixed and does not depend on the responses.
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += interval;
                    let response = send(&address, "/flood");
                    totals.offered.fetch_add(1, Ordering::Relaxed);
                    *totals.statuses.lock().unwrap().entry(response.status).or_default() += 1;
                    match response.status {
                        202 => drop(totals.acknowledged.lock().unwrap().insert(id(&response))),
                        429 | 503 => {
                            let after: u64 = response.headers["retry-after"].to_str().unwrap().parse().unwrap();
                            assert!((1..=60).contains(&after), "{response:?}");
                        }
                        _ => panic!("{response:?}"),
                    }
                }
            });
        }
        let refused = || totals.statuses.lock().unwrap().get(&429).copied().unwrap_or_default() > 100;
        assert_eventually!(refused(), "no event is refused: {:?}", totals.statuses.lock().unwrap());
        let (started, done_before, offered_before) =
            (Instant::now(), evoke.done_count("lab/witness"), totals.offered.load(Ordering::Relaxed));
        rss.0 = evoke.rss_kib();
        while started.elapsed() < time {
            // A source with a low rate is accepted throughout.
            let sent = Instant::now();
            let response = send(&address, "/quiet");
            assert_eq!(response.status, 202, "{response:?}");
            quiet_latencies.push(sent.elapsed());
            all.insert(id(&response));
            std::thread::sleep(Duration::from_millis(200));
        }
        let elapsed = started.elapsed().as_secs_f64();
        goodput = (evoke.done_count("lab/witness") - done_before) as f64 / elapsed;
        rss.1 = evoke.rss_kib();
        let load = (totals.offered.load(Ordering::Relaxed) - offered_before) as f64 / elapsed / peak;
        stop.store(true, Ordering::Relaxed);
        quiet_latencies.sort();
        println!(
            "peak {peak:.0}/s, load {load:.1} times that: goodput {goodput:.0}/s, statuses {:?}; \
             rss {} KiB before, {} after; the quiet source waited {:?} (median), {:?} (maximum)",
            totals.statuses.lock().unwrap(),
            rss.0,
            rss.1,
            quiet_latencies[quiet_latencies.len() / 2],
            quiet_latencies[quiet_latencies.len() - 1]
        );
        assert!(load >= 9.0, "the clients are too slow for this test: {load:.1}");
    });
    assert!(goodput >= 0.8 * peak, "{goodput:.0} of {peak:.0} deliveries a second");
    assert!(rss.1 < rss.0 + 16 * 1024, "{} KiB before, {} after", rss.0, rss.1);

    all.extend(totals.acknowledged.into_inner().unwrap());
    evoke.settle();
    let stored: HashSet<String> =
        evoke.events("lab.in").iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert!(stored == all, "{} acknowledged, {} stored", all.len(), stored.len());
    assert_eq!(evoke.delivery_count("done"), all.len() as u64);
}
