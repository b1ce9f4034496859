//! Starts Evoke and a browser, and finds things in the page.

use std::io::{BufRead as _, BufReader, BufWriter, Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use thirtyfour::prelude::*;

/// How long anything may take: the machine may be busy.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// A shop: orders become payments, payments become receipts.
pub(crate) const SHOP: &str = r#"
evoke: 1
app: shop
sources:
  checkout: { http: { path: /checkout, type: order.placed } }
functions:
  charge:
    component: $FUNCTIONS/charge.wasm
    on: [{ events: { type: [order.placed] } }]
    order_by: data.customer
    retry: { attempts: 6, backoff: 100ms }
    allow: { publish: ["payment.*"], config: { CURRENCY: EUR } }
  receipt:
    component: $FUNCTIONS/receipt.wasm
    on: [{ events: { type: [payment.taken], data: { total: [{ numeric: [">", 0] }] } } }]
    allow: { publish: ["receipt.*"] }
  notify:
    component: $FUNCTIONS/notify.wasm
    on: [{ events: { type: [receipt.issued] } }]
"#;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn program() -> PathBuf {
    std::env::var_os("EVOKE_BIN").map_or_else(|| root().join("target/release/evoke"), PathBuf::from)
}

/// A running Evoke in a folder of its own.
pub(crate) struct Evoke {
    folder: TempDir,
    process: Child,
    pub(crate) admin: String,
    pub(crate) http: String,
}

impl Evoke {
    pub(crate) async fn up(manifest: &str) -> Self {
        let folder = TempDir::new().unwrap();
        let functions = root().join("functions/target/components");
        std::fs::write(folder.path().join("evoke.yaml"), manifest.replace("$FUNCTIONS", functions.to_str().unwrap()))
            .unwrap();
        let process = start(folder.path(), "127.0.0.1:0", "127.0.0.1:0");
        let (admin, http) = listening(folder.path()).await;
        Self { folder, process, admin, http }
    }

    /// Ends the process and starts another one at the same addresses.
    pub(crate) async fn restart(&mut self) {
        self.end();
        self.process = start(self.folder.path(), &self.http, &self.admin);
        listening(self.folder.path()).await;
    }

    pub(crate) fn end(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
        let _ = std::fs::remove_file(self.folder.path().join(".evoke/listen.json"));
    }

    /// Runs a command and returns its output.
    pub(crate) fn stdout(&self, arguments: &[&str]) -> String {
        let output = Command::new(program()).args(arguments).current_dir(self.folder.path()).output().unwrap();
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    /// Sends the CloudEvents that `write` writes, one on each line, through a spool.
    pub(crate) fn emit(&self, write: impl FnOnce(&mut BufWriter<ChildStdin>)) {
        let mut command = Command::new(program());
        // Ten million lines are read faster than they are stored.
        command.args(["emit", "--spool", "spool", "--spool-max", "16GiB", "--wait", "60s", "-"]);
        command.current_dir(self.folder.path());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let mut input = BufWriter::with_capacity(1 << 20, process.stdin.take().unwrap());
        write(&mut input);
        drop(input.into_inner().unwrap());
        assert!(process.wait().unwrap().success());
    }

    /// Starts a command on a terminal of its own, whose output can be read.
    pub(crate) fn on_terminal(&self, arguments: &[&str]) -> Child {
        let quoted: Vec<_> = arguments.iter().map(|argument| format!("'{argument}'")).collect();
        let line = format!("'{}' {}", program().display(), quoted.join(" "));
        let mut command = Command::new("script");
        command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).current_dir(self.folder.path());
        command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap()
    }

    pub(crate) fn process_id(&self) -> u32 {
        self.process.id()
    }

    /// The dead letters.
    pub(crate) fn dead(&self) -> Vec<Value> {
        self.stdout(&["dead", "list", "--json"]).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    /// The owner's token for the admin API.
    pub(crate) fn token(&self) -> String {
        std::fs::read_to_string(self.folder.path().join(".evoke/admin.token")).unwrap().trim().to_owned()
    }

    /// A link that opens the console with a token of this role.
    pub(crate) fn link(&self, role: &str) -> String {
        if role == "operator" {
            return self.stdout(&["console", "--no-open"]).trim().to_owned();
        }
        let token = self.folder.path().join("viewer.token");
        if !token.exists() {
            std::fs::write(&token, self.stdout(&["token", "create", "v", "--role", role])).unwrap();
        }
        self.stdout(&["console", "--no-open", "--token-file", token.to_str().unwrap()]).trim().to_owned()
    }

    /// Serves the console over the data folder of the stopped process. Returns the server and the link.
    pub(crate) fn offline(&self) -> (Child, String) {
        let mut command = Command::new(program());
        command.args(["console", "--no-open", "--offline", ".evoke"]).current_dir(self.folder.path());
        let mut server = command.stdout(Stdio::piped()).stderr(Stdio::null()).spawn().unwrap();
        let mut link = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut link).unwrap();
        (server, link.trim().to_owned())
    }

    /// Sends an order to the http source.
    pub(crate) fn order(&self, order: &Value) {
        let (status, response) = post_json(&self.http, "/checkout", order);
        assert_eq!(status, 202, "{response}");
    }
}

impl Drop for Evoke {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn start(folder: &Path, http: &str, admin: &str) -> Child {
    let arguments = ["up", "evoke.yaml", "--http", http, "--admin", admin];
    let mut command = Command::new(program());
    command.args(arguments).current_dir(folder).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.spawn().unwrap()
}

/// Waits until Evoke has written its addresses: admin and http.
async fn listening(folder: &Path) -> (String, String) {
    let path = folder.join(".evoke/listen.json");
    eventually("Evoke listens", async || {
        let found: Value = serde_json::from_str(&std::fs::read_to_string(&path).ok()?).ok()?;
        let address = |name: &str| Some(found[name].as_str()?.trim_start_matches("http://").to_owned());
        Some((address("admin")?, address("http")?))
    })
    .await
}

/// Polls until there is a result.
pub(crate) async fn eventually<T>(what: &str, mut poll: impl AsyncFnMut() -> Option<T>) -> T {
    let started = Instant::now();
    loop {
        if let Some(result) = poll().await {
            return result;
        }
        assert!(started.elapsed() < TIMEOUT, "it did not happen: {what}");
        tokio::time::sleep(POLL).await;
    }
}

/// Sends a JSON body; returns the status and the body of the response.
pub(crate) fn post_json(address: &str, path: &str, body: &Value) -> (u16, String) {
    let body = body.to_string();
    let mut stream = TcpStream::connect(address).unwrap();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
    // chromedriver keeps the connection open.
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        assert!(reader.read_line(&mut head).unwrap() > 0, "{head}");
    }
    let length = head.to_lowercase();
    let length = length.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
    let mut body = vec![0; length.unwrap_or_default()];
    reader.read_exact(&mut body).unwrap();
    (head.split(' ').nth(1).unwrap().parse().unwrap(), String::from_utf8(body).unwrap())
}

/// The number of ports that chromedriver may choose.
const DRIVERS_MAX: u32 = 5;

/// Starts chromedriver, and returns it with its port. Returns `None` if it ends without one: it takes a port that is
/// free for IPv6, and ends if another process uses the same port for IPv4.
fn start_driver() -> Option<(Child, String)> {
    let mut driver = Command::new("chromedriver")
        .arg("--port=0")
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .expect("chromedriver is installed (Debian: chromium-driver)");
    let lines = BufReader::new(driver.stdout.take().unwrap()).lines();
    let port = lines.map_while(Result::ok).find_map(|line| {
        let port = line.split_once("started successfully on port ")?.1;
        Some(port.trim_end_matches('.').to_owned())
    });
    if port.is_none() {
        driver.wait().unwrap();
    }
    Some((driver, port?))
}

/// A browser with one page.
pub(crate) struct Browser {
    driver: Child,
    address: String,
    pub(crate) page: WebDriver,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        let (driver, port) =
            (0..DRIVERS_MAX).find_map(|_| start_driver()).expect("chromedriver starts and names its port");
        let address = format!("127.0.0.1:{port}");
        let mut capabilities = DesiredCapabilities::chrome();
        // Containers have a small /dev/shm, and no sandbox for root.
        let limits = ["--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"];
        for argument in limits.into_iter().chain(["--headless=new", "--window-size=1600,1000", "--lang=en"]) {
            capabilities.add_arg(argument).unwrap();
        }
        capabilities.as_mut().set("goog:loggingPrefs", json!({ "browser": "ALL" })).unwrap();
        let page = WebDriver::new(format!("http://{address}"), capabilities).await.unwrap();
        Self { driver, address, page }
    }

    /// Opens the console of an Evoke in a view.
    pub(crate) async fn open(&self, evoke: &Evoke, role: &str, view: &str) {
        self.page.goto(evoke.link(role)).await.unwrap();
        self.see("nav.side a").await;
        self.go(view).await;
    }

    /// Goes to a view, such as `dead?fn=shop/charge`.
    pub(crate) async fn go(&self, view: &str) {
        self.run(&format!("location.hash = '#/{view}'")).await;
    }

    /// Waits for an element that is shown, by a CSS selector.
    pub(crate) async fn see(&self, css: &str) -> WebElement {
        eventually(css, async || {
            let found = self.page.find(By::Css(css)).await.ok()?;
            found.is_displayed().await.ok()?.then_some(found)
        })
        .await
    }

    /// Waits until the text of an element has these words.
    pub(crate) async fn read(&self, css: &str, words: &str) -> String {
        let what = format!("{css} has the text {words:?}");
        eventually(&what, async || {
            let text = self.page.find(By::Css(css)).await.ok()?.text().await.ok()?;
            text.contains(words).then_some(text)
        })
        .await
    }

    /// Waits until an element can be clicked, and clicks it. The page may draw it again meanwhile.
    pub(crate) async fn click(&self, css: &str) {
        let what = format!("{css} can be clicked");
        eventually(&what, async || self.page.find(By::Css(css)).await.ok()?.click().await.ok()).await;
    }

    /// Clicks the first button or link below an element with exactly this text.
    pub(crate) async fn press(&self, within: &str, text: &str) {
        let script = format!(
            "const found = [...document.querySelectorAll({within:?} + ' button, ' + {within:?} + ' a')]\
             .find((one) => one.textContent.trim() === {text:?} && !one.disabled); found?.click(); return !!found"
        );
        let what = format!("{text:?} in {within} can be pressed");
        eventually(&what, async || (self.run(&script).await == json!(true)).then_some(())).await;
    }

    /// Sets the text of a field, as if the user had typed it.
    pub(crate) async fn fill(&self, css: &str, text: &str) {
        self.see(css).await;
        self.run(&format!(
            "const field = document.querySelector({css:?}); field.value = {}; \
             field.dispatchEvent(new Event('input', {{ bubbles: true }})); \
             field.dispatchEvent(new Event('change', {{ bubbles: true }}))",
            json!(text)
        ))
        .await;
    }

    /// Presses keys, wherever the focus is.
    pub(crate) async fn keys(&self, keys: &str) {
        self.page.active_element().await.unwrap().send_keys(keys).await.unwrap();
    }

    /// Runs a script, and returns its result.
    pub(crate) async fn run(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap().json().clone()
    }

    /// Runs a script in each page before its own scripts.
    pub(crate) async fn before_each_page(&self, script: &str) {
        let params = json!({ "source": script });
        let body = json!({ "cmd": "Page.addScriptToEvaluateOnNewDocument", "params": params });
        self.command("goog/cdp/execute", &body).await;
    }

    /// Sets the size of the page. A window cannot be as narrow as a phone.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let params = json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.command("goog/cdp/execute", &json!({ "cmd": "Emulation.setDeviceMetricsOverride", "params": params }))
            .await;
    }

    /// Sets the colour scheme that the page is asked for: `light` or `dark`.
    pub(crate) async fn prefer(&self, scheme: &str) {
        let features = json!([{ "name": "prefers-color-scheme", "value": scheme }]);
        let params = json!({ "features": features });
        self.command("goog/cdp/execute", &json!({ "cmd": "Emulation.setEmulatedMedia", "params": params })).await;
    }

    /// Sends a command of chromedriver's own to it.
    async fn command(&self, path: &str, body: &Value) -> Value {
        let session = self.page.session_id().to_string();
        let (status, body) = post_json(&self.address, &format!("/session/{session}/{path}"), body);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    /// Returns the messages in the browser's console since the last call.
    pub(crate) async fn messages(&self) -> Vec<String> {
        let found = self.command("se/log", &json!({ "type": "browser" })).await;
        let entries = found["value"].as_array().unwrap().iter();
        entries.map(|entry| format!("{}: {}", entry["level"], entry["message"])).collect()
    }

    pub(crate) async fn close(self) {
        self.page.clone().quit().await.unwrap();
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        // After a failure, the browser is still running, in the group of its driver.
        let group = format!("-{}", self.driver.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.driver.wait();
    }
}
