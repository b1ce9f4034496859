//! Overload is refused before the acknowledgement, with the time to come back; what was acknowledged is done.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::assert_eventually;
use crate::faults::random::long;
use crate::support::{Answer, Evoke, post};

/// About a hundred deliveries a second: the clients have to offer ten times as much, on the same machine.
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

fn send(address: &str, path: &str) -> Answer {
    post(address, path, &[("content-type", "application/json")], BODY).unwrap()
}

fn id(answer: &Answer) -> String {
    answer.json()["events"][0]["id"].as_str().unwrap().to_owned()
}

/// What clients saw of the overload.
#[derive(Default)]
struct Seen {
    offered: AtomicUsize,
    acknowledged: Mutex<HashSet<String>>,
    statuses: Mutex<std::collections::BTreeMap<u16, usize>>,
}

/// Promise 19. The long form goes on for two minutes: `EVOKE_CAMPAIGN=long cargo test -p evoke --test blackbox overload`.
#[test]
fn ten_times_the_load_leaves_memory_flat_and_goodput_high_and_loses_nothing_acknowledged() {
    let time = Duration::from_secs(if long() { 120 } else { 8 });
    let mut evoke = Evoke::with(MANIFEST);
    evoke.up_and(&["--pending-max", &PENDING_MAX.to_string()]);
    let address = evoke.http().to_owned();

    // The peak: as much as there is to do, and nobody else who wants something.
    let started = Instant::now();
    let mut all: HashSet<String> = (0..200).map(|_| id(&send(&address, "/flood"))).collect();
    assert_eventually!(evoke.done("lab/witness") >= 200, "it does not get done");
    let peak = 200.0 / started.elapsed().as_secs_f64();

    let (seen, over) = (Seen::default(), AtomicBool::new(false));
    let interval = Duration::from_secs_f64(CLIENTS as f64 / (11.0 * peak));
    let (mut goodput, mut rss) = (0.0, (0, 0));
    let mut quiet = Vec::new();
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                let mut next = Instant::now();
                while !over.load(Ordering::Relaxed) {
                    // Whether it is answered or refused: the next comes at its time.
                    std::thread::sleep(next.saturating_duration_since(Instant::now()));
                    next += interval;
                    let answer = send(&address, "/flood");
                    seen.offered.fetch_add(1, Ordering::Relaxed);
                    *seen.statuses.lock().unwrap().entry(answer.status).or_default() += 1;
                    match answer.status {
                        202 => drop(seen.acknowledged.lock().unwrap().insert(id(&answer))),
                        429 | 503 => {
                            let after: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
                            assert!((1..=60).contains(&after), "{answer:?}");
                        }
                        _ => panic!("{answer:?}"),
                    }
                }
            });
        }
        let refused = || seen.statuses.lock().unwrap().get(&429).copied().unwrap_or_default() > 100;
        assert_eventually!(refused(), "nobody is refused: {:?}", seen.statuses.lock().unwrap());
        let (started, done_before, offered_before) =
            (Instant::now(), evoke.done("lab/witness"), seen.offered.load(Ordering::Relaxed));
        rss.0 = evoke.rss_kib();
        while started.elapsed() < time {
            // Who asks for little is served all the while.
            let asked = Instant::now();
            let answer = send(&address, "/quiet");
            assert_eq!(answer.status, 202, "{answer:?}");
            quiet.push(asked.elapsed());
            all.insert(id(&answer));
            std::thread::sleep(Duration::from_millis(200));
        }
        let elapsed = started.elapsed().as_secs_f64();
        goodput = (evoke.done("lab/witness") - done_before) as f64 / elapsed;
        rss.1 = evoke.rss_kib();
        let load = (seen.offered.load(Ordering::Relaxed) - offered_before) as f64 / elapsed / peak;
        over.store(true, Ordering::Relaxed);
        quiet.sort();
        println!(
            "peak {peak:.0}/s, load {load:.1} times that: goodput {goodput:.0}/s, {:?}; rss {} KiB before, {} after; \
             the quiet source waited {:?} in the middle, {:?} at most",
            seen.statuses.lock().unwrap(),
            rss.0,
            rss.1,
            quiet[quiet.len() / 2],
            quiet[quiet.len() - 1]
        );
        assert!(load >= 9.0, "the clients are too slow for this test: {load:.1}");
    });
    assert!(goodput >= 0.8 * peak, "{goodput:.0} of {peak:.0} deliveries a second");
    assert!(rss.1 < rss.0 + 16 * 1024, "{} KiB before, {} after", rss.0, rss.1);

    all.extend(seen.acknowledged.into_inner().unwrap());
    evoke.settle();
    let stored: HashSet<String> =
        evoke.events("lab.in").iter().map(|event| event["id"].as_str().unwrap().to_owned()).collect();
    assert!(stored == all, "{} acknowledged, {} stored", all.len(), stored.len());
    assert_eq!(evoke.deliveries("done"), all.len() as u64);
}
