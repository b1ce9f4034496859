//! Notifies the service manager (systemd) of the start, of reloads and of the stop, and notifies its watchdog. The
//! protocol is that of sd_notify(3): datagrams of `NAME=VALUE` lines, sent to the socket that the environment variable
//! `NOTIFY_SOCKET` names. Without this variable, nothing is sent.

use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

use evoke_store::Store;

/// The service manager that started this process, if one did.
pub(super) struct ServiceManager {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// The time after which the service manager restarts a process that has not notified its watchdog.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Reads `NOTIFY_SOCKET`, `WATCHDOG_USEC` and `WATCHDOG_PID`. A socket that cannot be used is logged.
    pub(super) fn from_environment() -> Self {
        let socket = std::env::var_os("NOTIFY_SOCKET").filter(|path| !path.is_empty()).and_then(|path| {
            let opened = open(&path);
            opened.inspect_err(|error| tracing::warn!(%error, "cannot use the socket in NOTIFY_SOCKET")).ok()
        });
        let of_this_process = std::env::var("WATCHDOG_PID").map_or(true, |pid| pid == std::process::id().to_string());
        let watchdog = std::env::var("WATCHDOG_USEC").ok().and_then(|time| time.parse().ok()).filter(|us| *us > 0);
        Self { socket, watchdog: watchdog.filter(|_| of_this_process).map(Duration::from_micros) }
    }

    /// Reports that events are accepted.
    pub(super) fn ready(&self) {
        self.send("READY=1\nSTATUS=accepting events");
    }

    /// Reports that a reload starts; [`ServiceManager::ready`] reports its end.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let us = now.tv_sec * 1_000_000 + now.tv_nsec / 1_000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={us}\nSTATUS=reloading"));
    }

    /// Reports that Evoke stops and waits for running deliveries.
    pub(super) fn stopping(&self) {
        self.send("STOPPING=1\nSTATUS=waiting for running deliveries");
    }

    /// Notifies the watchdog each time half of its time limit has passed, as long as the store responds to commits. A
    /// failed commit, for example on a full disk, is also a response, because a restart would not help. Never
    /// returns.
    pub(super) async fn answer_watchdog(&self, store: &dyn Store) {
        let (Some(_), Some(time)) = (&self.socket, self.watchdog) else { return std::future::pending().await };
        let mut interval = tokio::time::interval(time / 2);
        interval.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            interval.tick().await;
            // An empty commit passes through the queue of all writes, and writes nothing.
            match tokio::time::timeout(time, store.accept(Vec::new(), Vec::new())).await {
                Ok(_) => self.send("WATCHDOG=1"),
                Err(_) => tracing::error!(
                    "the store has not responded for {time:?}: the watchdog of the service manager is not notified"
                ),
            }
        }
    }

    /// Sends a message. An error is only logged, because the service manager has time limits for missing messages.
    fn send(&self, message: &str) {
        if let Some((socket, address)) = &self.socket
            && let Err(error) = socket.send_to_addr(message.as_bytes(), address)
        {
            tracing::warn!(%error, "cannot notify the service manager");
        }
    }
}

/// Opens a socket for messages. The address is a path or, if it starts with `@`, a name in the abstract namespace.
fn open(path: &OsStr) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager normally reads messages immediately. If its queue is full, sending must not block Evoke.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}
