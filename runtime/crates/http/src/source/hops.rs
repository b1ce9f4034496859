//! The number of functions that a chain of events passed through before a request, see [`HOPS_HEADER`].

use http::{HeaderMap, StatusCode};

use crate::problem::Problem;
use evoke_model::{HOPS_HEADER, HOPS_MAX};

/// Returns the number in the header of a request, or 0 without the header. Returns the error 508 (RFC 5842) if the
/// number is larger than [`HOPS_MAX`].
pub(super) fn of(headers: &HeaderMap) -> Result<u32, Problem> {
    let Some(value) = headers.get(HOPS_HEADER) else { return Ok(0) };
    let digits = value.to_str().ok().filter(|text| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()));
    let Some(digits) = digits else {
        return Err(Problem::malformed(format!("the header `{HOPS_HEADER}` is not a decimal number")));
    };
    match digits.parse() {
        Ok(hops) if hops <= HOPS_MAX => Ok(hops),
        _ => Err(Problem::new(
            StatusCode::LOOP_DETECTED,
            format!(
                "the request belongs to a chain of events that passed through more than {HOPS_MAX} functions (header `{HOPS_HEADER}`); most likely the chain is a loop"
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chain_has_a_largest_length() {
        let of = |value: &str| of(&[(HOPS_HEADER.parse().unwrap(), value.parse().unwrap())].into_iter().collect());
        let status = |value| of(value).map_err(|problem| problem.status.as_u16());
        assert_eq!(super::of(&HeaderMap::new()).map_err(|problem| problem.status), Ok(0));
        for (value, expected) in [
            ("0", Ok(0)),
            ("7", Ok(7)),
            ("64", Ok(64)),
            ("65", Err(508)),
            ("99999999999999999999999999", Err(508)),
            ("", Err(400)),
            ("-1", Err(400)),
            ("+1", Err(400)),
            ("1, 2", Err(400)),
        ] {
            assert_eq!(status(value), expected, "{value}");
        }
    }
}
