//! Limits of the system on the process: the size of a file (`ulimit -f`) and the number of open files (`ulimit -n`).
//! Evoke refuses what does not fit, loses nothing, and continues when there is room.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use rustix::process::{Pid, Resource, Rlimit, prlimit};

use crate::assert_eventually;
use crate::support::{Evoke, Response, get, post};

const MANIFEST: &str = "
evoke: 1
app: lab
sources:
  in:
    http: { path: /in, methods: [POST], type: order.placed }
  inbox:
    files: { path: ., include: [\"*.txt\"], settle: 20ms }
";

fn limit_file_size(evoke: &Evoke, bytes: Option<u64>) {
    let pid = Pid::from_raw(i32::try_from(evoke.pid()).unwrap());
    prlimit(pid, Resource::Fsize, Rlimit { current: bytes, maximum: None }).unwrap();
}

fn send(evoke: &Evoke) -> Response {
    post(evoke.http(), "/in", &[("content-type", "application/json")], &format!("\"{}\"", "x".repeat(20_000))).unwrap()
}

#[test]
fn a_log_at_the_limit_of_file_sizes_refuses_events_like_a_full_disk_and_ends_nothing() {
    let mut evoke = Evoke::up_with(MANIFEST);
    let mut accepted = 0;
    (0..10).for_each(|_| accepted += u32::from(send(&evoke).status == 202));
    assert_eq!(accepted, 10, "{}", evoke.log());
    let length = fs::metadata(evoke.path(".evoke/evoke.db-wal")).unwrap().len();
    limit_file_size(&evoke, Some(length + 100_000));
    let refused = (0..1_000).map(|_| send(&evoke)).find(|response| {
        accepted += u32::from(response.status == 202);
        response.status != 202
    });
    let refused = refused.unwrap();
    assert_eq!(refused.status, 503, "{refused:?}: {}", evoke.log());
    assert!(refused.headers.contains_key("retry-after"), "{refused:?}");
    assert_eq!(get(evoke.admin(), "/healthz").status, 200);
    limit_file_size(&evoke, None);
    assert_eventually!(send(&evoke).status == 202, "not accepted again: {}", evoke.log());
    accepted += 1;
    evoke.kill();
    evoke.up();
    let stored = evoke.json_lines(&["events", "--type", "order.placed", "--after", "0"]).len();
    assert_eq!(stored, accepted as usize, "{}", evoke.log());
    evoke.stdout(&["check"]);
}

#[test]
fn clients_that_only_connect_leave_descriptors_for_everything_else() {
    let mut evoke = Evoke::with(MANIFEST);
    evoke.set_launcher(&["prlimit", "--nofile=200:200"]);
    evoke.up();
    let idle: Vec<TcpStream> = (0..180).map(|_| TcpStream::connect(evoke.http()).unwrap()).collect();
    // The oldest connections keep their place; a later one gets a response at once.
    let mut last = idle.last().unwrap();
    let mut response = [0; 12];
    last.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").and_then(|()| last.read_exact(&mut response)).unwrap();
    assert_eq!(&response, b"HTTP/1.1 503");
    assert_eq!(get(evoke.admin(), "/healthz").status, 200);
    evoke.stdout(&["check"]);
    fs::write(evoke.path("a.txt"), "a").unwrap();
    let files = || evoke.json_lines(&["events", "--type", "evoke.file.created", "--after", "0"]).len();
    assert_eventually!(files() == 1, "{}", evoke.log());
    drop(idle);
    assert_eventually!(send(&evoke).status == 202, "not accepted again: {}", evoke.log());
    assert!(!evoke.log().contains("cannot accept connections"), "{}", evoke.log());
}
