//! The runtime's pure modules, taken from their place, for the targets in `fuzz_targets`. Whoever these modules ask
//! for something with I/O gets a stand-in that only carries what they say.
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

            /// A refusal, without its way out over hyper.
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

            /// The events of a request, as the source reads them; a raw body is taken where there is a type for it.
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
