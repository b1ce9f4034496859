//! Serves the files of the console. All clients get the same files, so no token is needed.

use axum::body::Body;
use axum::extract::Request;
use http::header::{
    ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, ETAG, HeaderName,
    HeaderValue, IF_NONE_MATCH, REFERRER_POLICY, VARY,
};
use http::{HeaderMap, Response, StatusCode};

use crate::admin::{ApiResult, error::ApiError};
use crate::console::{Asset, find};
use evoke_http::problem::Problem;

/// The content security policy. It allows only files and requests of the page's own origin, and no scripts or styles in
/// the text of the page.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
                      img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; \
                      require-trusted-types-for 'script'; trusted-types 'none'";

/// The start of the path of each file, except of the page itself at `/`.
pub(in crate::admin) const FOLDER: &str = "/console/";

pub(in crate::admin) async fn file(request: Request) -> ApiResult {
    let path = request.uri().path();
    let name = match path {
        "/" => "index.html",
        _ => path.strip_prefix(FOLDER).unwrap_or_default(),
    };
    let missing = || ApiError::from(Problem::not_found(format!("the console has no file {path}")));
    Ok(respond(find(name).ok_or_else(missing)?, request.headers()))
}

fn respond(asset: &Asset, headers: &HeaderMap) -> Response<Body> {
    let has = |name: HeaderName, wanted: &str| {
        let values = headers.get_all(name);
        values.iter().filter_map(|value| value.to_str().ok()).flat_map(|value| value.split(',')).any(|one| {
            let (value, quality) = one.split_once(';').unwrap_or((one, ""));
            value.trim().trim_start_matches("W/") == wanted && quality.replace(' ', "") != "q=0"
        })
    };
    let mut response = Response::new(Body::empty());
    let takes_gzip = has(ACCEPT_ENCODING, "gzip") && !asset.gzip.is_empty();
    if has(IF_NONE_MATCH, &asset.etag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
    } else {
        *response.body_mut() = Body::from(if takes_gzip { asset.gzip.clone() } else { asset.plain.clone() });
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
        if takes_gzip {
            response.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
    }
    for (name, value) in [
        (CONTENT_SECURITY_POLICY, POLICY),
        // The browser asks at each use whether its copy is still current, so users never see an old version.
        (CACHE_CONTROL, "no-cache"),
        (REFERRER_POLICY, "no-referrer"),
        (VARY, "accept-encoding"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    ] {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    if let Ok(etag) = HeaderValue::from_str(&asset.etag) {
        response.headers_mut().insert(ETAG, etag);
    }
    response
}
