//! Derives the outcome of an attempt from the response of the endpoint, or from the error if there is no response.
//!
//! | response | outcome |
//! |---|---|
//! | 2xx | `done` |
//! | 408, 425, 429, 5xx except 508; no connection | `endpoint-failed`: retried by policy, not before `Retry-After` |
//! | no response within the function's `timeout` | `timeout`: retried by policy |
//! | 410 | `endpoint-gone`: the function stops, and the delivery stays pending |
//! | 410, if the URL has values of the event | `reject`: a dead letter |
//! | 508, which an Evoke runtime sends if the chain of the event is too long | `loop`: a dead letter |
//! | 3xx, and 4xx except 408, 410, 425 and 429 | `reject`: a dead letter |
//! | no response, because the address is not allowed | `denied`: a dead letter |

use std::time::Duration;

use http::header::{DATE, LOCATION, RETRY_AFTER};
use http::{HeaderMap, StatusCode};

use super::Extent;
use evoke_egress::Error;
use evoke_model::clock::UnixMs;
use evoke_model::outcome::Outcome;

/// Largest number of characters of a location in a message.
const LOCATION_CHARS_MAX: usize = 200;

/// Returns the beginning of the header `location` for a message.
pub(super) fn location(headers: &HeaderMap, redact: &dyn Fn(&str, Extent) -> String) -> Option<String> {
    let location = headers.get(LOCATION)?.to_str().ok()?;
    Some(redact(location, Extent::Whole).chars().take(LOCATION_CHARS_MAX).collect())
}

/// Returns true for the statuses with which an endpoint, or a gateway in front of it, says that it can take no request
/// now. These statuses say nothing about the event of the request.
pub(super) fn is_unavailable(status: StatusCode) -> bool {
    matches!(
        status,
        StatusCode::TOO_MANY_REQUESTS
            | StatusCode::BAD_GATEWAY
            | StatusCode::SERVICE_UNAVAILABLE
            | StatusCode::GATEWAY_TIMEOUT
    )
}

/// Returns the outcome of a response, and the note of a successful attempt. `location` and `excerpt` are the beginnings
/// of the response's header `location` and of its body.
pub(super) fn of_response(
    status: StatusCode,
    headers: &HeaderMap,
    (location, excerpt): (Option<&str>, Option<&str>),
    now_ms: UnixMs,
) -> (Outcome, Option<String>) {
    let mut message = match status.canonical_reason() {
        Some(reason) => format!("{} {reason}", status.as_str()),
        None => format!("status {}", status.as_str()),
    };
    if status.is_success() {
        return (Outcome::Done, Some(message));
    }
    if status.is_redirection() {
        if let Some(location) = location {
            message = format!("{message} to {location}");
        }
        message += ": redirects are not followed; write the final URL in `deliver.url`";
        return (Outcome::Reject { message }, None);
    }
    if let Some(excerpt) = excerpt {
        message = format!("{message}: {excerpt}");
    }
    let outcome = match status {
        StatusCode::GONE => Outcome::EndpointGone { message },
        StatusCode::LOOP_DETECTED => Outcome::Loop { message },
        StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS => {
            Outcome::EndpointFailed { message, after: retry_after(headers, now_ms) }
        }
        status if status.is_client_error() => Outcome::Reject { message },
        _ => Outcome::EndpointFailed { message, after: retry_after(headers, now_ms) },
    };
    (outcome, None)
}

/// Returns the outcome of an error. If the manifest does not allow the request, the message says what to write in the
/// manifest.
pub(super) fn of_error(error: &Error) -> Outcome {
    match error {
        Error::AddressRefused { target, address, reason } => Outcome::Denied {
            message: format!(
                "{target} has the address {address}, which is {reason}; to allow it, write `addresses: [\"{address}\"]` \
                 under `deliver`"
            ),
        },
        error if error.is_refusal() => Outcome::Denied { message: error.to_string() },
        // These errors occur on this side, so they are not failures of the endpoint.
        Error::TooManyCalls | Error::TooManyConnections | Error::TooManyLookups { .. } | Error::Internal(_) => {
            Outcome::Unavailable { message: error.to_string() }
        }
        error => Outcome::EndpointFailed { message: error.to_string(), after: None },
    }
}

/// Returns the wait that the endpoint asks for in `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3). The
/// wait until a date is counted from the `Date` of the response (section 6.6.1), because the wall clock of this machine
/// may be wrong by years. The wall clock is only used if the response has no `Date`.
fn retry_after(headers: &HeaderMap, now_ms: UnixMs) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number that is too large becomes a very long wait, which the retry policy limits.
        return Some(Duration::from_secs(text.parse().unwrap_or(u64::from(u32::MAX))));
    }
    let date = |text: &str| httpdate::parse_http_date(text).ok()?.duration_since(std::time::UNIX_EPOCH).ok();
    let sent = headers.get(DATE).and_then(|value| date(value.to_str().ok()?.trim()));
    let now = sent.unwrap_or_else(|| Duration::from_millis(u64::try_from(now_ms).unwrap_or_default()));
    Some(date(text)?.saturating_sub(now))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::HeaderValue;

    /// 1994-11-06T08:49:37Z, the date of the examples in RFC 9110.
    const NOW_MS: UnixMs = 784_111_777_000;

    fn of(status: u16, header: Option<(&'static str, &str)>) -> Outcome {
        let mut headers = HeaderMap::new();
        headers.extend(
            header.map(|(name, value)| {
                (name.parse::<http::HeaderName>().unwrap(), HeaderValue::from_str(value).unwrap())
            }),
        );
        let location = location(&headers, &|text, _| text.to_owned());
        of_response(StatusCode::from_u16(status).unwrap(), &headers, (location.as_deref(), Some("why")), NOW_MS).0
    }

    #[test]
    fn each_status_has_its_outcome() {
        for (statuses, kind) in [
            (&[200, 201, 202, 204, 299][..], "done"),
            (&[300, 301, 302, 303, 304, 307, 308], "reject"),
            (&[400, 401, 402, 403, 404, 405, 406, 409, 411, 413, 415, 418, 422, 426, 428, 431, 451, 499], "reject"),
            (&[410], "endpoint-gone"),
            (&[508], "loop"),
            (&[408, 425, 429, 500, 501, 502, 503, 504, 507, 599, 600, 999], "endpoint-failed"),
        ] {
            for status in statuses {
                assert_eq!(of(*status, None).kind(), kind, "{status}");
            }
        }
        assert_eq!(of(404, None), Outcome::Reject { message: "404 Not Found: why".into() });
        assert_eq!(of(599, None).message().unwrap(), "status 599: why");
        let moved = of(308, Some(("location", "https://new.example/"))).message().unwrap();
        assert!(
            moved.starts_with("308 Permanent Redirect to https://new.example/: redirects are not followed"),
            "{moved}"
        );
        let (done, note) = of_response(StatusCode::NO_CONTENT, &HeaderMap::new(), (None, None), NOW_MS);
        assert_eq!((done, note.as_deref()), (Outcome::Done, Some("204 No Content")));
    }

    #[test]
    fn an_error_of_this_side_is_no_failure_of_the_endpoint() {
        let host = || "crm.example".to_owned();
        for error in [Error::TooManyCalls, Error::TooManyConnections, Error::TooManyLookups { host: host() }] {
            assert_eq!(of_error(&error).kind(), "unavailable", "{error:?}");
        }
        let error = Error::DnsTimeout { host: host(), after: Duration::from_secs(5) };
        assert_eq!(of_error(&error).kind(), "endpoint-failed");
    }

    #[test]
    fn a_wait_is_in_seconds_or_until_a_date() {
        let wait = |value: &str| match of(503, Some(("retry-after", value))) {
            Outcome::EndpointFailed { after, .. } => after.map(|after| after.as_secs()),
            outcome => panic!("{outcome:?}"),
        };
        for (value, seconds) in [
            ("0", Some(0)),
            ("120", Some(120)),
            (" 7 ", Some(7)),
            ("99999999999999999999999999", Some(u64::from(u32::MAX))),
            ("Sun, 06 Nov 1994 08:50:37 GMT", Some(60)),
            ("Sunday, 06-Nov-94 08:50:37 GMT", Some(60)),
            ("Sun Nov  6 08:50:37 1994", Some(60)),
            ("Sun, 06 Nov 1994 08:40:00 GMT", Some(0)),
            ("", None),
            ("-1", None),
            ("1.5", None),
            ("soon", None),
        ] {
            assert_eq!(wait(value), seconds, "{value}");
        }
        assert!(matches!(of(429, Some(("retry-after", "3"))), Outcome::EndpointFailed { after: Some(_), .. }));
        assert!(matches!(of(400, Some(("retry-after", "3"))), Outcome::Reject { .. }));
    }

    #[test]
    fn a_wait_until_a_date_does_not_depend_on_the_wall_clock_of_this_machine() {
        let until = "Sun, 06 Nov 1994 08:50:37 GMT";
        for (date, seconds) in [
            ("Sun, 06 Nov 1994 08:50:27 GMT", 10),
            ("Sun, 06 Nov 1994 08:50:37 GMT", 0),
            ("Sun, 06 Nov 1994 09:50:37 GMT", 0),
            // Without a valid date, the wall clock counts.
            ("yesterday", 60),
        ] {
            let headers: HeaderMap = [(RETRY_AFTER, until), (DATE, date)]
                .map(|(name, value)| (name, value.parse().unwrap()))
                .into_iter()
                .collect();
            assert_eq!(retry_after(&headers, NOW_MS), Some(Duration::from_secs(seconds)), "{date}");
            if seconds != 60 {
                for now_ms in [0, NOW_MS - 365 * 86_400_000, NOW_MS + 365 * 86_400_000] {
                    assert_eq!(retry_after(&headers, now_ms), Some(Duration::from_secs(seconds)), "{date} at {now_ms}");
                }
            }
        }
    }

    #[test]
    fn an_address_that_is_not_allowed_is_denied_and_a_failure_of_the_network_is_not() {
        use evoke_model::destination::Target;
        let target = Target::parse("http", "10.0.0.1:8000").unwrap();
        let reason = evoke_model::not_global("10.0.0.1".parse().unwrap()).unwrap();
        let refused = Error::AddressRefused { target: target.clone(), address: "10.0.0.1".parse().unwrap(), reason };
        let message = of_error(&refused).message().unwrap();
        assert!(
            message.contains("private") && message.contains("`addresses: [\"10.0.0.1\"]` under `deliver`"),
            "{message}"
        );
        assert_eq!(of_error(&refused).kind(), "denied");
        let message = "connection refused".to_owned();
        for (error, kind) in [
            (Error::Connect { target: target.clone(), message, is_refused: true }, "endpoint-failed"),
            (Error::Dns { host: "a.example".into(), message: "no such host".into() }, "endpoint-failed"),
            (Error::FirstByteTimeout(Duration::from_secs(5)), "endpoint-failed"),
            (Error::Closed, "endpoint-failed"),
            (Error::NotGranted { target }, "denied"),
            (Error::TooManyCalls, "unavailable"),
        ] {
            assert_eq!(of_error(&error).kind(), kind, "{error}");
        }
    }
}
