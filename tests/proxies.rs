//! Proxies in front of the http sources. The tests with nginx are not part of the build, so `cargo test` ignores them;
//! `tests/proxies/run` runs them.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};

use crate::assert_eventually;
use crate::certificates::{Authority, port};
use crate::component_kinds::{PATH, http_manifest};
use crate::support::{Evoke, TIMEOUT};

/// The address of the client in these tests, which is no proxy. All of 127.0.0.0/8 is this machine.
const CLIENT: &str = "127.9.9.9";
/// The address that nginx listens on. No other process uses this address, so a port that was free stays free.
const NGINX: &str = "127.7.7.7";

/// Starts the fixture that returns where its request came from.
fn up(arguments: &[&str]) -> Evoke {
    let mut evoke = Evoke::with(&http_manifest(PATH));
    evoke.up_with_arguments(arguments);
    evoke
}

/// Runs curl from a source address. Returns its standard output.
fn curl(from: &str, url: &str, arguments: &[&str]) -> String {
    let common = ["--disable", "--silent", "--show-error", "--noproxy", "*", "--max-time", "30", "--interface", from];
    let output = Command::new("curl").args(common).args(arguments).arg(url).output().expect("curl runs");
    assert!(output.status.success(), "{output:?}");
    String::from_utf8(output.stdout).unwrap()
}

fn exchange(evoke: &Evoke, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(evoke.http()).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.write_all(bytes).unwrap();
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    String::from_utf8_lossy(&response).into_owned()
}

const SPOOFED: [&str; 8] = [
    "--header",
    "X-Forwarded-For: 192.0.2.1",
    "--header",
    "X-Forwarded-Host: evil.example",
    "--header",
    "X-Forwarded-Proto: https",
    "--header",
    "X-Real-IP: 192.0.2.1",
];

#[test]
fn headers_about_the_client_are_believed_from_listed_proxies_only() {
    for trusted in [&["--trusted-proxies", "127.0.0.1,10.0.0.0/8"][..], &[]] {
        let evoke = up(trusted);
        let url = format!("http://{}/web?origin", evoke.http());
        let direct = format!("Scheme::Http {}\n", evoke.http());
        assert_eq!(curl(CLIENT, &url, &SPOOFED), direct);
        assert_eq!(curl(CLIENT, &url, &["--header", "Forwarded: for=192.0.2.1;proto=https;host=evil.example"]), direct);
        let from_proxy = curl("127.0.0.1", &url, &SPOOFED);
        if trusted.is_empty() {
            assert_eq!(from_proxy, direct);
            continue;
        }
        let seen = "Scheme::Https evil.example\nx-forwarded-for: 192.0.2.1\nx-forwarded-proto: https\nx-forwarded-host: evil.example\n";
        assert_eq!(sorted(&from_proxy), sorted(seen));
        // Addresses that the client itself has written in front do not count.
        let list = ["--header", "X-Forwarded-For: 192.0.2.66, 198.51.100.7, 10.0.0.3"];
        assert!(curl("127.0.0.1", &url, &list).contains("\nx-forwarded-for: 198.51.100.7\n"));
        let standard = ["--header", "Forwarded: for=192.0.2.66, for=\"[2001:db8::7]:80\";proto=https"];
        let seen = "Scheme::Https {}\nx-forwarded-for: 2001:db8::7\nx-forwarded-proto: https\n";
        assert_eq!(sorted(&curl("127.0.0.1", &url, &standard)), sorted(&seen.replace("{}", evoke.http())));
    }
}

fn sorted(text: &str) -> Vec<&str> {
    let mut lines: Vec<&str> = text.lines().collect();
    lines.sort_unstable();
    lines
}

#[test]
fn the_proxy_protocol_is_required_from_listed_proxies_and_believed_from_no_other() {
    let request = "GET /web?origin HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let header = "PROXY TCP4 192.0.2.1 192.0.2.2 4000 80\r\n";
    let evoke = up(&["--trusted-proxies", "127.0.0.1", "--proxy-protocol"]);
    let response = exchange(&evoke, format!("{header}{request}").as_bytes());
    assert!(response.contains("x-forwarded-for: 192.0.2.1\n") && response.contains("200 OK"), "{response}");
    // The client is no proxy, so its own headers are not believed.
    let forged = request.replace("Host:", "X-Forwarded-For: 192.0.2.66\r\nHost:");
    let response = exchange(&evoke, format!("{header}{forged}").as_bytes());
    assert!(response.contains("x-forwarded-for: 192.0.2.1\n"), "{response}");
    for wrong in [request.to_owned(), format!("PROXY TCP4 x y 1 2\r\n{request}"), "PROXY ".repeat(100)] {
        assert_eq!(exchange(&evoke, wrong.as_bytes()), "", "{wrong}");
    }
    let metrics = evoke.get_admin("/metrics", &[]).body;
    let counted = "evoke_connections_refused_total{listener=\"public\",reason=\"proxy-header\"} 3";
    assert!(metrics.contains(counted), "{metrics}");
    assert_eventually!(evoke.log().contains("a connection from the proxy 127.0.0.1:"), "{}", evoke.log());

    let evoke = up(&["--trusted-proxies", "10.0.0.1", "--proxy-protocol"]);
    let response = exchange(&evoke, format!("{header}{request}").as_bytes());
    assert!(response.starts_with("HTTP/1.1 400 "), "{response}");
    assert!(exchange(&evoke, request.as_bytes()).contains("200 OK"));
}

/// nginx with a configuration of its own, in its own folder.
struct Nginx {
    process: Child,
    /// Where nginx forwards connections with the PROXY protocol.
    stream: String,
    /// Where nginx forwards requests with `X-Forwarded-` headers.
    http: String,
}

impl Nginx {
    /// Starts nginx in front of Evoke, in the folder of that Evoke.
    fn start(evoke: &Evoke) -> Self {
        let free = || TcpListener::bind((NGINX, 0)).unwrap().local_addr().unwrap();
        let (stream, http) = (free(), free());
        let folder = evoke.path("nginx");
        std::fs::create_dir(&folder).unwrap();
        let (at, to) = (folder.display(), format!("127.0.0.1:{}", port(evoke.http())));
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|of| format!("{of}_temp_path {at}/{of};"))
            .concat();
        let user = if rustix::process::geteuid().is_root() { "user root;" } else { "" };
        let configuration = format!(
            "load_module /usr/lib/nginx/modules/ngx_stream_module.so; {user} daemon off; master_process off;
             pid {at}/pid; error_log {at}/error.log; events {{}}
             stream {{ server {{ listen {stream}; proxy_pass {to}; proxy_protocol on; }} }}
             http {{
               access_log off; {temporary}
               server {{
                 listen {http};
                 location / {{
                   proxy_pass http://{to};
                   proxy_set_header Host $http_host;
                   proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
                   proxy_set_header X-Forwarded-Proto $scheme;
                   proxy_set_header X-Forwarded-Host $http_host;
                 }}
               }}
             }}"
        );
        std::fs::write(folder.join("nginx.conf"), configuration).unwrap();
        let mut command = Command::new("nginx");
        command.arg("-p").arg(&folder).arg("-c").arg(folder.join("nginx.conf")).arg("-e").arg(folder.join("error.log"));
        let process = command.stdin(Stdio::null()).spawn().expect("nginx is missing: run tests/proxies/run");
        let nginx = Self { process, stream: stream.to_string(), http: http.to_string() };
        let is_up = || TcpStream::connect(stream).is_ok() && TcpStream::connect(http).is_ok();
        let log = || std::fs::read_to_string(folder.join("error.log")).unwrap_or_default();
        assert_eventually!(is_up(), "nginx does not start: {}", log());
        nginx
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

#[test]
#[ignore = "needs nginx: run tests/proxies/run"]
fn nginx_names_the_client_with_the_proxy_protocol() {
    let evoke = up(&["--trusted-proxies", "127.0.0.1", "--proxy-protocol"]);
    let nginx = Nginx::start(&evoke);
    let url = format!("http://{}/web?origin", nginx.stream);
    let expected = format!("Scheme::Http {}\nx-forwarded-for: {CLIENT}\nx-forwarded-proto: http\n", nginx.stream);
    assert_eq!(sorted(&curl(CLIENT, &url, &[])), sorted(&expected));
    assert_eq!(sorted(&curl(CLIENT, &url, &SPOOFED)), sorted(&expected));
    assert_eq!(
        curl(
            CLIENT,
            &url,
            &["--data", "x".repeat(50_000).as_str(), "--output", "/dev/null", "--write-out", "%{http_code}"]
        ),
        "200"
    );
}

#[test]
#[ignore = "needs nginx: run tests/proxies/run"]
fn nginx_passes_tls_on_behind_the_proxy_protocol() {
    let mut evoke = Evoke::with(&http_manifest(PATH));
    let authority = Authority::new();
    let ca = authority.write(&evoke, "ca.pem").display().to_string();
    authority.sign(&["a.example"]).write(&evoke, "a");
    let tls = ["--http-cert", "a.pem", "--http-key", "a.key"];
    evoke.up_with_arguments(&[&tls[..], &["--trusted-proxies", "127.0.0.1", "--proxy-protocol"]].concat());
    let nginx = Nginx::start(&evoke);
    let port = port(&nginx.stream);
    let (host, resolve) = (format!("a.example:{port}"), format!("a.example:{port}:{NGINX}"));
    for version in ["--http1.1", "--http2"] {
        let seen =
            curl(CLIENT, &format!("https://{host}/web?origin"), &["--cacert", &ca, "--resolve", &resolve, version]);
        let expected = format!("Scheme::Https {host}\nx-forwarded-for: {CLIENT}\nx-forwarded-proto: https\n");
        assert_eq!(sorted(&seen), sorted(&expected), "{version}");
    }
}

#[test]
#[ignore = "needs nginx: run tests/proxies/run"]
fn nginx_names_the_client_in_headers() {
    let evoke = up(&["--trusted-proxies", "127.0.0.1"]);
    let nginx = Nginx::start(&evoke);
    let url = format!("http://{}/web?origin", nginx.http);
    let expected = format!(
        "Scheme::Http {0}\nx-forwarded-for: {CLIENT}\nx-forwarded-proto: http\nx-forwarded-host: {0}\n",
        nginx.http
    );
    assert_eq!(sorted(&curl(CLIENT, &url, &[])), sorted(&expected));
    // nginx appends the client's address to what the client has sent.
    assert_eq!(sorted(&curl(CLIENT, &url, &SPOOFED)), sorted(&expected));
    // nginx passes this header on, and does not write it: the two headers disagree, so neither is used.
    let forged = curl(CLIENT, &url, &["--header", "Forwarded: for=192.0.2.1"]);
    assert!(!forged.contains("192.0.2.1") && !forged.contains("x-forwarded-for"), "{forged}");
}
