//! Tests of the presets: published vectors, signed requests with one changed byte, and the rules of each preset.

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair as _};

use super::guard::{Guard, SecretError, Sender};
use evoke_manifest::{Registry, SecretRef, SourceKind};
use evoke_model::clock::UnixMs;
use evoke_telemetry::{AuthMetrics, AuthRefusal};

use crate::source::{HttpKind, HttpSource};

/// The guard of `auth: TEXT` in a manifest. The value of a secret is the name of its environment variable.
fn guard(auth: &str) -> Guard {
    try_guard(auth).unwrap()
}

fn try_guard(auth: &str) -> Result<Guard, Vec<SecretError>> {
    static KIND: HttpKind = HttpKind;
    let text = format!("evoke: 1\napp: a\nsources:\n  s:\n    http: {{ path: /s, type: t, auth: {auth} }}\n");
    let checked =
        evoke_manifest::load_str(&text, "a.yaml".as_ref(), &Registry::new([&KIND as &dyn SourceKind])).unwrap();
    let http = checked.manifest.sources[0].settings.get::<HttpSource>().unwrap();
    let read = |_: &str, location: &SecretRef| match location {
        SecretRef::Env(name) => Ok(VALUES.iter().find(|(known, _)| known == name).unwrap().1.to_owned()),
        _ => unreachable!("the tests only use environment variables"),
    };
    Guard::new(http.auth.as_ref().unwrap(), std::sync::Arc::new(AuthMetrics::new("/a/s".into())), read)
}

const VALUES: [(&str, &str); 12] = [
    ("GITHUB", "It's a Secret to Everybody"),
    ("STANDARD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("BARE", "MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("OTHER", "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD"),
    ("PRIVATE", "whsk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("SHORT_PUBLIC", "whpk_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"),
    ("SLACK", "8f742231b10e8888abcd99yyyzzz85a5"),
    ("STRIPE", "whsec_test"),
    ("WRONG", "another secret"),
    ("EMPTY", ""),
    ("NO_BASE64", "whsec_!"),
    ("COLON", "with:colon"),
];

fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
    let pair = |(name, value): &(&str, &str)| {
        (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
    };
    pairs.iter().map(pair).collect()
}

/// Verifies a request. The error is the reason that the guard has counted for the refusal.
fn verify(guard: &Guard, headers: &HeaderMap, body: &[u8], now_ms: UnixMs) -> Result<Sender, AuthRefusal> {
    let counts = || AuthRefusal::ALL.map(|reason| guard.metrics().refused(reason).get());
    let before = counts();
    let result = guard.check_headers(headers, now_ms).and_then(|admitted| guard.check_body(admitted, body));
    let after = counts();
    match result {
        Ok(sender) => {
            assert_eq!(before, after);
            Ok(sender)
        }
        Err(problem) => {
            assert_eq!(
                (problem.status.as_u16(), &*problem.detail),
                (401, "the sender of this request is not verified")
            );
            let changed: Vec<AuthRefusal> = AuthRefusal::ALL
                .into_iter()
                .filter(|reason| before[*reason as usize] != after[*reason as usize])
                .collect();
            let [reason] = changed.as_slice() else { unreachable!("counted {changed:?}") };
            Err(*reason)
        }
    }
}

/// A signed request of a preset, at the time when it is valid.
struct Vector {
    auth: &'static str,
    headers: Vec<(&'static str, String)>,
    body: &'static [u8],
    now_s: i64,
    principal: &'static str,
    id: Option<&'static str>,
}

const SLACK_BODY: &[u8] = b"token=xyzz0WbapA4vBCDEFasx0q6G&team_id=T1DC2JH3J&team_domain=testteamnow&channel_id=G8PSS9T3V\
&channel_name=foobar&user_id=U2CERLKJA&user_name=roadrunner&command=%2Fwebhook-collect&text=&response_url=https%3A%2F%2F\
hooks.slack.com%2Fcommands%2FT1DC2JH3J%2F397700885554%2F96rGlfmibIGlgcZRskXaIFfN&trigger_id=398738663015.47445629121.803\
a0bc887a14d10d2c447fce8b6703c";

/// Vectors that the senders publish, and vectors that were computed with a different implementation.
fn vectors() -> Vec<Vector> {
    let text = |pairs: &[(&'static str, &str)]| pairs.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
    vec![
        // GitHub, "Validating webhook deliveries".
        Vector {
            auth: "{ github: { secret: { env: GITHUB } } }",
            headers: text(&[
                ("x-hub-signature-256", "sha256=757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17"),
                ("x-github-delivery", "72d3162e-cc78-11e3-81ab-4c9367dc0958"),
            ]),
            body: b"Hello, World!",
            now_s: 0,
            principal: "github",
            id: Some("72d3162e-cc78-11e3-81ab-4c9367dc0958"),
        },
        // Standard Webhooks, the vector of its libraries.
        Vector {
            auth: "{ standard-webhooks: { secret: [{ name: old, env: OTHER }, { name: new, env: STANDARD }] } }",
            headers: text(&[
                ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
                ("webhook-timestamp", "1614265330"),
                ("webhook-signature", "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="),
            ]),
            body: br#"{"test": 2432232314}"#,
            now_s: 1_614_265_330,
            principal: "standard-webhooks:new",
            id: Some("msg_p5jXN8AQM9LWM0D4loKWxJek"),
        },
        // Slack, "Verifying requests from Slack".
        Vector {
            auth: "{ slack: { secret: { env: SLACK } } }",
            headers: text(&[
                ("x-slack-signature", "v0=a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
                ("x-slack-request-timestamp", "1531420618"),
            ]),
            body: SLACK_BODY,
            now_s: 1_531_420_618,
            principal: "slack",
            id: Some("signature-a2114d57b48eac39b9ad189dd8316235a7b4a8d21a10bd27519666489c69b503"),
        },
        // Stripe, "Verify webhook signatures manually", computed with Python.
        Vector {
            auth: "{ stripe: { secret: { env: STRIPE } } }",
            headers: text(&[(
                "stripe-signature",
                "t=1492774577,v1=da4a28bb1e8ecf97feff14bd141aa183c9cbe6a13dcfb1a2ace8dc472e62593b",
            )]),
            body: br#"{"id":"evt_1","object":"event"}"#,
            now_s: 1_492_774_577,
            principal: "stripe",
            id: Some("evt_1"),
        },
        Vector {
            auth: "{ hmac: { secret: { env: GITHUB }, header: X-Sig, algorithm: sha512, encoding: base64url, prefix: 'k=', \
                   timestamp: { header: X-Time, signed: '<{timestamp}|{body}|{timestamp}>', tolerance: 10s } } }",
            headers: text(&[
                ("x-sig", "k=ydQOFdSyc_lIfj91mLBEfn8SW0KirWhyNXUq_KpGxuVqGuNFcRXKWuUR6D3AjIorh7kTp9G7Pa0LKAvU7zDJrQ"),
                ("x-time", "1614265330123"),
            ]),
            body: b"\x00binary\xff",
            now_s: 1_614_265_330,
            principal: "hmac",
            id: Some(
                "signature-c9d40e15d4b273f9487e3f7598b0447e7f125b42a2ad687235752afcaa46c6e56a1ae3457115ca5ae511e83dc08c8a2b87b913a7d1bb3dad0b280bd4ef30c9ad",
            ),
        },
        Vector {
            auth: "{ hmac: { secret: { env: GITHUB }, header: X-Sig, algorithm: sha1, encoding: base64 } }",
            headers: text(&[("x-sig", "AdwQ0Mg+cu0kYhnN2RZpZn/iylk=")]),
            body: b"Hello, World!",
            now_s: 0,
            principal: "hmac",
            id: None,
        },
    ]
}

fn headers_of(vector: &Vector) -> HeaderMap {
    headers(&vector.headers.iter().map(|(name, value)| (*name, value.as_str())).collect::<Vec<_>>())
}

#[test]
fn published_vectors_are_accepted_with_their_principal_and_id() {
    for vector in vectors() {
        let sender = verify(&guard(vector.auth), &headers_of(&vector), vector.body, vector.now_s * 1_000).unwrap();
        assert_eq!((&*sender.principal, sender.id.as_deref()), (vector.principal, vector.id));
        assert!(sender.is_signature && sender.challenge.is_none());
    }
}

#[test]
fn a_request_with_any_changed_byte_is_refused() {
    for vector in vectors() {
        let (guard, now_ms) = (guard(vector.auth), vector.now_s * 1_000);
        for at in 0..vector.body.len() {
            for change in [1, 0x20, 0x80] {
                let mut body = vector.body.to_vec();
                body[at] ^= change;
                assert_eq!(verify(&guard, &headers_of(&vector), &body, now_ms), Err(AuthRefusal::Mismatch));
            }
        }
        for body in [&vector.body[1..], &vector.body[..vector.body.len() - 1], &[vector.body, b" "].concat(), b""] {
            assert_eq!(verify(&guard, &headers_of(&vector), body, now_ms), Err(AuthRefusal::Mismatch));
        }
        for (index, (name, value)) in vector.headers.iter().enumerate() {
            // The id of GitHub is not signed.
            if *name == "x-github-delivery" {
                continue;
            }
            for at in 0..value.len() {
                for change in [1, 2, 0x20] {
                    let mut bytes = value.clone().into_bytes();
                    bytes[at] ^= change;
                    let Ok(changed) = HeaderValue::from_bytes(&bytes) else { continue };
                    let mut headers = headers_of(&vector);
                    headers.insert(*name, changed.clone());
                    assert!(verify(&guard, &headers, vector.body, now_ms).is_err(), "{name} {changed:?}");
                }
            }
            let mut without = vector.headers.clone();
            without.remove(index);
            let without = headers_of(&Vector { headers: without, ..vector });
            let reason = verify(&guard, &without, vector.body, now_ms);
            assert_eq!(reason, Err(AuthRefusal::Missing), "{name}");
            let mut twice = headers_of(&vector);
            twice.append(*name, value.parse().unwrap());
            assert_eq!(verify(&guard, &twice, vector.body, now_ms), Err(AuthRefusal::Malformed), "{name}");
        }
    }
}

const ID: &str = "msg_p5jXN8AQM9LWM0D4loKWxJek";
const TIME: i64 = 1_614_265_330;
const BODY: &[u8] = br#"{"test": 2432232314}"#;
const RIGHT: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

/// Verifies the vector of Standard Webhooks with these signatures at this time.
fn verify_standard(guard: &Guard, signatures: &str, now_ms: UnixMs) -> Result<Sender, AuthRefusal> {
    let time = TIME.to_string();
    let pairs = [("webhook-id", ID), ("webhook-timestamp", &time), ("webhook-signature", signatures)];
    verify(guard, &headers(&pairs), BODY, now_ms)
}

#[test]
fn one_of_several_signatures_has_to_match_one_of_several_secrets() {
    let wrong = "v1,K5oZfzN95Z9UVu1EsfQmfVNQhnkZ2pj9o9NDN/H/pI4=";
    let now_ms = TIME * 1_000;
    for auth in [
        "{ standard-webhooks: { secret: { env: STANDARD } } }",
        "{ standard-webhooks: { secret: { env: BARE } } }",
        "{ standard-webhooks: { secret: [{ env: OTHER }, { env: STANDARD }] } }",
    ] {
        let guard = guard(auth);
        for signatures in [RIGHT, &format!("{wrong} {RIGHT}"), &format!("v9,!! {RIGHT} {wrong}")] {
            assert!(verify_standard(&guard, signatures, now_ms).is_ok(), "{auth} {signatures}");
        }
        assert_eq!(verify_standard(&guard, wrong, now_ms), Err(AuthRefusal::Mismatch));
        let as_public = RIGHT.replace("v1,", "v1a,");
        assert_eq!(verify_standard(&guard, &as_public, now_ms), Err(AuthRefusal::Mismatch));
        let many = [RIGHT; 9].join(" ");
        for malformed in ["", "v1", "v1,!", "v2,AAAA", &RIGHT.replace(',', " "), &many, &format!(" {RIGHT}")] {
            assert_eq!(verify_standard(&guard, malformed, now_ms), Err(AuthRefusal::Malformed), "{malformed}");
        }
    }
    let other = guard("{ standard-webhooks: { secret: { env: OTHER } } }");
    assert_eq!(verify_standard(&other, RIGHT, now_ms), Err(AuthRefusal::Mismatch));
}

#[test]
fn a_request_is_accepted_within_five_minutes_of_its_time() {
    let guard = guard("{ standard-webhooks: { secret: { env: STANDARD } } }");
    for (offset_ms, is_accepted) in
        [(-300_001, false), (-300_000, true), (0, true), (300_000, true), (300_001, false), (i64::MAX / 2, false)]
    {
        let result = verify_standard(&guard, RIGHT, TIME * 1_000 + offset_ms);
        assert_eq!(result.map(drop), if is_accepted { Ok(()) } else { Err(AuthRefusal::Expired) }, "{offset_ms}");
    }
    for time in ["", "-1614265330", "+1614265330", "1614265330.0", "1614265330 ", "0x603", "9999999999999999", "now"] {
        let pairs = [("webhook-id", ID), ("webhook-timestamp", time), ("webhook-signature", RIGHT)];
        let reason = verify(&guard, &headers(&pairs), BODY, TIME * 1_000);
        assert_eq!(reason, Err(AuthRefusal::Malformed), "{time}");
    }
}

#[test]
fn an_ed25519_signature_is_verified_with_the_public_key() {
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;
    let pair = |_| {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap()
    };
    let [signer, stranger] = [(), ()].map(pair);
    let public = format!("whpk_{}", STANDARD.encode(signer.public_key().as_ref()));
    let mut keys = super::keys::Keys::new().unwrap();
    let super::standard_webhooks::StandardKey::Ed25519(key) = super::standard_webhooks::parse_key(&public).unwrap()
    else {
        unreachable!("a public key")
    };
    keys.add_ed25519("sender".into(), key);
    let text = [format!("{ID}.{TIME}.").as_bytes(), BODY].concat();
    let signed = |signature: Vec<u8>| {
        super::preset::Claim::Signed(super::preset::Signed {
            before: format!("{ID}.{TIME}.").into_bytes(),
            signatures: vec![super::preset::Signature::Ed25519(signature)],
            ..Default::default()
        })
    };
    let signature = signer.sign(&text).as_ref().to_vec();
    assert_eq!(keys.find(&signed(signature.clone()), BODY).map(|found| found.principal), Some("sender".into()));
    assert!(keys.find(&signed(stranger.sign(&text).as_ref().to_vec()), BODY).is_none());
    for at in 0..signature.len() {
        let mut changed = signature.clone();
        changed[at] ^= 1;
        assert!(keys.find(&signed(changed), BODY).is_none());
    }
    for at in 0..BODY.len() {
        let mut body = BODY.to_vec();
        body[at] ^= 1;
        assert!(keys.find(&signed(signature.clone()), &body).is_none());
    }
    // The 8 keys of a source and two signatures are compared in all pairs. Further signatures are not.
    let mut keys = super::keys::Keys::new().unwrap();
    for stranger in 0..7 {
        keys.add_ed25519("other".into(), vec![stranger; 32]);
    }
    keys.add_ed25519("sender".into(), signer.public_key().as_ref().to_vec());
    let wrong = || super::preset::Signature::Ed25519(vec![0; 64]);
    let many = |count: usize| {
        let mut claim = signed(signature.clone());
        let super::preset::Claim::Signed(signed) = &mut claim else { unreachable!("a signature") };
        signed.signatures.splice(0..0, std::iter::repeat_with(wrong).take(count));
        claim
    };
    assert!(keys.find(&many(1), BODY).is_some() && keys.find(&many(2), BODY).is_none());
    // A public key is not a shared secret: an HMAC with the public key proves nothing.
    let with_public =
        ring::hmac::sign(&ring::hmac::Key::new(ring::hmac::HMAC_SHA256, signer.public_key().as_ref()), &text);
    let forged = super::preset::Claim::Signed(super::preset::Signed {
        before: format!("{ID}.{TIME}.").into_bytes(),
        signatures: vec![super::preset::Signature::Hmac(with_public.as_ref().to_vec())],
        ..Default::default()
    });
    assert!(keys.find(&forged, BODY).is_none());
}

#[test]
fn a_token_or_a_password_has_to_be_equal() {
    let bearer = guard("{ bearer: { secret: [{ name: ci, env: STRIPE }, { env: COLON }] } }");
    let authorization = |value: &str| headers(&[("authorization", value)]);
    let check = |guard: &Guard, value: &str| {
        verify(guard, &authorization(value), b"", 0).map(|sender| sender.principal.to_string())
    };
    assert_eq!(check(&bearer, "Bearer whsec_test"), Ok("bearer:ci".into()));
    assert_eq!(check(&bearer, "bearer with:colon"), Ok("bearer".into()));
    for wrong in ["Bearer ", "Bearer whsec_tes", "Bearer whsec_test2", "Bearer whsec_tesT", "Bearer  whsec_test"] {
        assert_eq!(check(&bearer, wrong), Err(AuthRefusal::Mismatch), "{wrong}");
    }
    for malformed in ["", "Bearer", "whsec_test", "Basic d2hzZWNfdGVzdA=="] {
        assert_eq!(check(&bearer, malformed), Err(AuthRefusal::Malformed), "{malformed}");
    }
    assert_eq!(verify(&bearer, &headers(&[]), b"", 0), Err(AuthRefusal::Missing));

    let basic = guard("{ basic: { users: { ada: { env: COLON }, bob: [{ env: STRIPE }, { env: WRONG }] } } }");
    // ada:with:colon, bob:whsec_test, bob:another secret
    assert_eq!(check(&basic, "Basic YWRhOndpdGg6Y29sb24="), Ok("basic:ada".into()));
    assert_eq!(check(&basic, "Basic Ym9iOndoc2VjX3Rlc3Q="), Ok("basic:bob".into()));
    assert_eq!(check(&basic, "Basic Ym9iOmFub3RoZXIgc2VjcmV0"), Ok("basic:bob".into()));
    // ada:whsec_test, bob:, eve:with:colon, :
    for wrong in ["YWRhOndoc2VjX3Rlc3Q=", "Ym9iOg==", "ZXZlOndpdGg6Y29sb24=", "Og=="] {
        assert_eq!(check(&basic, &format!("Basic {wrong}")), Err(AuthRefusal::Mismatch), "{wrong}");
    }
    for malformed in ["Basic !", "Basic YWRh", "Bearer YWRhOndpdGg6Y29sb24="] {
        assert_eq!(check(&basic, malformed), Err(AuthRefusal::Malformed), "{malformed}");
    }
    let sender = verify(&bearer, &authorization("Bearer whsec_test"), b"", 0).unwrap();
    assert!(!sender.is_signature && sender.id.is_none());
}

#[test]
fn a_secret_that_proves_nothing_is_refused_and_never_shown() {
    for (auth, words) in [
        ("{ github: { secret: { env: EMPTY } } }", "the secret of `auth: github` is empty"),
        ("{ bearer: { secret: [{ name: ci, env: EMPTY }] } }", "the secret `ci` of `auth: bearer` is empty"),
        ("{ basic: { users: { ada: { env: EMPTY } } } }", "the secret of `auth: basic:ada` is empty"),
        ("{ standard-webhooks: { secret: { env: NO_BASE64 } } }", "is not Base64"),
        ("{ standard-webhooks: { secret: { env: PRIVATE } } }", "is a private key"),
        ("{ standard-webhooks: { secret: { env: SHORT_PUBLIC } } }", "32 bytes"),
    ] {
        let errors = try_guard(auth).unwrap_err();
        assert!(errors.len() == 1 && errors[0].message.contains(words), "{errors:?}");
        let shown = format!("{errors:?}");
        assert!(VALUES.iter().all(|(_, value)| value.is_empty() || !shown.contains(value)), "{shown}");
    }
    for vector in vectors() {
        let shown = format!("{:?}", guard(vector.auth));
        assert!(VALUES.iter().all(|(_, value)| value.is_empty() || !shown.contains(value)), "{shown}");
    }
}

#[test]
fn a_guard_without_secrets_refuses_every_request() {
    for vector in vectors() {
        let text =
            format!("evoke: 1\napp: a\nsources:\n  s:\n    http: {{ path: /s, type: t, auth: {} }}\n", vector.auth);
        let kind: &'static dyn SourceKind = &HttpKind;
        let checked = evoke_manifest::load_str(&text, "a.yaml".as_ref(), &Registry::new([kind])).unwrap();
        let http = checked.manifest.sources[0].settings.get::<HttpSource>().unwrap();
        let guard = Guard::closed(http.auth.as_ref().unwrap(), std::sync::Arc::default());
        let result = verify(&guard, &headers_of(&vector), vector.body, vector.now_s * 1_000);
        assert_eq!(result, Err(AuthRefusal::Mismatch));
    }
}

#[test]
fn ids_and_challenges_are_read_from_verified_bodies() {
    let sign = |body: &[u8]| {
        let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, b"8f742231b10e8888abcd99yyyzzz85a5");
        let code = ring::hmac::sign(&key, &[b"v0:1531420618:", body].concat());
        let signature = format!("v0={}", evoke_model::hex(code.as_ref()));
        headers(&[("x-slack-signature", &signature), ("x-slack-request-timestamp", "1531420618")])
    };
    let guard = guard("{ slack: { secret: { env: SLACK } } }");
    let check = |body: &[u8]| verify(&guard, &sign(body), body, 1_531_420_618_000).unwrap();
    assert_eq!(check(br#"{"type":"event_callback","event_id":"Ev08MFMKH6"}"#).id.as_deref(), Some("Ev08MFMKH6"));
    for body in [&br#"{"event_id":""}"#[..], br#"{"event_id":7}"#, br#"{"event_id":"a b"}"#, b"{", b"[]", b""] {
        assert!(check(body).id.unwrap().starts_with("signature-"), "{body:?}");
    }
    let challenge = br#"{"token":"t","challenge":"3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P","type":"url_verification"}"#;
    let expected = "3eZbrw1aBm2rZgRNFdxV2595E9CY3gmdALWMmHkvFXO7tYXAYM8P";
    assert_eq!(check(challenge).challenge.as_deref(), Some(expected));
    for body in [
        &br#"{"challenge":"x","type":"event_callback"}"#[..],
        br#"{"challenge":"<script>alert(1)</script> x","type":"url_verification"}"#,
        br#"{"type":"url_verification"}"#,
    ] {
        assert_eq!(check(body).challenge, None);
    }
    let mut unsigned = sign(challenge);
    unsigned.insert("x-slack-signature", HeaderValue::from_static("v0=00"));
    assert_eq!(verify(&guard, &unsigned, challenge, 1_531_420_618_000), Err(AuthRefusal::Mismatch));
}

#[tokio::test(start_paused = true)]
async fn refusals_are_logged_at_a_limited_rate_for_each_reason() {
    use super::log::{LOG_INTERVAL, RefusalLog};
    let log = RefusalLog::default();
    assert_eq!(log.next(AuthRefusal::Missing), Some(0));
    (0..1_000).for_each(|_| assert_eq!(log.next(AuthRefusal::Missing), None));
    assert_eq!(log.next(AuthRefusal::Mismatch), Some(0));
    tokio::time::advance(LOG_INTERVAL).await;
    assert_eq!((log.next(AuthRefusal::Missing), log.next(AuthRefusal::Missing)), (Some(1_000), None));
}
