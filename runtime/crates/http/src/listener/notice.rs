//! Log lines that peers can cause. Each kind of line is logged at most once a minute, so that no peer can fill the log.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

const INTERVAL: Duration = Duration::from_secs(60);

/// One kind of log line.
pub(super) struct Notice(Mutex<Last>);

struct Last {
    at: Option<Instant>,
    /// The number of lines that were left out since `at`.
    omitted: u64,
}

impl Notice {
    pub(super) const fn new() -> Self {
        Self(Mutex::new(Last { at: None, omitted: 0 }))
    }

    /// Calls `log`, unless a line of this kind was logged within the last minute. The argument of `log` is empty, or a
    /// text such as ` (12 more since the last such line)` with the number of lines that were left out.
    pub(super) fn log(&self, log: impl FnOnce(&str)) {
        let omitted = {
            let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if last.at.is_some_and(|at| at.elapsed() < INTERVAL) {
                last.omitted = last.omitted.saturating_add(1);
                return;
            }
            last.at = Some(Instant::now());
            std::mem::take(&mut last.omitted)
        };
        log(&if omitted == 0 { String::new() } else { format!(" ({omitted} more since the last such line)") });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_kind_of_line_is_logged_once_a_minute_with_the_number_of_omitted_ones() {
        let notice = Notice::new();
        let lines = Mutex::new(Vec::new());
        let log = || notice.log(|others| lines.lock().unwrap().push(others.to_owned()));
        log();
        log();
        log();
        tokio::time::advance(INTERVAL).await;
        log();
        tokio::time::advance(INTERVAL).await;
        log();
        assert_eq!(*lines.lock().unwrap(), ["", " (2 more since the last such line)", ""]);
    }
}
