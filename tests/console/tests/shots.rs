//! Screenshots of all views, light and dark, to be looked at: `EVOKE_SHOTS=DIR tests/console/run shots`.

use serde_json::json;

use crate::support::{Browser, Evoke, SHOP};

#[tokio::test(flavor = "multi_thread")]
async fn every_view_fits_its_window_at_three_widths() {
    let evoke = Evoke::up(SHOP).await;
    for customer in ["ada", "eve", "mia"] {
        evoke.order(&json!({ "customer": customer, "total": 42, "items": ["book"] }));
    }
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events").await;
    browser.read(".vital.bad", "dead letters").await;
    let dead = format!("dead?dead={}", evoke.dead()[0]["delivery"]["id"]);
    let folder = std::env::var_os("EVOKE_SHOTS").map(std::path::PathBuf::from);
    for width in [390, 800, 1600] {
        browser.resize(width, 1000).await;
        for (view, words) in [
            ("events", "order.placed"),
            ("events?event=1", "customer:"),
            ("trace?event=1", "shop/notify"),
            ("functions", "shop/charge"),
            ("functions?function=shop/charge", "order.placed"),
            ("dead", "must be more than 0"),
            (&dead, "customer:"),
            ("pending", "Pending"),
            ("flow", "shop/receipt"),
            ("patterns", "match"),
            ("sources", "/shop/checkout"),
            ("state", "State"),
            ("replays", "New replay"),
            ("logs", "paid"),
            ("health", "evoke check"),
        ] {
            browser.go(view).await;
            browser.read(".main", words).await;
            // The page itself never scrolls sideways.
            let overflow = browser.run("return document.documentElement.scrollWidth - innerWidth").await;
            assert!(overflow.as_i64().unwrap() <= 0, "{view} at {width}: {overflow}");
            let sideways = browser
                .run("const view = document.querySelector('.view'); return view.scrollWidth - view.clientWidth")
                .await;
            assert!(sideways.as_i64().unwrap() <= 0, "{view} at {width}: the list is {sideways} wider than its window");
            if let Some(folder) = &folder {
                let name = view.replace(['?', '=', '/'], "-");
                for scheme in ["dark", "light"] {
                    browser.prefer(scheme).await;
                    browser.page.screenshot(&folder.join(format!("{name}-{width}-{scheme}.png"))).await.unwrap();
                }
            }
        }
    }
    browser.close().await;
}
