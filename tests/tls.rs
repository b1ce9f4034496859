//! TLS on both listeners, with curl and with the command line.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::assert_eventually;
use crate::certificates::{Authority, Identity, curl, port, text, write};
use crate::component_kinds::{PATH, http_manifest};
use crate::support::{Evoke, TIMEOUT, descriptors, signal};

const MANIFEST: &str = "
evoke: 1
app: shop
sources:
  hook:
    http: { path: /hook, type: hook.called }
";

/// `up` with a certificate for the http sources, and one for the admin API.
const HTTP: [&str; 4] = ["--http-cert", "a.pem", "--http-key", "a.key"];
const ADMIN: [&str; 4] = ["--admin-cert", "a.pem", "--admin-key", "a.key"];

const POST: [&str; 4] = ["--json", "{}", "--write-out", "\n%{http_code} %{http_version}"];

/// Starts Evoke with a new certificate for `a.example`. Returns the path of its authority's certificate.
fn up(manifest: &str, arguments: &[&str]) -> (Evoke, Authority, PathBuf) {
    let mut evoke = Evoke::with(manifest);
    let authority = Authority::new();
    authority.sign(&["a.example"]).write(&evoke, "a");
    let path = authority.write(&evoke, "ca.pem");
    evoke.up_with_arguments(arguments);
    (evoke, authority, path)
}

/// Sends bytes without TLS, and returns what comes back until the connection is closed.
fn send_plain(address: &str, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(("127.0.0.1", port(address).parse().unwrap())).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

fn listeners(evoke: &Evoke) -> Vec<Value> {
    evoke.json(&["status"])["listeners"].as_array().unwrap().clone()
}

#[test]
fn curl_posts_events_over_each_version_of_tls_and_of_http() {
    let (evoke, _, ca) = up(MANIFEST, &HTTP);
    assert!(evoke.http().starts_with("https://127.0.0.1:"), "{}", evoke.http());
    assert!(evoke.log().contains(&format!("listening {} (sources), http://", evoke.http())), "{}", evoke.log());
    for (arguments, version) in [
        (&["--tlsv1.2", "--tls-max", "1.2", "--http1.1"][..], "1.1"),
        (&["--tlsv1.3", "--http1.1"], "1.1"),
        (&["--tlsv1.2", "--tls-max", "1.2", "--http2"], "2"),
        (&["--tlsv1.3", "--http2"], "2"),
    ] {
        let output = text(&curl(evoke.http(), "/hook", &ca, &[arguments, &POST].concat()));
        assert!(output.ends_with(&format!("\n202 {version}")), "{arguments:?}: {output}");
    }
    // Older versions are refused, by the server: curl may use them here.
    let old = curl(evoke.http(), "/hook", &ca, &["--tlsv1.0", "--tls-max", "1.1", "--ciphers", "ALL:@SECLEVEL=0"]);
    assert_eq!(old.status.code(), Some(35), "{old:?}");
    assert_eq!(evoke.events("hook.called").len(), 4);
    let found = listeners(&evoke);
    assert_eq!((&found[0]["name"], &found[0]["state"]), (&"public".into(), &"ok".into()), "{found:?}");
    assert!(found[0]["certificate_expires"].is_string() && found[1]["certificate_expires"].is_null(), "{found:?}");
}

#[test]
fn a_request_without_tls_is_told_so_and_a_handshake_without_tls_on_the_other_side_is_logged() {
    let (evoke, _, ca) = up(MANIFEST, &HTTP);
    let request = b"GET /hook HTTP/1.1\r\nHost: a\r\n\r\n";
    let response = send_plain(evoke.http(), request);
    assert!(
        response.starts_with("HTTP/1.1 400 ") && response.contains("this port requires TLS; use https://"),
        "{response}"
    );
    // The admin listener has no TLS.
    assert_eq!(curl(evoke.admin(), "/healthz", &ca, &[]).status.code(), Some(35));
    assert_eventually!(evoke.log().contains("sent a TLS handshake, but this port has no TLS"), "{}", evoke.log());
    let metrics = evoke.get_admin("/metrics", &[]).body;
    let counted = "evoke_connections_refused_total{listener=\"public\",reason=\"plain-http\"} 1";
    assert!(metrics.contains(counted), "{metrics}");
}

#[test]
fn wrong_certificates_are_refused_by_the_client_and_reported() {
    let mut evoke = Evoke::with(MANIFEST);
    let (authority, other) = (Authority::new(), Authority::new());
    let (ca, other_ca) = (authority.write(&evoke, "ca.pem"), other.write(&evoke, "other.pem"));
    authority.sign(&["b.example"]).write(&evoke, "a");
    evoke.up_with_arguments(&HTTP);
    // 60: the certificate cannot be verified.
    assert_eq!(curl(evoke.http(), "/hook", &other_ca, &POST).status.code(), Some(60));
    assert_eq!(curl(evoke.http(), "/hook", &ca, &POST).status.code(), Some(60), "the name is another one");
    evoke.stop();

    authority
        .sign_with(&["a.example"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1))
        .write(&evoke, "a");
    evoke.up_with_arguments(&HTTP);
    assert!(evoke.log().contains("the certificate of the public listener expired on 2020-01-01"), "{}", evoke.log());
    assert_eq!(curl(evoke.http(), "/hook", &ca, &POST).status.code(), Some(60));
    let status = evoke.stdout(&["status"]);
    assert!(status.contains("the public listener is degraded: its certificate expired on 2020-01-01"), "{status}");
    let metrics = evoke.get_admin("/metrics", &[]).body;
    assert!(metrics.contains("evoke_listener_degraded{listener=\"public\"} 1"), "{metrics}");
    assert_eq!(evoke.events("hook.called").len(), 0);
}

#[test]
fn changed_certificates_are_used_at_once_and_wrong_ones_never() {
    let (evoke, _, ca) = up(MANIFEST, &HTTP);
    let posts = |ca: &PathBuf| curl(evoke.http(), "/hook", ca, &POST).status.success();
    assert!(posts(&ca));
    let other = Authority::new();
    let other_ca = other.write(&evoke, "other.pem");
    other.sign(&["a.example"]).write(&evoke, "a");
    assert_eventually!(posts(&other_ca), "the new certificate is not used: {}", evoke.log());
    assert!(!posts(&ca));
    assert_eventually!(evoke.log().contains("reloaded the certificates of the public listener"), "{}", evoke.log());

    // From now on, each change is wrong, and the certificate stays.
    let ended = other.sign_with(&["a.example"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1));
    let Identity { certificate, key } = other.sign(&["a.example"]);
    for (file, content, reason) in [
        ("a.key", "damaged", "a.key: there is no private key in PEM form"),
        ("a.key", key.as_str(), "a.key: the key does not belong to the certificate"),
        ("a.pem", "", "a.pem: there is no certificate in PEM form"),
    ] {
        write(&evoke, file, content);
        let is_degraded = || listeners(&evoke)[0]["trouble"].as_str().is_some_and(|trouble| trouble.contains(reason));
        assert_eventually!(is_degraded(), "{reason}: {:?}", listeners(&evoke));
        assert!(posts(&other_ca), "{reason}");
    }
    ended.write(&evoke, "a");
    assert_eventually!(
        listeners(&evoke)[0]["trouble"]
            .as_str()
            .is_some_and(|trouble| trouble.contains("already expired on 2020-01-01")),
        "{:?}",
        listeners(&evoke)
    );
    std::fs::remove_file(evoke.path("a.key")).unwrap();
    assert_eventually!(evoke.log().contains("stay active: cannot read a.key"), "{}", evoke.log());
    assert!(posts(&other_ca));
    // With the right key, the files are a pair again.
    let reported = |type_: &str| evoke.json_lines(&["events", "--source", "/evoke", "--type", type_, "--after", "0"]);
    assert_eventually!(!reported("evoke.listener.degraded").is_empty(), "not reported: {}", evoke.log());
    let degraded = reported("evoke.listener.degraded").remove(0);
    assert_eq!((&degraded["subject"], &degraded["data"]["listener"]), (&"public".into(), &"public".into()));
    assert!(degraded["data"]["reason"].as_str().unwrap().contains("could not be replaced"), "{degraded}");
    write(&evoke, "a.pem", &certificate);
    write(&evoke, "a.key", &key);
    assert_eventually!(listeners(&evoke)[0]["state"] == "ok", "{:?}", listeners(&evoke));
    assert_eventually!(!reported("evoke.listener.recovered").is_empty(), "not reported: {}", evoke.log());
    assert!(posts(&other_ca));
    // SIGHUP reads the files, too.
    let reloads = || evoke.log().matches("reloaded the certificates of the public listener").count();
    let before = reloads();
    signal(evoke.pid(), Signal::HUP);
    assert_eventually!(reloads() > before, "{}", evoke.log());
}

#[test]
fn several_certificates_are_chosen_by_the_name_that_the_client_asks_for() {
    let mut evoke = Evoke::with(MANIFEST);
    let authority = Authority::new();
    let ca = authority.write(&evoke, "ca.pem");
    authority.sign(&["b.example"]).write(&evoke, "b");
    authority.sign(&["a.example", "*.c.example"]).write(&evoke, "a");
    let both = ["--http-cert", "b.pem", "--http-key", "b.key"];
    evoke.up_with_arguments(&[both, HTTP].concat());
    assert!(curl(evoke.http(), "/hook", &ca, &POST).status.success());
    let code_of = |name: &str| {
        let port = port(evoke.http());
        let mut command = Command::new("curl");
        command.args([
            "--disable",
            "--silent",
            "--noproxy",
            "*",
            "--resolve",
            &format!("{name}:{port}:127.0.0.1"),
            "--cacert",
        ]);
        command.arg(&ca).arg(format!("https://{name}:{port}/hook")).output().unwrap().status.code()
    };
    let found = ["b.example", "x.c.example", "c.example"].map(code_of);
    assert_eq!(found, [Some(0), Some(0), Some(60)]);
}

#[test]
fn up_refuses_what_would_be_unsafe_or_cannot_work() {
    let evoke = Evoke::with(MANIFEST);
    let authority = Authority::new();
    authority.sign(&["a.example"]).write(&evoke, "a");
    authority.sign(&["b.example"]).write(&evoke, "b");
    write(&evoke, "empty.pem", "");
    let refused = |arguments: &[&str]| {
        let output = evoke.run(&[&["up", "evoke.yaml", "--admin", "127.0.0.1:0"], arguments].concat());
        (output.status.code().unwrap(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let own = ["--http", "127.0.0.1:0"];
    for (arguments, code, message) in [
        (&["--http", "0.0.0.0:0"][..], 2, "add --http-cert FILE --http-key FILE, or write --http 127.0.0.1:0"),
        (&["--http", "[::]:0"], 2, "if a proxy in front of Evoke handles TLS, add --http-plaintext"),
        (&["--http-cert", "a.pem"], 2, "write one --http-key FILE for each --http-cert FILE"),
        (&["--http-client-ca", "a.pem"], 2, "--http-cert"),
        (&["--proxy-protocol"], 2, "--trusted-proxies"),
        (&["--trusted-proxies", "10.0.0.1/8"], 2, "write 10.0.0.0/8"),
        (
            &[&own[..], &["--http-cert", "a.pem", "--http-key", "b.key"]].concat(),
            1,
            "b.key: the key does not belong to the certificate",
        ),
        (&[&own[..], &["--http-cert", "none.pem", "--http-key", "b.key"]].concat(), 1, "cannot read none.pem"),
        (&[&own[..], &HTTP, &["--http-client-ca", "empty.pem"]].concat(), 1, "empty.pem: there is no certificate"),
        (&[&own[..], &["--admin-cert", "a.key", "--admin-key", "a.key"]].concat(), 1, "a.key: there is no certificate"),
    ] {
        let (found, text) = refused(arguments);
        assert_eq!(found, code, "{arguments:?}: {text}");
        assert!(text.contains(message), "{arguments:?}: {text}");
    }
}

#[test]
fn a_private_key_that_others_can_read_is_reported() {
    let mut evoke = Evoke::with(MANIFEST);
    let authority = Authority::new();
    let (_, key) = authority.sign(&["a.example"]).write(&evoke, "a");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    evoke.up_with_arguments(&HTTP);
    assert!(
        evoke.log().contains("can read or change the private key a.key (its permissions are 0644)"),
        "{}",
        evoke.log()
    );
}

#[test]
fn the_command_line_recognises_the_admin_api_by_the_certificate_in_the_data_folder() {
    let (mut evoke, _, ca) = up(MANIFEST, &ADMIN);
    let admin = evoke.admin().to_owned();
    assert!(admin.starts_with("https://127.0.0.1:"), "{admin}");
    evoke.stdout(&["emit", "--type", "t"]);
    // The certificate is for another name than the address.
    for address in
        [admin.as_str(), &format!("localhost:{}", port(&admin)), &format!("http://127.0.0.1:{}", port(&admin))]
    {
        assert_eq!(evoke.json(&["status", "--admin", address])["events"], 1, "{address}");
    }
    assert_eq!(evoke.json(&["check"])["events"], 1);
    assert_eq!(text(&curl(&admin, "/healthz", &ca, &[])), "{\"status\":\"alive\"}\n");
    assert_eq!(
        text(&curl(&admin, "/readyz", &ca, &["--http2", "--write-out", "%{http_version}"])),
        "{\"status\":\"ready\"}\n1.1"
    );
    let response = send_plain(&admin, b"GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n");
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    let page = curl(&admin, "/healthz", &ca, &["--header", "Host: evil.example", "--write-out", "%{http_code}"]);
    assert!(text(&page).ends_with("403"), "{page:?}");

    let other = Authority::new();
    other.sign(&["a.example"]).write(&evoke, "a");
    assert_eventually!(evoke.log().contains("reloaded the certificates of the admin listener"), "{}", evoke.log());
    assert_eq!(evoke.json(&["status"])["events"], 1);

    // Another server at the address, with another certificate, gets no request and so no token.
    let listen = std::fs::read_to_string(evoke.path(".evoke/listen.json")).unwrap();
    evoke.stop();
    let (impostor, ..) = up(MANIFEST, &ADMIN);
    std::fs::write(evoke.path(".evoke/listen.json"), listen.replace(&admin, impostor.admin())).unwrap();
    let output = evoke.run(&["status"]);
    let message = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(3), "{message}");
    assert!(message.contains("the certificate of the server is not in listen.json"), "{message}");
}

#[test]
fn another_machine_needs_a_trusted_authority_and_a_token_of_its_own() {
    let mut evoke = Evoke::with(MANIFEST);
    let authority = Authority::new();
    authority.sign(&["localhost"]).write(&evoke, "a");
    let ca = authority.write(&evoke, "ca.pem");
    evoke.up_with_arguments(&ADMIN);
    let token = evoke.stdout(&["token", "create", "v", "--role", "viewer"]);
    let away = Evoke::with(MANIFEST);
    let token_file = write(&away, "token", &token);
    let url = format!("https://localhost:{}", port(evoke.admin()));
    let run = |more: &[&str]| away.run(&[&["status", "--json", "--admin", &url], more].concat());
    let with = ["--admin-ca", ca.to_str().unwrap(), "--token-file", token_file.to_str().unwrap()];
    let status: Value = serde_json::from_str(&text(&run(&with))).unwrap();
    assert_eq!(status["listeners"][1]["name"], "admin");
    for (wrong, message) in [
        (&with[2..], "certificate"),
        (&with[..2], "there is no token"),
        (&["--admin-ca", "missing.pem"], "cannot read certificates from missing.pem"),
    ] {
        let output = run(wrong);
        let found = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && found.contains(message), "{wrong:?}: {found}");
    }
}

#[test]
fn clients_need_a_certificate_where_it_is_required() {
    let mut evoke = Evoke::with(MANIFEST);
    let authority = Authority::new();
    let ca = authority.write(&evoke, "ca.pem");
    authority.sign(&["a.example"]).write(&evoke, "a");
    authority.sign(&["client.example"]).write(&evoke, "client");
    Authority::new().sign(&["client.example"]).write(&evoke, "foreign");
    authority.sign_with(&["x"], |params| params.not_after = rcgen::date_time_ymd(2020, 1, 1)).write(&evoke, "ended");
    let identity = |name: &str| {
        ["cert", "key"]
            .map(|of| (format!("--{of}"), evoke.path(&format!("{name}.{}", if of == "cert" { "pem" } else { "key" }))))
    };
    let identities: Vec<Vec<String>> = ["client", "foreign", "ended"]
        .map(|name| {
            identity(name).into_iter().flat_map(|(option, path)| [option, path.display().to_string()]).collect()
        })
        .into();
    for when in ["required", "optional"] {
        evoke.up_with_arguments(&[&HTTP[..], &["--http-client-ca", "ca.pem", "--http-client-cert", when]].concat());
        for versions in [&["--tlsv1.2", "--tls-max", "1.2"][..], &["--tlsv1.3"]] {
            let posts = |identity: &[String]| {
                let identity: Vec<&str> = identity.iter().map(String::as_str).collect();
                curl(evoke.http(), "/hook", &ca, &[&identity, versions, &POST].concat()).status.success()
            };
            let found: Vec<bool> = identities.iter().map(|identity| posts(identity)).collect();
            assert_eq!(found, [true, false, false], "{when} {versions:?}");
            assert_eq!(posts(&[]), when == "optional", "{when} {versions:?}");
        }
        evoke.stop();
    }
}

#[test]
fn a_function_sees_that_its_request_came_over_tls() {
    let (evoke, _, ca) = up(&http_manifest(PATH), &HTTP);
    for version in ["--http1.1", "--http2"] {
        let seen = text(&curl(evoke.http(), "/web?origin", &ca, &[version, "--header", "X-Forwarded-Proto: http"]));
        assert_eq!(seen, format!("Scheme::Https a.example:{}\n", port(evoke.http())), "{version}");
    }
}

#[test]
fn a_thousand_half_open_handshakes_keep_nobody_out_and_are_closed_in_time() {
    const HALF_OPEN: usize = 1_000;
    let (evoke, _, ca) = up(MANIFEST, &HTTP);
    let before = descriptors(evoke.pid());
    let address = ("127.0.0.1", port(evoke.http()).parse().unwrap());
    let opened = Instant::now();
    let peers: Vec<TcpStream> = (0..HALF_OPEN)
        .map(|_| {
            let mut peer = TcpStream::connect(address).unwrap();
            peer.write_all(b"\x16\x03\x01\x02\x00\x01\x00").unwrap();
            peer
        })
        .collect();
    // At most 512 of them are in their handshake at once.
    for _ in 0..20 {
        let output = text(&curl(evoke.http(), "/hook", &ca, &POST));
        assert!(output.ends_with("\n202 2"), "{output}");
    }
    assert!(descriptors(evoke.pid()) < before + 600, "{} descriptors", descriptors(evoke.pid()));
    for mut peer in peers {
        peer.set_read_timeout(Some(TIMEOUT)).unwrap();
        let mut rest = Vec::new();
        let _ = peer.read_to_end(&mut rest);
    }
    // A handshake may take 5 s; the rest is for a busy machine.
    assert!(opened.elapsed() < Duration::from_secs(30), "closed after {:?}", opened.elapsed());
    assert_eventually!(descriptors(evoke.pid()) <= before + 8, "{} descriptors", descriptors(evoke.pid()));
    println!("{HALF_OPEN} half-open handshakes were closed after {:?}", opened.elapsed());
}
