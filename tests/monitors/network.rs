//! Ports, sites and certificates.

use std::net::TcpListener;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::{await_states, manifest, shown};
use crate::assert_eventually;
use crate::certificates::Authority;
use crate::support::Evoke;

#[test]
fn a_port_that_closes_is_critical() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let monitor =
        format!("{{ every: 100ms, tcp: {{ address: \"{address}\", addresses: [127.0.0.1] }}, warning: 10s }}");
    let evoke = Evoke::up_with(&manifest(&monitor));
    assert_eventually!(shown(&evoke)["state"] == "ok", "{}", shown(&evoke));
    assert!(shown(&evoke)["value"].as_f64().unwrap() < 10.0);
    drop(listener);
    await_states(&evoke, &address, &["critical"]);
    assert!(shown(&evoke)["detail"].as_str().unwrap().contains("cannot connect"), "{}", shown(&evoke));
}

#[test]
fn an_address_that_is_not_public_needs_the_permission_of_the_manifest() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let address = listener.local_addr().unwrap();
    for monitor in [
        format!("{{ every: 100ms, tcp: {{ address: \"{address}\" }} }}"),
        format!("{{ every: 100ms, tcp: {{ address: \"localhost:{}\" }} }}", address.port()),
        format!("{{ every: 100ms, tls: {{ address: \"{address}\" }}, critical: 1d }}"),
        format!("{{ every: 100ms, http: {{ url: \"http://{address}/\", addresses: [10.0.0.0/8] }} }}"),
    ] {
        let evoke = Evoke::up_with(&manifest(&monitor));
        assert_eventually!(shown(&evoke)["state"] == "unknown", "{}", shown(&evoke));
        let shown = shown(&evoke);
        assert!(shown["detail"].as_str().unwrap().contains("add `addresses: ["), "{monitor}: {shown}");
        let connected = listener.accept().map(drop);
        assert_eq!(connected.unwrap_err().kind(), std::io::ErrorKind::WouldBlock, "{monitor}");
    }
}

#[test]
fn a_site_is_checked_by_status_text_and_a_number_of_its_body() {
    let site = Evoke::up_with(
        "evoke: 1\napp: site\nfunctions:\n  stand-in:\n    component: $FUNCTIONS/stand-in.wasm\n    on: [{ http: { path: \"/stand-in/{rest...}\" } }]\n",
    );
    let address = site.http();
    let monitors = format!(
        "evoke: 1\napp: host\nsources:
  fine: {{ monitor: {{ every: 100ms, http: {{ url: \"http://{address}/stand-in/chat/a\", contains: \"ok\", addresses: [127.0.0.1] }}, warning: 10s }} }}
  text: {{ monitor: {{ every: 100ms, http: {{ url: \"http://{address}/stand-in/chat/b\", contains: \"none\", addresses: [127.0.0.1] }} }} }}
  gone: {{ monitor: {{ every: 100ms, http: {{ url: \"http://{address}/stand-in/c\", addresses: [127.0.0.1] }} }} }}
  expected: {{ monitor: {{ every: 100ms, http: {{ url: \"http://{address}/stand-in/d\", status: 404, addresses: [127.0.0.1] }} }} }}
  number: {{ monitor: {{ every: 100ms, http: {{ url: \"http://{address}/stand-in/chat/e\", json: ok, addresses: [127.0.0.1] }}, critical: 5 }} }}
"
    );
    let evoke = Evoke::up_with(&monitors);
    let states = || {
        let all = evoke.json_lines(&["monitors"]).into_iter();
        all.map(|one| format!("{} {}", one["monitor"].as_str().unwrap(), one["state"].as_str().unwrap()))
            .collect::<Vec<_>>()
    };
    let expected =
        ["/host/expected ok", "/host/fine ok", "/host/gone critical", "/host/number critical", "/host/text critical"];
    assert_eventually!(states() == expected, "{:?}", evoke.json_lines(&["monitors"]));
}

#[test]
fn a_certificate_that_runs_out_and_is_replaced_is_reported() {
    let authority = Authority::new();
    let mut server = Evoke::with("evoke: 1\napp: site\n");
    let until = |seconds: u64| {
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + Duration::from_secs(seconds);
        authority.sign_with(&["localhost"], |params| {
            params.not_after = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(end.as_secs());
        })
    };
    until(5).write(&server, "site");
    server.up_with_arguments(&["--http-cert", "site.pem", "--http-key", "site.key"]);
    let port = server.http().rsplit_once(':').unwrap().1.to_owned();
    let address = format!("localhost:{port}");
    let monitor = format!(
        "{{ every: 200ms, tls: {{ address: \"{address}\", ca: ./ca.pem, addresses: [127.0.0.1, \"::1\"] }}, warning: 1h }}"
    );
    let evoke = Evoke::with(&manifest(&monitor));
    authority.write(&evoke, "ca.pem");
    let mut evoke = evoke;
    evoke.up();
    await_states(&evoke, &address, &["warning"]);
    await_states(&evoke, &address, &["warning", "critical"]);
    let data = evoke.events("evoke.monitor.changed").pop().unwrap()["data"].clone();
    assert_eq!((&data["detail"], &data["unit"]), (&json!("a certificate of the server has expired"), &json!("s")));
    until(90 * 86_400).write(&server, "site");
    await_states(&evoke, &address, &["warning", "critical", "ok"]);
    // A chain that is not trusted is critical, however long it is valid.
    let other = Authority::new();
    other.sign(&["localhost"]).write(&server, "site");
    await_states(&evoke, &address, &["warning", "critical", "ok", "critical"]);
    assert!(shown(&evoke)["detail"].as_str().unwrap().contains("not trusted"), "{}", shown(&evoke));
    // A changed file with authorities is read without a restart.
    other.write(&evoke, "ca.pem");
    await_states(&evoke, &address, &["warning", "critical", "ok", "critical", "ok"]);
}
