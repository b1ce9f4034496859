//! A load generator for any HTTP server. Prints requests per second, latencies and errors.
//!
//! `cargo bench -p evoke --bench load -- http://ADDR:PORT/PATH [--connections N] [--seconds S] [--post JSON] [--status
//! N]`. Without an address, it measures itself, with a server that sends the same bytes for every request. The result
//! is an upper bound for any other server.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

#[path = "support/load.rs"]
mod load;
use load::{HEADINGS, Load, Target};

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let smoke = arguments.iter().any(|a| a == "--smoke") || !arguments.iter().any(|a| a == "--bench");
    let option = |name: &str| {
        arguments.iter().position(|a| a == name).map(|at| arguments.get(at + 1).expect("a value").as_str())
    };
    let number = |name: &str| option(name).map(|text| text.parse::<f64>().expect("a number"));
    let time = Duration::from_secs_f64(number("--seconds").unwrap_or(if smoke { 0.05 } else { 4.0 }));
    let connections = number("--connections").map_or(vec![1, 16, 64], |n| vec![n as usize]);
    let url = arguments.iter().find_map(|a| a.strip_prefix("http://"));

    // One thread: more threads would take CPU time from the server.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let target = match url {
        Some(url) => {
            let (address, path) = url.split_once('/').unwrap_or((url, ""));
            let address = address.to_socket_addrs().expect("an address").next().expect("an address");
            let (path, status) = (format!("/{path}"), number("--status").map(|status| status as u16));
            match option("--post") {
                Some(body) => Target::post(address, &path, body, status.unwrap_or(202)),
                None => Target { status: status.unwrap_or(200), ..Target::get(address, &path) },
            }
        }
        None => Target::get(start_fixed_response_server(), "/"),
    };
    println!("connections {HEADINGS}");
    for connections in connections {
        let load = runtime.block_on(Load::run(&target, connections, time));
        println!("{connections:>11} {}", load.columns());
    }
}

/// Starts a server on a new thread. The server sends the same response after every read.
fn start_fixed_response_server() -> SocketAddr {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        runtime.block_on(async {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while stream.read(&mut buffer).await.is_ok_and(|read| read > 0) {
                        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").await.unwrap();
                    }
                });
            }
        });
    });
    address
}
