//! The web console: its files, its sessions, and the parts of the API that only the console needs.
//!
//! | request | response |
//! |---|---|
//! | `GET /`, `GET /console/{file}` | the files of the console, which need no token |
//! | `POST /api/v1/console/codes` | a code that opens one session with the rights of the token: [`session::Code`] |
//! | `POST /api/v1/console/session` | body: the code; needs no token; sets the cookie: [`session::Session`] |
//! | `GET`, `DELETE /api/v1/console/session` | shows or ends the session of the request |
//! | `GET /api/v1/console/live?events=&type=&source=` | server-sent events: [`live`] |
//! | `GET /api/v1/console/events?…` | a page of events, newest first: [`events::Page`] |
//! | `POST /api/v1/console/pattern` | body: [`pattern::Request`]; checks a pattern, and finds stored events: [`pattern::Found`] |
//! | `GET /api/v1/console/flow` | the graph of sources, functions and types with rates: [`flow::Flow`] |
//! | `GET /api/v1/console/rates?range=` | rates and percentiles of the functions: [`rates::Rates`] |

pub(super) mod assets;
pub(super) mod events;
pub(super) mod flow;
pub(super) mod live;
pub(super) mod pattern;
pub(super) mod rates;
mod row;
pub(super) mod session;
mod sessions;

pub(super) use self::rates::{History, sample};
pub(super) use self::sessions::Sessions;

/// The data that the requests of the console share.
#[derive(Default)]
pub struct Console {
    /// Codes and sessions.
    pub(super) sessions: Sessions,
    /// Counts of the functions over the last day.
    pub(super) history: History,
}
