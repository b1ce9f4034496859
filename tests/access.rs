//! The admin API is safe against strangers: other users of the machine, web pages in the operator's browser, and holders
//! of a viewer's token.

use std::io::{BufRead as _, BufReader, Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::orders::ORDERS;
use crate::support::{Evoke, TIMEOUT, root};

/// Sends a request with exactly these header lines, and reads the response to its end.
fn raw(evoke: &Evoke, request_line: &str, headers: &[&str]) -> (u16, String) {
    raw_with(evoke, request_line, headers, "")
}

fn raw_with(evoke: &Evoke, request_line: &str, headers: &[&str], body: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(evoke.admin()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    let head = [&[request_line, "Connection: close"], headers].concat().join("\r\n");
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).unwrap();
    let (mut reader, mut response) = (BufReader::new(stream), String::new());
    // The stream of the console does not end.
    let is_endless = |response: &str| {
        let is_allowed = request_line.contains("/console/live") && response.starts_with("HTTP/1.1 200");
        is_allowed && response.ends_with("\r\n\r\n")
    };
    while reader.read_line(&mut response).unwrap() > 0 && !is_endless(&response) {}
    let status = response.split(' ').nth(1).unwrap_or_else(|| panic!("{request_line}: {response:?}"));
    (status.parse().unwrap(), response)
}

fn status(evoke: &Evoke, request_line: &str, headers: &[&str]) -> u16 {
    raw(evoke, request_line, headers).0
}

fn bearer(token: &str) -> String {
    format!("Authorization: Bearer {token}")
}

fn host(evoke: &Evoke) -> String {
    format!("Host: {}", evoke.admin())
}

/// Makes a token, and returns it.
fn create(evoke: &Evoke, name: &str, arguments: &[&str]) -> String {
    evoke.stdout(&[&["token", "create", name], arguments].concat()).trim().to_owned()
}

/// The routes of the program's own table: method, path and the role that they need.
fn routes() -> Vec<(String, String, String)> {
    let table = std::fs::read_to_string(root().join("runtime/src/admin/routes.rs")).unwrap();
    let rows = table.lines().filter_map(|line| {
        let mut cells = line.trim().strip_prefix('(')?.split(", ");
        let method = cells.next()?.split('_').next()?.to_uppercase();
        let path = cells.next()?.trim_matches('"');
        let path = path.replace("{action}", "pause").replace("{bucket}", "shop%2Fcharge");
        let path = path.replace("{key}", "seen").replace("{name}", "victim").replace(['{', '}'], "");
        Some((method, path.replace("ref", "1").replace("delivery", "1").replace("id", "1"), cells.next()?.to_owned()))
    });
    let routes: Vec<_> = rows.collect();
    assert!(routes.len() > 20 && routes.iter().all(|(_, path, _)| path.starts_with('/')), "{routes:?}");
    routes
}

#[test]
fn strangers_and_viewers_read_and_change_nothing_that_they_may_not() {
    let evoke = Evoke::up_with(ORDERS);
    evoke.stdout(&["emit", "--type", "t"]);
    evoke.stdout(&["state", "set", "shop/charge", "seen", "7"]);
    create(&evoke, "victim", &[]);
    let (viewer, host) = (create(&evoke, "v", &["--role", "viewer"]), host(&evoke));
    let body = ["Content-Type: application/json", "Content-Length: 2"];
    let send = |method: &str, path: &str, token: Option<&str>| {
        let authorization = token.map(bearer);
        let mut headers = vec![host.as_str()];
        headers.extend(authorization.as_deref());
        let has_body = matches!(method, "POST" | "PUT");
        headers.extend(body.iter().filter(|_| has_body));
        raw_with(&evoke, &format!("{method} {path} HTTP/1.1"), &headers, if has_body { "{}" } else { "" })
    };
    for (method, path, role) in routes() {
        for token in [None, Some(""), Some("evoke_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), Some("a b")] {
            let (status, response) = send(&method, &path, token);
            assert_eq!(status, 401, "{method} {path}: {response}");
            assert!(response.contains("\r\nwww-authenticate: Bearer\r\n"), "{response}");
            assert!(response.contains("application/problem+json") && response.contains("admin.token"), "{response}");
        }
        let (status, response) = send(&method, &path, Some(&viewer));
        match role.as_str() {
            "Operator" => {
                assert_eq!(status, 403, "{method} {path}: {response}");
                assert!(response.contains("role viewer"), "{response}");
            }
            _ => assert!(![401, 403].contains(&status), "{method} {path}: {response}"),
        }
    }
    // The names of paths and methods without a route are no secret, but not for strangers.
    for request in ["GET /api/v2", "GET //healthz", "GET /healthz/", "GET /%68ealthz", "OPTIONS *", "POST /readyz"] {
        assert_eq!(status(&evoke, &format!("{request} HTTP/1.1"), &[&host]), 401, "{request}");
    }
    for request in ["GET /healthz", "GET /readyz", "HEAD /healthz"] {
        assert_eq!(status(&evoke, &format!("{request} HTTP/1.1"), &[&host]), 200, "{request}");
    }
    // Nothing has changed.
    assert_eq!(evoke.json_lines(&["events", "--after", "0"]).len(), 1);
    assert_eq!(evoke.stdout(&["state", "get", "shop/charge", "seen"]).trim(), "7");
    let tokens: Vec<_> = evoke.json_lines(&["token", "list"]).iter().map(|token| token["name"].clone()).collect();
    assert_eq!(tokens, ["owner", "victim", "v"]);
}

#[test]
fn only_the_owner_of_the_data_folder_can_read_the_files_of_tokens() {
    let mut evoke = Evoke::up_with(ORDERS);
    let token = create(&evoke, "v", &[]);
    for file in [".evoke/admin.token", ".evoke/tokens.json"] {
        let mode = std::fs::metadata(evoke.path(file)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{file}");
    }
    assert!(evoke.token().len() >= 43 + 6 && evoke.token().starts_with("evoke_"), "{}", evoke.token());
    assert!(!std::fs::read_to_string(evoke.path(".evoke/tokens.json")).unwrap().contains(&token));
    assert!(!evoke.log().contains("evoke_"), "no token is printed");
    // The tokens stay the same over a restart.
    let owner = evoke.token();
    evoke.stop();
    evoke.up();
    assert_eq!(evoke.token(), owner);
    let request = "GET /api/v1/status HTTP/1.1";
    assert_eq!(status(&evoke, request, &[&host(&evoke), &bearer(&token)]), 200);
}

#[test]
fn web_pages_of_other_sites_get_nothing_even_with_a_token() {
    let evoke = Evoke::up_with(ORDERS);
    let (own, token) = (host(&evoke), bearer(&evoke.token()));
    let port = evoke.admin().rsplit_once(':').unwrap().1;
    let get = "GET /api/v1/status HTTP/1.1";
    let localhost = format!("Host: LOCALHOST:{port}");
    for headers in [
        [own.as_str(), &token, "X: y"],
        [&localhost, &token, "X: y"],
        [&own, &token, "Sec-Fetch-Site: same-origin"],
        [&own, &token, &format!("Origin: http://{}", evoke.admin())],
    ] {
        let (status, response) = raw(&evoke, get, &headers);
        assert_eq!(status, 200, "{headers:?}: {response}");
        assert!(!response.to_lowercase().contains("access-control-"), "{response}");
    }
    for foreign in [
        "Host: evil.example".to_owned(),
        format!("Host: evil.example:{port}"),
        format!("Host: 127.0.0.1.evil.example:{port}"),
        format!("Host: localhost.:{port}"),
        format!("Host: 127.0.0.2:{port}"),
        "Host: 127.0.0.1".to_owned(),
        "Host: localhost:1".to_owned(),
    ] {
        for path in ["/api/v1/status", "/metrics", "/healthz", "/"] {
            let (status, response) = raw(&evoke, &format!("GET {path} HTTP/1.1"), &[&foreign, &token]);
            assert_eq!(status, 403, "{foreign} {path}: {response}");
            assert!(response.contains(&format!("use http://{}", evoke.admin())), "{response}");
        }
    }
    let absolute = "GET http://evil.example/api/v1/status HTTP/1.1";
    assert_eq!(status(&evoke, absolute, &[&own, &token]), 400);
    assert_eq!(status(&evoke, "GET /api/v1/status HTTP/1.0", &[&token]), 403);
    let port_of_another_server = format!("Origin: http://127.0.0.1:{}", port.parse::<u16>().unwrap() ^ 1);
    for foreign in [
        "Origin: null",
        "Origin: http://evil.example",
        &format!("Origin: http://localhost:{port}"),
        &format!("Origin: https://{}", evoke.admin()),
        &format!("Origin: http://{}.evil.example", evoke.admin()),
        &port_of_another_server,
        "Sec-Fetch-Site: cross-site",
        "Sec-Fetch-Site: same-site",
    ] {
        for request in ["GET /api/v1/status", "POST /api/v1/replays/1/pause", "OPTIONS /api/v1/events", "GET /healthz"]
        {
            let (status, response) = raw(&evoke, &format!("{request} HTTP/1.1"), &[&own, &token, foreign]);
            assert_eq!(status, 403, "{foreign} {request}: {response}");
            assert!(!response.to_lowercase().contains("access-control-"), "{response}");
        }
    }
}

#[test]
fn a_viewer_reads_over_the_command_line_and_a_revoked_token_ends_at_once() {
    let mut evoke = Evoke::up_with(ORDERS);
    evoke.stdout(&["emit", "--type", "t"]);
    let create = ["token", "create", "grafana", "--role", "viewer", "--expires", "7d", "--out", "viewer.token"];
    let made = evoke.json(&create);
    assert!(made["expires"].as_str().is_some_and(|at| at.ends_with('Z')) && made.get("token").is_none(), "{made}");
    assert_eq!(evoke.path("viewer.token").metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let token = std::fs::read_to_string(evoke.path("viewer.token")).unwrap().trim().to_owned();
    let with_file = |arguments: &[&str]| evoke.run(&[arguments, &["--token-file", "viewer.token"]].concat());
    assert!(with_file(&["status"]).status.success());
    let emit = with_file(&["emit", "--type", "t"]);
    assert_eq!(emit.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&emit.stderr).contains("role viewer"), "{emit:?}");
    let duplicate = evoke.run(&["token", "create", "grafana", "--out", "more.token"]);
    assert!(String::from_utf8_lossy(&duplicate.stderr).contains("grafana already"), "{duplicate:?}");
    assert!(!evoke.path("more.token").exists());
    let existing = evoke.run(&["token", "create", "more", "--out", "viewer.token"]);
    assert!(String::from_utf8_lossy(&existing.stderr).contains("cannot create viewer.token"), "{existing:?}");
    assert!(!evoke.stdout(&["token", "list"]).contains("more"), "no token is made that cannot be written");

    // A list that the token follows ends with the token.
    let mut follow = TcpStream::connect(evoke.admin()).unwrap();
    follow.set_read_timeout(Some(TIMEOUT)).unwrap();
    write!(follow, "GET /api/v1/events?follow=true HTTP/1.1\r\n{}\r\n{}\r\n\r\n", host(&evoke), bearer(&token))
        .unwrap();
    let mut start = [0; 15];
    follow.read_exact(&mut start).unwrap();
    assert_eq!(&start, b"HTTP/1.1 200 OK");
    assert_eq!(evoke.stdout(&["token", "revoke", "grafana"]).trim(), "token grafana revoked");
    let mut rest = Vec::new();
    // A reset is an end, too.
    let _ = follow.read_to_end(&mut rest);
    assert!(!rest.ends_with(b"0\r\n\r\n"), "the list ends as a failed one");
    let refused = with_file(&["status"]);
    assert_eq!(refused.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&refused.stderr).contains("revoked"), "{refused:?}");
    assert_eq!(evoke.run(&["token", "revoke", "grafana"]).status.code(), Some(4));
    assert_eq!(evoke.run(&["token", "revoke", "owner"]).status.code(), Some(1));

    // Without the data folder, the token comes from the environment.
    let (admin, owner) = (format!("http://{}/", evoke.admin()), evoke.token());
    let elsewhere = tempfile::tempdir().unwrap();
    let run = |arguments: &[&str]| {
        let mut command = evoke.command(arguments);
        command.current_dir(elsewhere.path()).env("EVOKE_ADMIN", &admin);
        command
    };
    let without = run(&["status"]).output().unwrap();
    assert_eq!(without.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&without.stderr).contains("EVOKE_TOKEN"), "{without:?}");
    assert!(run(&["status"]).env("EVOKE_TOKEN", &owner).status().unwrap().success());
    // The store is found by the address, too.
    let check = run(&["check", "--json"]).env("EVOKE_TOKEN", &owner).output().unwrap();
    let report: Value = serde_json::from_slice(&check.stdout).unwrap_or_else(|e| panic!("{e}: {check:?}"));
    assert_eq!(report["events"], 1);
    let mut after = run(&["status"]);
    evoke.stop();
    assert_eq!(after.env("EVOKE_TOKEN", &owner).status().unwrap().code(), Some(3));
}

#[test]
fn no_token_goes_to_another_user_or_over_the_network_without_tls() {
    let evoke = Evoke::with(ORDERS);
    std::fs::write(evoke.path("token"), "evoke_x\n").unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let here = listener.local_addr().unwrap().to_string();
    let is_root = rustix::process::geteuid().is_root();
    if is_root {
        std::os::unix::fs::fchown(&listener, Some(12_345), None).unwrap();
    }
    let by_file: &[&str] = &["status", "--token-file", "token"];
    for (arguments, name) in [(&by_file[..1], "EVOKE_TOKEN"), (by_file, "EVOKE_X")] {
        let run = |admin: &str| {
            let output = evoke.command(arguments).envs([(name, "evoke_x"), ("EVOKE_ADMIN", admin)]).output().unwrap();
            (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (code, message) = run("192.0.2.7:8081");
        assert!(message.contains("write --admin https://192.0.2.7:8081") && message.contains("ssh -L"), "{message}");
        assert_eq!(code, Some(2));
        if is_root {
            let (code, message) = run(&here);
            assert!(message.contains("belongs to the user with the id 12345, so no token is sent to it"), "{message}");
            assert_eq!(code, Some(3));
            let mut received = Vec::new();
            listener.accept().unwrap().0.read_to_end(&mut received).unwrap();
            assert_eq!(String::from_utf8_lossy(&received), "");
        }
    }
}

#[test]
fn up_refuses_an_admin_address_beyond_loopback_and_replaces_a_readable_token() {
    let mut evoke = Evoke::with(ORDERS);
    for address in ["0.0.0.0:0", "[::]:0", "192.0.2.7:8081", "http://evoke.example:8081"] {
        let output = evoke.run(&["up", "evoke.yaml", "--admin", address]);
        let message = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(2), "{message}");
        assert!(message.contains("write --admin 127.0.0.1:") && message.contains("ssh -L"), "{message}");
    }
    assert!(!evoke.path(".evoke").exists(), "nothing was started");
    evoke.up();
    evoke.stop();
    let readable = evoke.token();
    std::fs::set_permissions(evoke.path(".evoke/admin.token"), std::fs::Permissions::from_mode(0o644)).unwrap();
    evoke.up();
    assert_ne!(evoke.token(), readable);
    assert!(evoke.log().contains("its token is replaced"), "{}", evoke.log());
}

#[test]
fn a_start_that_fails_after_the_admin_api_listens_drains_and_leaves_no_addresses() {
    let evoke = Evoke::with(ORDERS);
    // The addresses cannot be written, so the start fails when everything runs.
    std::fs::create_dir_all(evoke.path(".evoke/listen.json/in-the-way")).unwrap();
    let output = evoke.run(&["up", "evoke.yaml", "--http", "127.0.0.1:0", "--admin", "127.0.0.1:0"]);
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{text}");
    assert!(text.contains("listen.json") && text.contains("draining"), "{text}");
    assert!(!evoke.path(".evoke/listen.json.new").exists());
    evoke.stdout(&["check"]);
}

#[test]
fn output_never_deceives_the_reader_of_a_terminal() {
    let evoke = Evoke::up_with(ORDERS);
    let bad = "\u{1b}[2J\u{7f}\u{9b}\u{61c}\u{200e}\u{200f}\u{202e}\u{2066}";
    let event =
        serde_json::json!({ "specversion": "1.0", "id": "x", "source": "/s", "type": "t", "data": { "a": bad } });
    evoke.stdout(&["emit", "--event", &event.to_string()]);
    evoke.stdout(&["state", "set", "shop/charge", &format!("k{bad}"), bad]);
    let deceives = |text: &str| {
        text.chars().any(|c| {
            c.is_control() && c != '\n'
                || matches!(c, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
        })
    };
    for command in [
        ["events", "--after", "0"].as_slice(),
        &["events", "--after", "0", "--envelope"],
        &["trace", "x"],
        &["state", "list", "shop/charge"],
        &["state", "list"],
    ] {
        for json in [[].as_slice(), &["--json"]] {
            let text = evoke.stdout(&[command, json].concat());
            assert!(!deceives(&text), "{command:?}: {text:?}");
        }
    }
    let listed = evoke.json_lines(&["events", "--after", "0"]);
    assert_eq!(listed[0]["data"]["a"], bad, "the value is the same");
    // Errors repeat parts of the request.
    let missing = evoke.run(&["trace", &format!("no{bad}")]);
    assert_eq!(missing.status.code(), Some(4));
    assert!(!deceives(&String::from_utf8_lossy(&missing.stderr)), "{missing:?}");
    let response = evoke.get_admin("/api/v1/trace/no%C2%9B%E2%80%AE%1B", &[]);
    assert!(response.status == 404 && !deceives(&response.body), "{response:?}");
    let conflict = evoke.run(&["emit", "--event", "{}", "--source", "/mine"]);
    assert_eq!(conflict.status.code(), Some(2), "{conflict:?}");
}
