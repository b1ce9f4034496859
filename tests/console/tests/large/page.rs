//! The page in a browser: the first paint, and each view until it has rows and until it has read everything.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fill::Filled;
use super::{PAINT_GOAL, Report, Timing};
use crate::support::{Browser, Evoke, POLL, eventually};

/// A search in a view is not followed for longer.
const WATCH_MAX: Duration = Duration::from_secs(20);

/// Runs in each new page before its own scripts: notes when the list has its first row.
const FIRST_ROW: &str = "
    new MutationObserver((_, observer) => {
        if (!document.querySelector('[data-seq]')) return;
        window.firstRow = performance.now();
        observer.disconnect();
    }).observe(document, { childList: true, subtree: true });";

/// Opens a view and notes each change of it: the time of the first rows, the longest time without news, and when it was
/// complete. The driver reads `window.watched`; a script that waits would end with the driver's own time limit.
const WATCH: &str = "
    window.watcher?.disconnect();
    const old = document.querySelector('main.view');
    if (old) old.dataset.old = 'true';
    const watched = { first: null, all: null, pause: 0, rows: 0 };
    window.watched = watched;
    const started = performance.now();
    let news = started, last = '';
    const look = () => {
        const main = document.querySelector('main.view:not([data-old])');
        if (!main) return;
        const now = performance.now();
        const rows = main.querySelectorAll('tbody tr, svg .node, .logline, .empty').length;
        const status = [...main.querySelectorAll('.loading, [role=status], p.dim')].map((one) => one.textContent).join();
        const isBusy = !!main.querySelector('[aria-busy]') || status.includes('searching');
        const sign = rows + status + isBusy;
        if (sign === last) return;
        last = sign;
        const isNews = rows > 0 || /[0-9]/.test(status);
        if (watched.first === null && isNews) watched.first = now - started;
        else if (watched.first !== null) watched.pause = Math.max(watched.pause, now - news);
        news = now;
        watched.rows = rows;
        watched.all = !isBusy && isNews ? now - started : null;
    };
    window.watcher = new MutationObserver(look);
    window.watcher.observe(document.body, { childList: true, subtree: true, characterData: true, attributes: true });
    location.hash = '#/VIEW';";

pub(super) async fn measure(evoke: &Evoke, filled: &Filled, report: &mut Report) {
    let browser = Browser::start().await;
    browser.before_each_page(FIRST_ROW).await;
    report.head("the page");
    browser.open(evoke, "operator", "events").await;
    browser.see("[data-seq]").await;
    for name in ["the first paint, and the first row", "the same once more"] {
        browser.page.refresh().await.unwrap();
        let row = number(&browser, "return window.firstRow ?? null").await;
        let paint = "return performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? null";
        let paint = number(&browser, paint).await;
        report.row(name, Timing { first: paint, pause: row.saturating_sub(paint), all: row }, 1);
        if paint > PAINT_GOAL {
            report.slow.push(format!("{name}, over {} ms", PAINT_GOAL.as_millis()));
        }
    }
    for (view, has_rows) in views(filled) {
        browser.go("health").await;
        browser.read("h1", "Health").await;
        browser.run(&WATCH.replace("VIEW", &view)).await;
        let started = Instant::now();
        let watched = loop {
            let watched = browser.run("return window.watched").await;
            let is_first = !watched["first"].is_null();
            if !watched["all"].is_null() || (is_first && started.elapsed() > WATCH_MAX) {
                break watched;
            }
            assert!(started.elapsed() < 3 * WATCH_MAX, "{view} shows nothing");
            tokio::time::sleep(POLL).await;
        };
        let timing = Timing {
            first: milliseconds(&watched["first"]).unwrap(),
            pause: milliseconds(&watched["pause"]).unwrap(),
            all: milliseconds(&watched["all"]).unwrap_or_else(|| started.elapsed()),
        };
        let rows = watched["rows"].as_u64().unwrap();
        assert!(!has_rows || rows > 0, "{view}: {watched}");
        report.row(&view, timing, rows);
    }
    if let Some(folder) = std::env::var_os("EVOKE_SHOTS") {
        shots(&browser, Path::new(&folder)).await;
    }
    let messages = browser.messages().await;
    assert!(messages.is_empty(), "{messages:?}");
    browser.close().await;
}

/// The views, and whether each has rows.
fn views(filled: &Filled) -> Vec<(String, bool)> {
    let (middle, dead) = (filled.events / 2, filled.dead);
    let pattern = "%7B%22type%22%3A%5B%22alarm.raised%22%5D%7D";
    [
        ("events?range=all", true),
        ("events", false),
        ("events?range=all&type=sensor.pressure", true),
        ("events?range=all&type=alarm.raised", true),
        ("events?range=all&type=nothing", false),
        ("events?range=all&source=/plant/3", true),
        ("events?range=all&fn=shop/receipt", true),
        ("events?range=all&fn=shop/idle", false),
        ("events?range=all&state=failed", true),
        ("events?range=all&state=pending", true),
        ("events?range=all&text=s-17", true),
        ("events?range=all&text=zebra", false),
        (&format!("events?range=all&event={middle}"), true),
        ("trace?event=1", true),
        ("functions", true),
        ("functions?function=shop/refuse", true),
        ("dead", true),
        ("dead?fn=shop/refuse", true),
        (&format!("dead?dead={dead}"), true),
        ("pending", true),
        ("pending?state=blocked", true),
        ("pending?fn=shop/gateway", true),
        ("flow", true),
        // The page searches a part of a large store, until the user wants more.
        (&format!("patterns?range=all&pattern={pattern}"), false),
        ("sources", true),
        ("logs", true),
        ("replays", false),
        ("state", false),
    ]
    .map(|(view, has_rows)| (view.to_owned(), has_rows))
    .into()
}

/// Polls a number of milliseconds in the page.
async fn number(browser: &Browser, script: &str) -> Duration {
    eventually(script, async || milliseconds(&browser.run(script).await)).await
}

fn milliseconds(value: &Value) -> Option<Duration> {
    Some(Duration::from_secs_f64(value.as_f64()? / 1e3))
}

async fn shots(browser: &Browser, folder: &Path) {
    for width in [1600, 390] {
        browser.resize(width, 1000).await;
        for (view, row) in [
            ("events?range=all", "[data-seq]"),
            ("flow", ".graph .node"),
            ("dead", "tbody tr"),
            ("pending", "tbody tr"),
        ] {
            browser.go(view).await;
            browser.see(row).await;
            let name = view.split('?').next().unwrap();
            browser.page.screenshot(&folder.join(format!("large-{name}-{width}.png"))).await.unwrap();
        }
    }
}
