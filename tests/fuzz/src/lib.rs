//! The runtime modules without I/O, included by path for the targets in `fuzz_targets`. Modules with I/O that they
//! depend on are replaced by stubs.
#![allow(dead_code, unused_imports, missing_docs, unreachable_pub)]

pub mod oracle;

#[path = "../../../runtime/src"]
mod runtime {
    pub mod clock;
    pub mod event;
    pub mod pattern;
    pub mod telemetry {
        pub mod context;
    }
    pub mod source {
        pub mod http {
            pub mod cloudevents;

            /// A stub of the problem response, without the conversion to a hyper response.
            pub mod problem {
                #[derive(Debug)]
                pub struct Problem {
                    pub status: http::StatusCode,
                    pub detail: String,
                }

                impl Problem {
                    pub fn new(status: http::StatusCode, detail: impl Into<String>) -> Self {
                        Self { status, detail: detail.into() }
                    }

                    pub fn malformed(detail: impl Into<String>) -> Self {
                        Self::new(http::StatusCode::BAD_REQUEST, detail)
                    }
                }
            }

            /// Reads the events of a request as the http source does. A raw body is accepted only if `type_` is given.
            pub fn read(
                headers: &http::HeaderMap,
                body: bytes::Bytes,
                type_: Option<&str>,
            ) -> Result<Vec<crate::event::Event>, problem::Problem> {
                let raw = cloudevents::Raw { type_, source: "/fuzz/in", now_ms: 1_700_000_000_000 };
                cloudevents::Mode::of(headers, &raw)?.read(headers, body, &raw)
            }
        }
    }
}

pub use runtime::source::http;
pub use runtime::{clock, event, pattern};

pub mod telemetry {
    pub use crate::runtime::telemetry::context::Traceparent;
}
