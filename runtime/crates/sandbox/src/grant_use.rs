//! Records which of its grants a loaded function uses.
//!
//! Recording must not slow attempts down. If a use was already recorded, recording it again costs one atomic load, and
//! nothing here waits for a lock. For the same reason, a use is recorded without its time: the caller of
//! [`GrantUse::take`] gets the uses since its previous call, and adds the time.

use std::collections::BTreeMap;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::secrets::Secrets;
use evoke_egress::{Error, Grant};
use evoke_model::destination::Target;
use evoke_model::{GRANT_VALUES_MAX, GrantKey, GrantKind};

/// Limit on the number of recorded refused uses, for each kind of grant.
const REFUSED_MAX: usize = 16;
/// Length limit of a recorded text, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// The uses of the grants of a function since the last [`GrantUse::take`]. Each use is recorded with the entry of the
/// manifest that allows it. The entries of `publish` and `http` are found by position, configuration values and secrets
/// by name.
#[derive(Debug, Default)]
pub struct GrantUse {
    attempts: AtomicU64,
    publish: Vec<(String, Values<GRANT_VALUES_MAX>)>,
    state: StateUse,
    http: Vec<(String, Values<GRANT_VALUES_MAX>)>,
    config: BTreeMap<String, Reads>,
    secrets: BTreeMap<String, Reads>,
    /// The values of secrets. A text that contains one of them is not recorded.
    hidden: Secrets,
    refused_publish: Values<REFUSED_MAX>,
    refused_http: Values<REFUSED_MAX>,
    refused_addresses: Values<REFUSED_MAX>,
    refused_config: Values<REFUSED_MAX>,
    refused_shared_state: Flag,
}

/// The uses between two calls of [`GrantUse::take`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Uses {
    /// Number of attempts, and of HTTP requests, that started.
    pub attempts: u64,
    /// The used grants.
    pub used: Vec<Used>,
    /// The uses that were refused because a grant is missing. Each is described by the grant that would allow it.
    pub refused: Vec<GrantKey>,
}

/// A used grant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Used {
    /// The entry of the manifest.
    pub key: GrantKey,
    /// The published types, the hosts of the requests, or the operations on state (`open`, `read`, `write`). For a
    /// configuration value or a secret: `read` if it was read by name; `get-all` or `environment` if all configuration
    /// values and secrets were read together.
    pub values: Vec<String>,
    /// True if `values` is not complete: there were too many values, or one was too long or contained a secret.
    pub more: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum StateOperation {
    Open,
    OpenShared,
    Read,
    Write,
}

/// How a function gets all of its configuration values and secrets together.
#[derive(Debug, Clone, Copy)]
pub(super) enum Whole {
    GetAll,
    Environment,
}

impl GrantUse {
    /// Starts to record the use of these grants. A text of the guest that contains the value of one of `secrets` is not
    /// recorded.
    pub fn new<'a>(
        publish: &[String],
        http: &[Grant],
        config: impl Iterator<Item = &'a str>,
        secrets: &Secrets,
    ) -> Self {
        let reads = |name: &str| (name.to_owned(), Reads::default());
        Self {
            publish: publish.iter().map(|glob| (glob.clone(), Values::default())).collect(),
            http: http.iter().map(|grant| (grant.destination.origin(), Values::default())).collect(),
            config: config.map(reads).collect(),
            secrets: secrets.iter().map(|(name, _)| reads(name)).collect(),
            hidden: secrets.clone(),
            ..Self::default()
        }
    }

    /// Records the start of an attempt or of an HTTP request.
    pub fn attempt(&self) {
        self.attempts.fetch_add(1, Ordering::Relaxed);
    }

    /// Records a request to `target` that the grant at `position` in the list of grants allows.
    pub fn request(&self, position: usize, target: &str) {
        if let Some((_, hosts)) = self.http.get(position) {
            hosts.note(target);
        }
    }

    /// Records the result of the check of a request against the grants.
    pub(super) fn request_checked(&self, granted: &Result<(usize, Target), Error>) {
        match granted {
            Ok((position, target)) => self.request(*position, &target.to_string()),
            Err(Error::NotGranted { target }) => self.refused_http.note(&target.to_string()),
            Err(_) => {}
        }
    }

    /// Records the error of a request if the address of the target was refused.
    pub(super) fn request_failed(&self, error: &Error) {
        if let Error::AddressRefused { target, address, .. } = error {
            self.refused_addresses.note(&format!("{target} {address}"));
        }
    }

    /// Records a published event that the glob at `position` in the list of globs allows.
    pub(super) fn published(&self, position: usize, type_: &str) {
        if let Some((_, types)) = self.publish.get(position) {
            types.note(type_);
        }
    }

    /// Records an event that no glob allows.
    pub(super) fn publish_refused(&self, type_: &str) {
        self.refused_publish.note(type_);
    }

    pub(super) fn state(&self, operation: StateOperation) {
        let StateUse { open, shared, read, write } = &self.state;
        match operation {
            StateOperation::Open => open.set(),
            StateOperation::OpenShared => {
                open.set();
                shared.set();
            }
            StateOperation::Read => read.set(),
            StateOperation::Write => write.set(),
        }
    }

    pub(super) fn shared_state_refused(&self) {
        self.refused_shared_state.set();
    }

    /// Records that the guest read the configuration value or the secret with this name.
    pub(super) fn read(&self, name: &str) {
        // If a secret and a configuration value have the same name, the guest reads the secret.
        match self.secrets.get(name).or_else(|| self.config.get(name)) {
            Some(reads) => reads.read.set(),
            None => self.refused_config.note(name),
        }
    }

    pub(super) fn given_whole(&self, how: Whole) {
        for reads in self.config.values().chain(self.secrets.values()) {
            match how {
                Whole::GetAll => reads.get_all.set(),
                Whole::Environment => reads.environment.set(),
            }
        }
    }

    /// Returns the uses since the last call.
    pub fn take(&self) -> Uses {
        let mut used = Vec::new();
        let mut add = |key: GrantKey, values: Vec<String>, more: bool| {
            if more || !values.is_empty() {
                used.push(Used { key, values, more });
            }
        };
        for (kind, entries) in [(GrantKind::Publish, &self.publish), (GrantKind::Http, &self.http)] {
            for (name, seen) in entries {
                let (values, more) = seen.take(&self.hidden);
                add(kind.key(name.as_str()), values, more);
            }
        }
        let StateUse { open, shared, read, write } = &self.state;
        add(GrantKind::State.key(""), names([("open", open), ("read", read), ("write", write)]), false);
        add(GrantKind::SharedState.key(""), names([("open", shared)]), false);
        for (kind, entries) in [(GrantKind::Config, &self.config), (GrantKind::Secret, &self.secrets)] {
            for (name, Reads { read, get_all, environment }) in entries {
                let how = names([("read", read), ("get-all", get_all), ("environment", environment)]);
                add(kind.key(name.as_str()), how, false);
            }
        }
        let mut refused = Vec::new();
        for (kind, names) in [
            (GrantKind::Publish, &self.refused_publish),
            (GrantKind::Http, &self.refused_http),
            (GrantKind::Address, &self.refused_addresses),
            (GrantKind::Config, &self.refused_config),
        ] {
            refused.extend(names.take(&self.hidden).0.into_iter().map(|name| kind.key(name)));
        }
        if self.refused_shared_state.take() {
            refused.push(GrantKind::SharedState.key(""));
        }
        Uses { attempts: self.attempts.swap(0, Ordering::Relaxed), used, refused }
    }
}

#[derive(Debug, Default)]
struct StateUse {
    open: Flag,
    shared: Flag,
    read: Flag,
    write: Flag,
}

/// How a configuration value or a secret was read.
#[derive(Debug, Default)]
struct Reads {
    read: Flag,
    get_all: Flag,
    environment: Flag,
}

fn names<const N: usize>(flags: [(&str, &Flag); N]) -> Vec<String> {
    flags.into_iter().filter(|(_, flag)| flag.take()).map(|(name, _)| name.to_owned()).collect()
}

/// True if something happened since the last `take`. If a flag is already set, setting it again only reads it, so that
/// processors can share the cache line.
#[derive(Debug, Default)]
struct Flag(AtomicBool);

impl Flag {
    fn set(&self) {
        if !self.0.load(Ordering::Relaxed) {
            self.0.store(true, Ordering::Relaxed);
        }
    }

    fn take(&self) -> bool {
        self.0.load(Ordering::Relaxed) && self.0.swap(false, Ordering::Relaxed)
    }
}

/// The first `N` different texts, and which of them were recorded since the last `take`.
#[derive(Debug)]
struct Values<const N: usize> {
    slots: [(OnceLock<Box<str>>, Flag); N],
    more: Flag,
}

impl<const N: usize> Default for Values<N> {
    fn default() -> Self {
        Self { slots: std::array::from_fn(|_| Default::default()), more: Flag::default() }
    }
}

impl<const N: usize> Values<N> {
    fn note(&self, text: &str) {
        if text.len() > TEXT_BYTES_MAX {
            return self.more.set();
        }
        for (slot, flag) in &self.slots {
            // If two threads with different texts use an empty slot at the same time, one of them finds the text of the
            // other, and continues with the next slot.
            if **slot.get_or_init(|| text.into()) == *text {
                return flag.set();
            }
        }
        self.more.set();
    }

    fn take(&self, hidden: &Secrets) -> (Vec<String>, bool) {
        let (mut texts, mut more) = (Vec::new(), self.more.take());
        let used = self.slots.iter().filter(|(_, flag)| flag.take());
        for text in used.filter_map(|(slot, _)| slot.get()) {
            if hidden.redact(text) == **text {
                texts.push(text.to_string());
            } else {
                more = true;
            }
        }
        (texts, more)
    }
}

#[cfg(test)]
mod tests {
    use evoke_model::destination::Destination;

    use super::*;

    fn grant_use() -> GrantUse {
        let grant = Grant::new(Destination::parse("https://*.tax.example").unwrap());
        let secrets = Secrets::new([("KEY".to_owned(), "key-value-0123".to_owned().into())].into()).unwrap();
        GrantUse::new(&["payment.*".into(), "done".into()], &[grant], ["CURRENCY"].into_iter(), &secrets)
    }

    fn used(uses: &Uses) -> Vec<(String, String, bool)> {
        uses.used.iter().map(|used| (used.key.to_string(), used.values.join(" "), used.more)).collect()
    }

    #[test]
    fn each_use_is_taken_once_with_its_values() {
        let grant_use = grant_use();
        assert_eq!(grant_use.take(), Uses::default());
        grant_use.attempt();
        grant_use.published(0, "payment.taken");
        grant_use.published(0, "payment.taken");
        grant_use.published(0, "payment.refused");
        grant_use.request(0, "https://eu.tax.example");
        grant_use.state(StateOperation::Open);
        grant_use.state(StateOperation::Read);
        grant_use.read("CURRENCY");
        grant_use.read("OTHER");
        grant_use.given_whole(Whole::Environment);
        let uses = grant_use.take();
        let expected = [
            ("publish payment.*", "payment.taken payment.refused"),
            ("http https://*.tax.example", "https://eu.tax.example"),
            ("state", "open read"),
            ("config CURRENCY", "read environment"),
            ("secret KEY", "environment"),
        ];
        assert_eq!(used(&uses), expected.map(|(key, values)| (key.to_owned(), values.to_owned(), false)));
        assert_eq!((uses.attempts, uses.refused), (1, vec![GrantKind::Config.key("OTHER")]));
        assert_eq!(grant_use.take(), Uses::default());
        grant_use.published(0, "payment.refused");
        assert_eq!(used(&grant_use.take()), [("publish payment.*".into(), "payment.refused".into(), false)]);
    }

    #[test]
    fn many_and_long_values_take_bounded_memory_and_are_known_to_be_more() {
        let grant_use = grant_use();
        (0..1_000).for_each(|n| grant_use.published(0, &format!("payment.{n}")));
        grant_use.published(1, &"x".repeat(TEXT_BYTES_MAX + 1));
        (0..1_000).for_each(|n| grant_use.publish_refused(&n.to_string()));
        let uses = grant_use.take();
        assert_eq!((uses.used[0].values.len(), uses.used[0].more), (GRANT_VALUES_MAX, true));
        assert_eq!((uses.used[1].values.len(), uses.used[1].more), (0, true));
        assert_eq!(uses.refused.len(), REFUSED_MAX);
    }

    #[test]
    fn a_text_with_a_secret_is_not_recorded() {
        let grant_use = grant_use();
        grant_use.published(0, "payment.key-value-0123");
        grant_use.publish_refused("key-value-0123");
        grant_use.read("the key-value-0123");
        let uses = grant_use.take();
        assert_eq!(used(&uses), [("publish payment.*".into(), String::new(), true)]);
        assert_eq!(uses.refused, []);
    }

    #[test]
    fn uses_of_many_threads_are_all_recorded() {
        let grant_use = grant_use();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let grant_use = &grant_use;
                scope.spawn(move || {
                    for n in 0..1_000 {
                        grant_use.attempt();
                        grant_use.published(0, &format!("payment.{}", (n + thread) % GRANT_VALUES_MAX));
                    }
                });
            }
        });
        let uses = grant_use.take();
        assert_eq!((uses.attempts, uses.used[0].values.len(), uses.used[0].more), (4_000, GRANT_VALUES_MAX, false));
    }
}
