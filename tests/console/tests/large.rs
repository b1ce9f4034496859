//! A console over a large store. The test shows that each list and filter gives rows, and prints how long it takes:
//!
//! `EVOKE_CONSOLE_EVENTS=10000000 tests/console/run large -- --nocapture` (about 10 minutes and 5 GB).

use std::time::Instant;

use serde_json::{Value, json};

use crate::support::{Browser, Evoke, SHOP};

/// Most events have no taker, so that the store fills quickly; one of so many is a payment, which has a receipt.
const READINGS_PER_PAYMENT: u64 = 100;
/// Lines of one `evoke emit`.
const CHUNK: u64 = 100_000;

/// Waits in the page for the rows of a view, and for the end of its search. Returns the milliseconds from the change of
/// the address to each of them, the longest time without any news, and the number of rows.
const MEASURE: &str = "
    const started = performance.now();
    const before = document.querySelector('main table');
    location.hash = '#/VIEW';
    return new Promise((resolve) => {
        let first, news = started, longest = 0, last = '';
        const look = () => {
            const now = performance.now();
            const main = document.querySelector('main');
            const rows = main.querySelectorAll('tbody tr, .row, svg g').length;
            const isBusy = !!main.querySelector('[aria-busy]');
            const text = main.textContent.slice(-400);
            if (text !== last) { longest = Math.max(longest, now - news); news = now; last = text; }
            const isNew = main.querySelector('table') !== before || !before;
            if (first === undefined && isNew && (rows > 0 || main.querySelector('.empty'))) first = now - started;
            if ((first !== undefined && !isBusy) || now - started > 50000) {
                resolve([first ?? -1, now - started, Math.max(longest, now - news), rows]);
            } else {
                requestAnimationFrame(look);
            }
        };
        requestAnimationFrame(look);
    })";

#[tokio::test(flavor = "multi_thread")]
async fn each_list_and_filter_of_a_large_store_gives_rows() {
    let count: u64 = std::env::var("EVOKE_CONSOLE_EVENTS").map_or(5_000, |count| count.parse().unwrap());
    let evoke = Evoke::up(SHOP).await;
    let started = Instant::now();
    for from in (0..count).step_by(usize::try_from(CHUNK).unwrap()) {
        let numbers = from..count.min(from + CHUNK);
        let payments = numbers.clone().filter(|n| n % READINGS_PER_PAYMENT == 0);
        let payment = |n| json!({ "order": format!("o-{n}"), "customer": format!("c-{}", n % 97), "total": n % 500 });
        evoke.emit_lines("payment.taken", payments.map(payment).map(|data| data.to_string()));
        let readings = numbers.filter(|n| n % READINGS_PER_PAYMENT != 0);
        let reading = |n| format!(r#"{{"sensor":"s-{}","celsius":{}.5,"at":{n}}}"#, n % 1_000, n % 40);
        evoke.emit_lines("reading", readings.map(reading));
    }
    let (took, filled) = (started.elapsed(), evoke.memory_mib());
    println!("{count} events in {:.0} s; {filled} MiB", took.as_secs_f64());

    let browser = Browser::start().await;
    browser.open(&evoke, "viewer", "events").await;
    browser.read("tbody tr:nth-child(1)", "reading").await;
    // The same page once more, from the start.
    browser.page.refresh().await.unwrap();
    browser.read("tbody tr:nth-child(1)", "reading").await;
    let paint = "return performance.getEntriesByName('first-contentful-paint')[0].startTime";
    println!("first paint {:.0} ms", browser.run(paint).await.as_f64().unwrap());
    println!("{:<50} {:>9} {:>9} {:>9} {:>6}", "", "first ms", "all ms", "pause ms", "rows");
    for (name, view, has_rows) in [
        ("functions", "functions", true),
        ("events", "events", true),
        ("events of a common type", "events?type=reading", true),
        ("events of a rare type", "events?type=receipt.issued", true),
        ("events by a star", "events?type=payment.*", true),
        ("events of a function", "events?fn=shop/receipt", true),
        ("events of a source", "events?source=/shop/receipt", true),
        ("events of a type that does not exist", "events?type=nothing", false),
        ("events that failed", "events?state=failed", false),
        ("a common text in data", "events?text=s-17", true),
        ("a text that is nowhere", "events?text=zebra", false),
        ("pending", "pending", false),
        ("dead letters", "dead", false),
        ("sources", "sources", true),
        ("flow", "flow", true),
    ] {
        browser.go("health").await;
        browser.read("main", "").await;
        let found = browser.run(&MEASURE.replace("VIEW", view)).await;
        let [first, all, pause, rows] = [0, 1, 2, 3].map(|at| found[at].as_f64().unwrap());
        println!("{name:<50} {first:>9.0} {all:>9.0} {pause:>9.0} {rows:>6}");
        assert!(!has_rows || rows > 0.0, "{name}: {found}");
        assert_ne!(found[0], Value::from(-1), "{name}: {found}");
    }
    println!("memory {filled} MiB before, {} MiB after", evoke.memory_mib());
    browser.close().await;
}
