//! Actions that strangers, viewers and other sites cannot perform.

use std::io::{Read as _, Write as _};
use std::net::TcpListener;

use serde_json::json;

use crate::support::{Browser, Evoke, SHOP, eventually};

#[tokio::test(flavor = "multi_thread")]
async fn a_link_opens_one_session_and_a_restart_ends_it() {
    let mut evoke = Evoke::up(SHOP).await;
    let browser = Browser::start().await;
    browser.page.goto(format!("http://{}/", evoke.admin)).await.unwrap();
    browser.read("main.login", "This browser has no session").await;
    let link = evoke.link("operator");
    browser.page.goto(&link).await.unwrap();
    browser.read("nav.side", "owner, operator").await;
    // The code is no part of the address any more, and no script can read the cookie.
    let seen = browser.run("return [location.href.includes('code='), document.cookie]").await;
    assert_eq!(seen, json!([false, ""]));
    // Another tab of the browser has the session, too.
    browser.page.new_tab().await.unwrap();
    let tabs = browser.page.windows().await.unwrap();
    browser.page.switch_to_window(tabs[1].clone()).await.unwrap();
    browser.page.goto(format!("http://{}/#/functions", evoke.admin)).await.unwrap();
    browser.read("main", "shop/charge").await;
    // The same link opens nothing in another browser.
    let other = Browser::start().await;
    other.page.goto(&link).await.unwrap();
    other.read("main.login", "the code is not valid").await;
    other.close().await;

    evoke.end();
    browser.read(".link", "connection lost").await;
    evoke.restart().await;
    browser.read("main.login", "This browser has no session").await;
    browser.page.goto(evoke.link("operator")).await.unwrap();
    browser.read(".link", "live").await;
    browser.press("nav.side", "Log out").await;
    browser.read("main.login", "This browser has no session").await;
    browser.page.refresh().await.unwrap();
    browser.read("main.login", "This browser has no session").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_sees_everything_and_can_change_nothing() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "viewer", "dead").await;
    browser.read("main", "This session has the role viewer").await;
    let buttons = "return [...document.querySelectorAll('tbody button:not(.text)')].map((one) => [one.disabled, one.title.includes('viewer')])";
    eventually("the buttons are disabled, with the reason", async || {
        let found = browser.run(buttons).await;
        let found = found.as_array()?.clone();
        (found.len() == 2 && found.iter().all(|one| *one == json!([true, true]))).then_some(())
    })
    .await;
    let id = evoke.dead()[0]["delivery"]["id"].clone();
    browser.go(&format!("dead?dead={id}")).await;
    browser.read("[data-drawer]", "must be more than 0").await;
    for act in ["redrive", "edit", "purge"] {
        let disabled = browser.run(&format!("return document.querySelector('[data-act={act}]').disabled")).await;
        assert_eq!(disabled, json!(true), "{act}");
    }
    // The page is not what refuses: the API is.
    for (method, path, body) in [
        ("POST", "/api/v1/dead/redrive", json!({ "all": true })),
        ("POST", "/api/v1/dead/purge", json!({ "all": true })),
        ("POST", "/api/v1/events", json!({ "type": "x" })),
        ("POST", "/api/v1/pause", json!({ "name": "shop/charge" })),
        ("POST", "/api/v1/tokens", json!({ "name": "x", "role": "operator" })),
    ] {
        let script = format!(
            "return fetch({path:?}, {{ method: {method:?}, body: {:?}, headers: {{ 'content-type': 'application/json', \
             'x-evoke-console': localStorage.getItem('evoke-console-key') }} }}).then((response) => response.status)",
            body.to_string()
        );
        assert_eq!(browser.run(&script).await, json!(403), "{method} {path}");
    }
    assert_eq!(evoke.dead().len(), 1);
    browser.close().await;
}

/// Serves one page at every path, from another origin, until the test ends.
fn other_site(page: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().map_while(Result::ok) {
            let page = page.clone();
            // Browsers open connections in advance and send nothing on some.
            std::thread::spawn(move || {
                let Ok(1..) = stream.read(&mut [0; 8192]) else { return };
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nConnection: close\r\nContent-Length";
                let _ = stream.write_all(format!("{head}: {}\r\n\r\n{page}", page.len()).as_bytes());
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn a_page_of_another_site_can_do_nothing() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    let admin = &evoke.admin;
    let site = other_site(format!(
        "<!doctype html><title>other</title><a id=link href=\"http://{admin}/#/dead\">the console</a>\
         <iframe id=frame src=\"http://{admin}/\"></iframe><iframe name=target></iframe>\
         <form id=form method=post target=target action=\"http://{admin}/api/v1/dead/purge\" enctype=\"text/plain\">\
         <input name='{{\"all\": true, \"x\":\"' value='\"}}'></form>"
    ));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "dead").await;
    browser.read("tbody tr", "must be more than 0").await;
    // The browser has a session now. Another port of the same host is the same site, so its cookies are sent there.
    browser.page.goto(format!("http://{site}/")).await.unwrap();
    let attempts = format!(
        "const send = (path, options) => fetch('http://{admin}' + path, {{ credentials: 'include', ...options }})\
           .then((response) => response.type + response.status, () => 'refused');\
         document.getElementById('form').submit();\
         return Promise.all([\
           send('/api/v1/status'),\
           send('/api/v1/status', {{ mode: 'no-cors' }}),\
           send('/api/v1/dead/purge', {{ method: 'POST', mode: 'no-cors', body: '{{\"all\":true}}' }}),\
           send('/api/v1/dead/purge', {{ method: 'POST', headers: {{ 'content-type': 'application/json', 'x-evoke-console': 'x' }}, body: '{{\"all\":true}}' }}),\
           send('/api/v1/console/session', {{ method: 'POST', mode: 'no-cors', body: '{{\"code\":\"x\"}}' }}),\
           send('/console/app.js'),\
         ])"
    );
    let results = browser.run(&attempts).await;
    // An opaque response has no status and no content.
    let results: Vec<&str> = results.as_array().unwrap().iter().map(|one| one.as_str().unwrap()).collect();
    assert!(results.len() == 6 && results.iter().all(|one| ["refused", "opaque0"].contains(one)), "{results:?}");
    let log = browser.messages().await.join("\n");
    assert!(log.contains("403"), "{log}");
    let framed = browser.run("try { return document.getElementById('frame').contentDocument?.title ?? 'closed' } catch { return 'closed' }").await;
    assert_ne!(framed, json!("Evoke"));
    // Nothing has changed.
    assert_eq!(evoke.dead().len(), 1);
    // A link from there opens the console, which asks for its data itself.
    browser.click("#link").await;
    browser.read("tbody tr", "must be more than 0").await;
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn no_view_breaks_the_content_security_policy() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(
        &json!({ "customer": "<img src=x onerror=alert(1)>", "total": 1, "items": ["<script>alert(2)</script>"] }),
    );
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events").await;
    browser.read(".vital.bad", "dead letters").await;
    let dead = format!("dead?dead={}", evoke.dead()[0]["delivery"]["id"]);
    for (view, words) in [
        ("events?event=1", "<script>alert(2)</script>"),
        ("trace?event=1", "shop/charge"),
        ("functions?function=shop/charge", "order.placed"),
        (&dead, "must be more than 0"),
        ("pending", "Pending"),
        ("flow", "shop/receipt"),
        ("patterns", "match"),
        ("sources?source=/shop/checkout", "checkout"),
        ("state", "State"),
        ("replays", "New replay"),
        ("logs", "charge"),
        ("health", "evoke check"),
    ] {
        browser.go(view).await;
        browser.read(".main", words).await;
    }
    let broken: Vec<String> =
        browser.messages().await.into_iter().filter(|line| !line.starts_with("\"DEBUG")).collect();
    assert!(broken.is_empty(), "{broken:#?}");
    browser.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_store_is_shown_and_cannot_be_changed() {
    let mut evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "bob", "total": 0, "items": ["book"] }));
    eventually("the order is dead", async || (evoke.dead().len() == 1).then_some(())).await;
    evoke.end();
    let (mut server, link) = evoke.offline();
    let browser = Browser::start().await;
    browser.page.goto(&link).await.unwrap();
    browser.read("nav.side", "offline, viewer").await;
    browser.read(".vital.bad", "dead letters").await;
    browser.go("dead").await;
    browser.read("tbody tr", "must be more than 0").await;
    let disabled = "return [...document.querySelectorAll('tbody button:not(.text)')].every((one) => one.disabled)";
    assert_eq!(browser.run(disabled).await, json!(true));
    browser.go("trace?event=1").await;
    browser.read(".trace", "shop/charge").await;
    browser.close().await;
    server.kill().unwrap();
    server.wait().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn data_of_many_or_deeply_nested_values_leave_the_page_usable() {
    let evoke = Evoke::up(SHOP).await;
    evoke.order(&json!({ "customer": "ada", "total": 1, "items": ["book"], "wide": vec![vec![0; 500]; 500] }));
    let browser = Browser::start().await;
    browser.open(&evoke, "operator", "events?event=1").await;
    browser.read("[data-drawer]", "wide: [ 500 ]").await;
    let elements = "return document.querySelectorAll('[data-drawer] *').length";
    assert!(browser.run(elements).await.as_u64().unwrap() < 1_000);
    // What the user opens is shown, one level at a time.
    let open = "[...document.querySelectorAll('[data-drawer] summary')].find((one) => one.textContent.startsWith('wide')).click()";
    browser.run(open).await;
    browser.read("[data-drawer] .tree", "499: [ 500 ]").await;
    assert!(browser.run(elements).await.as_u64().unwrap() < 10_000);
    let deep = "'['.repeat(100000) + ']'.repeat(100000)";
    let set = format!(
        "return fetch('/api/v1/state/shop%2Fcharge/deep', {{ method: 'PUT', body: JSON.stringify({{ value: {deep} }}), \
         headers: {{ 'content-type': 'application/json', 'x-evoke-console': localStorage.getItem('evoke-console-key') }} \
         }}).then((response) => response.status)"
    );
    assert_eq!(browser.run(&set).await, json!(204));
    browser.go("state?bucket=shop/charge&entry=deep").await;
    browser.read("[data-drawer]", "200,000 bytes").await;
    browser.read("[data-drawer] .tree", "0: [ 1 ]").await;
    browser.click("[data-drawer] [data-close]").await;
    browser.go("health").await;
    browser.read(".main", "evoke check").await;
    browser.close().await;
}
