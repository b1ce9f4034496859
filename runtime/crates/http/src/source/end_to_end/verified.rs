//! Tests of sources that have `auth` together with other settings.

use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;
use ring::hmac;

use super::*;

const KEY: &str = "a long random value";
const BODY: &[u8] = br#"{"total":5}"#;

/// Returns an endpoint that verifies signatures of GitHub.
fn verified(source: HttpSource) -> Endpoint {
    let auth = Auth::Github(SecretAuth { secret: SecretList::one(SecretRef::Env("KEY".into())) });
    let guard = Guard::new(&auth, Arc::default(), |_, _| Ok(KEY.to_owned())).unwrap();
    let source = HttpSource { auth: Some(auth), ..source };
    let endpoint = Endpoint::new(&source, "/shop/signed", Origin(3), Target::Matching);
    Endpoint { auth: Some(Arc::new(guard)), ..endpoint }
}

/// Returns a request with the signature of the body `signed`.
fn request(signed: &[u8]) -> http::request::Builder {
    let code = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes()), signed);
    let code = evoke_model::hex(code.as_ref());
    post("/signed").header("content-type", "application/json").header("x-hub-signature-256", format!("sha256={code}"))
}

#[tokio::test]
async fn a_compressed_body_is_verified_as_it_was_sent() {
    let (http, store) = http(bus::Limits::default());
    http.set_routes(Routes::new([verified(source("/signed"))]).unwrap());
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(BODY).unwrap();
    let compressed = encoder.finish().unwrap();
    let send = async |signed: &[u8]| {
        let request = request(signed).header("content-encoding", "gzip");
        http.handle(request.body(Full::from(compressed.clone())).unwrap()).await.status()
    };
    assert_eq!(send(BODY).await, 401, "a signature of the decoded body must not be accepted");
    assert_eq!(store.totals().await.unwrap().events, 0);
    assert_eq!(send(&compressed).await, 202);
    let stored = store.event(Seq(1)).await.unwrap().unwrap().unwrap();
    assert_eq!((stored.event.data.as_bytes(), stored.event.principal.as_deref()), (BODY, Some("github")));
}

#[tokio::test]
async fn only_verified_senders_take_a_place_among_the_requests_that_wait() {
    let (http, store) = http(bus::Limits::default());
    let reply = ReplyEvent { event: TypeGlob::parse("paid").unwrap(), timeout: Duration::from_secs(1) };
    http.set_routes(Routes::new([verified(HttpSource { reply: Some(reply), ..source("/signed") })]).unwrap());
    let taken: Vec<_> = std::iter::from_fn(|| http.0.bus.reserve_reply(Origin(3))).collect();
    assert!(!taken.is_empty());
    let send = async |signed: &[u8]| http.handle(request(signed).body(Full::from(BODY)).unwrap()).await.status();
    // An unverified sender is refused before it needs a place, so it does not learn that all places are in use.
    assert_eq!((send(b"other").await.as_u16(), send(BODY).await.as_u16()), (401, 503));
    assert_eq!(store.totals().await.unwrap().events, 0);
}
