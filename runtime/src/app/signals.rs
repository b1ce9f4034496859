//! The signals that Evoke receives.
//!
//! | signal | effect |
//! |---|---|
//! | SIGTERM, SIGINT (Ctrl-C) | drain and stop; a second signal ends the process immediately |
//! | SIGHUP from a terminal that closes | drain and stop |
//! | any other SIGHUP | reload the manifests and certificates |
//! | SIGUSR1, SIGUSR2 | ignored by `up` |
//! | SIGXFSZ | ignored by `up`: a write beyond the limit of `ulimit -f` returns an error instead |
//! | SIGPIPE | ignored (by Rust's runtime): a write to a closed pipe returns an error instead |
//! | SIGTSTP, SIGCONT, SIGQUIT and the others | the system's default |
//!
//! No signal loses data: an end at any moment is like a crash, which the store survives.

use std::io::IsTerminal as _;

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Receives SIGTERM and SIGINT (Ctrl-C). Once this value is created, these signals no longer end the process by
/// themselves.
pub struct StopSignals {
    terminate: Signal,
    interrupt: Signal,
}

impl StopSignals {
    /// Starts to receive the signals. Must be called within a tokio runtime.
    pub fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    /// Waits for the next signal.
    pub async fn received(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

/// The action that a signal requests.
pub(super) enum Request {
    Stop,
    Reload,
}

/// The signals of `up`.
pub(super) struct Signals {
    stop: StopSignals,
    hangup: Signal,
    /// Signals that are received but never read, so they are ignored.
    _ignored: [Signal; 3],
    /// For standard input, output and error: true if it was a terminal at the start.
    terminals: [bool; 3],
    /// True if a reload was requested while Evoke waited only for a stop.
    reload_pending: bool,
}

impl Signals {
    /// Starts to receive the signals. Must be called within a tokio runtime.
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            stop: StopSignals::new()?,
            hangup: signal(SignalKind::hangup())?,
            _ignored: [
                signal(SignalKind::user_defined1())?,
                signal(SignalKind::user_defined2())?,
                signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
            ],
            terminals: terminals(),
            reload_pending: false,
        })
    }

    /// Waits for the next request.
    pub(super) async fn next(&mut self) -> Request {
        if std::mem::take(&mut self.reload_pending) {
            return Request::Reload;
        }
        self.receive().await
    }

    /// Waits for the next signal.
    async fn receive(&mut self) -> Request {
        tokio::select! {
            () = self.stop.received() => Request::Stop,
            _ = self.hangup.recv() => match self.is_terminal_closed() {
                true => Request::Stop,
                false => Request::Reload,
            },
        }
    }

    /// Waits for a request to stop. If a reload is requested meanwhile, [`Signals::next`] returns that request later.
    pub(super) async fn stop(&mut self) {
        // The caller may drop this future at any time, so the request is recorded before the next wait.
        while let Request::Reload = self.receive().await {
            self.reload_pending = true;
        }
    }

    /// Waits for SIGTERM or SIGINT. A terminal that closes may send several SIGHUP, which do not count here.
    pub(super) async fn second_stop(&mut self) {
        self.stop.received().await;
    }

    /// Returns true if a terminal that existed at the start is closed. The system sends SIGHUP when a terminal closes.
    fn is_terminal_closed(&self) -> bool {
        self.terminals.iter().zip(terminals()).any(|(was, is)| *was && !is)
    }
}

fn terminals() -> [bool; 3] {
    [std::io::stdin().is_terminal(), std::io::stdout().is_terminal(), std::io::stderr().is_terminal()]
}
