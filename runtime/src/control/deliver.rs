//! Reads the secrets and certificates of functions with `deliver`, and sends their deliveries as requests.

use std::collections::BTreeMap;
use std::iter;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio_util::task::AbortOnDropHandle;

use super::functions::full_name;
use super::outbound::{self, Mistake};
use super::{http_function, secrets};
use evoke_core::dispatcher::{AttemptResult, Call, CircuitPolicy, Runner};
use evoke_egress::{Client, TrustAnchors};
use evoke_http::target::{self, Extent, HttpTarget, Sent, Signer};
use evoke_manifest::deliver::{Deliver, Sign};
use evoke_manifest::{Checked, Diagnostics, Function};
use evoke_model::clock::Clock;
use evoke_model::outcome::Outcome;
use evoke_model::state::Transaction;
use evoke_sandbox::{GrantUse, Secret, Secrets};

/// The name that is shown in messages in place of the value of the signing secret.
const SIGNING_SECRET: &str = "deliver.sign";

/// A function with `deliver`, with the values of its secrets and its certificates.
pub(crate) struct Endpoint {
    /// `app/function`.
    name: String,
    deliver: Deliver,
    function_timeout: std::time::Duration,
    secrets: Arc<target::SecretValues>,
    /// Redacts the secrets from messages.
    redacted: Secrets,
    signer: Option<Signer>,
    ca: Option<TrustAnchors>,
}

/// Reads the secrets and certificates of a function with `deliver`, and checks its sources. Returns all errors in one
/// list.
pub(super) fn load(checked: &Checked, function: &Function, deliver: &Deliver) -> Result<Endpoint, Diagnostics> {
    let mut errors = http_function::check_event_sources(checked, function);
    match read(checked, function, deliver) {
        Ok(endpoint) if errors.is_empty() => return Ok(endpoint),
        Ok(_) => {}
        Err((message, help)) => errors.push(checked.error_at(function.spans.component, message, help)),
    }
    Err(Diagnostics::from_iter(errors))
}

fn read(checked: &Checked, function: &Function, deliver: &Deliver) -> Result<Endpoint, Mistake> {
    let mut values: BTreeMap<String, Secret> = BTreeMap::new();
    for (name, location) in function.allow.secrets.iter().chain(&deliver.secrets) {
        values.insert(name.clone(), secrets::read_one(&format!("the secret {name}"), location)?);
    }
    let exposed = values.iter().map(|(name, secret)| (name.clone(), secret.expose().to_owned())).collect();
    let read = |location| secrets::read_one("the secret of `sign`", location);
    let signing = deliver.sign.iter().flat_map(Sign::secrets).map(read).collect::<Result<Vec<_>, _>>()?;
    let signer = deliver.sign.as_ref().map(|sign| signer(sign, &signing)).transpose()?;
    for (index, secret) in signing.into_iter().enumerate() {
        let name = if index == 0 { SIGNING_SECRET.to_owned() } else { format!("{SIGNING_SECRET}-{}", index + 1) };
        values.insert(name, secret);
    }
    let redacted = Secrets::new(values).map_err(|error| (error.to_string(), "use smaller secrets".to_owned()))?;
    let ca = outbound::authorities(&deliver.trust)?;
    Ok(Endpoint {
        name: full_name(&checked.manifest, function),
        deliver: deliver.clone(),
        function_timeout: function.timeout,
        secrets: Arc::new(exposed),
        redacted,
        signer,
        ca,
    })
}

fn signer(sign: &Sign, secrets: &[Secret]) -> Result<Signer, Mistake> {
    let (signer, help) = match sign {
        Sign::StandardWebhooks(_) => {
            let help = "copy the secret as the receiver shows it: `whsec_…`, or `whsk_…` for Ed25519";
            (Signer::standard_webhooks(secrets.iter().map(Secret::expose)), help)
        }
        Sign::Hmac(settings) => {
            let secret = secrets.first().map(Secret::expose).unwrap_or_default();
            (Signer::hmac(settings, secret), "give the key that the receiver expects")
        }
    };
    signer.map_err(|error| (format!("the secret of `sign` is not a valid key: {error}"), help.to_owned()))
}

impl Endpoint {
    /// Returns the runner of the function's deliveries, which sends requests on the tokio runtime `io`. Returns `None`
    /// only if the URL is valid but has no valid origin.
    pub(super) fn into_runner(self, client: &Client, io: Handle, clock: &Clock) -> Option<EndpointRunner> {
        let Self { name, deliver, function_timeout, secrets, redacted, signer, ca } = self;
        let grants = vec![target::grant(&deliver, ca)?];
        let grant_use = Arc::new(GrantUse::new(&[], &grants, iter::empty(), &Secrets::default()));
        let owner = client.owner(&name, grants);
        let origin = deliver.url.target().to_string();
        let interval = deliver.rate.map(|rate| rate.interval()).unwrap_or_default();
        let target = HttpTarget::new(&deliver, secrets, signer, owner, function_timeout, clock.clone());
        let of_endpoint = redacted.clone();
        let target = target.with_redaction(Arc::new(move |text: &str, extent| match extent {
            Extent::Whole => of_endpoint.redact(text),
            Extent::Start => of_endpoint.redact_unfinished(text),
        }));
        let circuit = CircuitPolicy { interval };
        Some(EndpointRunner { target: Arc::new(target), origin, grant_use, redacted, circuit, io })
    }
}

/// Sends the deliveries of a function to its endpoint, for the dispatcher.
pub(super) struct EndpointRunner {
    target: Arc<HttpTarget>,
    /// Scheme, host and port of the endpoint.
    origin: String,
    /// Records the use of the endpoint, and of the secrets in its requests.
    grant_use: Arc<GrantUse>,
    redacted: Secrets,
    circuit: CircuitPolicy,
    /// The tokio runtime for connections. The threads of the dispatcher may be busy with guests, so connections do not
    /// use them.
    io: Handle,
}

impl EndpointRunner {
    pub(super) fn grant_use(&self) -> &Arc<GrantUse> {
        &self.grant_use
    }
}

impl Runner for EndpointRunner {
    fn run(&self, call: Call) -> BoxFuture<'_, AttemptResult> {
        self.grant_use.attempt();
        self.grant_use.request(0, &self.origin);
        async move {
            let (target, Call { event, delivery_id, hops, trace, .. }) = (self.target.clone(), call);
            let request = self.io.spawn(async move { target.send(&event, &delivery_id, hops, trace).await });
            let Sent { outcome, note, duration, responded } = match AbortOnDropHandle::new(request).await {
                Ok(sent) => sent,
                Err(error) => {
                    let outcome = Outcome::Unavailable { message: format!("the request was not sent: {error}") };
                    Sent { outcome, note: None, duration: std::time::Duration::ZERO, responded: false }
                }
            };
            let outcome = redacted(outcome, &self.redacted);
            AttemptResult {
                outcome,
                published: Vec::new(),
                state: Transaction::default(),
                duration,
                note,
                recording: None,
                responded,
            }
        }
        .boxed()
    }

    fn circuit(&self) -> Option<CircuitPolicy> {
        Some(self.circuit)
    }
}

/// Removes secrets from the message of an outcome: an endpoint may send back the secrets that it received.
fn redacted(outcome: Outcome, secrets: &Secrets) -> Outcome {
    let redact = |message: String| secrets.redact(&message);
    match outcome {
        Outcome::Reject { message } => Outcome::Reject { message: redact(message) },
        Outcome::Denied { message } => Outcome::Denied { message: redact(message) },
        Outcome::Unavailable { message } => Outcome::Unavailable { message: redact(message) },
        Outcome::EndpointFailed { message, after } => Outcome::EndpointFailed { message: redact(message), after },
        Outcome::EndpointGone { message } => Outcome::EndpointGone { message: redact(message) },
        outcome => outcome,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_an_endpoint_sends_back_is_redacted() {
        let values = [("KEY".to_owned(), Secret::from("hunter2-hunter2".to_owned()))].into();
        let secrets = Secrets::new(values).unwrap();
        let message = || "401: bad token hunter2-hunter2".to_owned();
        for outcome in [
            Outcome::Reject { message: message() },
            Outcome::Denied { message: message() },
            Outcome::Unavailable { message: message() },
            Outcome::EndpointFailed { message: message(), after: None },
            Outcome::EndpointGone { message: message() },
        ] {
            let kind = outcome.kind();
            let redacted = redacted(outcome, &secrets);
            assert_eq!(redacted.kind(), kind);
            assert_eq!(redacted.message().as_deref(), Some("401: bad token [secret KEY]"));
        }
    }
}
