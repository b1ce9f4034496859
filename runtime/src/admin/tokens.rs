//! The tokens of the admin API.
//!
//! `DATA/admin.token` has the owner's token, which is made at the first start. Operators make all other tokens.
//! `DATA/tokens.json` has the names, roles and SHA-256 hashes of these other tokens. Both files have mode 0600 and are
//! replaced atomically. The process keeps only hashes in memory.

mod files;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use tokio_util::sync::CancellationToken;

use self::files::StoredToken;
pub(crate) use self::files::read_owner;
use super::view;
pub(super) use super::view::Role;
use evoke_model::clock::{Clock, UnixMs, rfc3339};

/// The prefix of every token. Tools that search for leaked secrets can recognise tokens by this prefix.
const PREFIX: &str = "evoke_";
/// Number of random bytes of a token.
const RANDOM_BYTES: usize = 32;
/// Name of the owner's token.
const OWNER: &str = "owner";
/// Maximum number of tokens besides the owner's. There is a limit because the token of each request is compared with
/// all tokens.
const TOKENS_MAX: usize = 100;
/// Maximum length of a token's name.
const NAME_LENGTH_MAX: usize = 64;

/// SHA-256 of a token. A token has 256 random bits and cannot be guessed, so no slow password hash is needed.
pub(super) type Hash = [u8; 32];

/// The valid tokens; cheap to clone.
#[derive(Clone)]
pub struct Tokens(Arc<Inner>);

struct Inner {
    data: PathBuf,
    clock: Clock,
    /// The owner's token comes first.
    valid: RwLock<Vec<Token>>,
    /// Held while `tokens.json` is written.
    changing: Mutex<()>,
}

#[derive(Clone)]
struct Token {
    hash: Hash,
    created_ms: UnixMs,
    caller: Caller,
}

/// The holder of the token or of the session that a request carries.
#[derive(Clone)]
pub(super) struct Caller {
    /// Name of the token.
    pub(super) name: Arc<str>,
    /// Role of the token.
    pub(super) role: Role,
    expires_ms: Option<UnixMs>,
    revoked: CancellationToken,
}

/// The reason why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum Rejected {
    #[error("the token is not valid: it does not exist or was revoked")]
    Unknown,
    #[error("the token expired at {}", rfc3339(*.0))]
    Expired(UnixMs),
}

/// The reason why a token was not made or not revoked.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("the name of a token must have 1 to {} letters, digits, `-`, `_` or `.`", NAME_LENGTH_MAX)]
    Name,
    #[error("a token with the name {0} already exists; choose another name, or revoke that token first")]
    Exists(String),
    #[error("there are already {} tokens, the maximum; revoke one of them first", TOKENS_MAX)]
    TooMany,
    #[error("there is no token {0}; `evoke token list` lists all tokens")]
    NotFound(String),
    #[error("the owner's token is in the file {}; to replace it, delete the file and restart `evoke up`", .0.display())]
    Owner(PathBuf),
    #[error("cannot write {}: {error}", .path.display())]
    Write { path: PathBuf, error: std::io::Error },
}

impl Tokens {
    /// Reads the tokens of a data folder. Makes a new token for the owner if the folder has none, or if other users
    /// could read the old one.
    pub fn open(data: &Path, clock: Clock) -> anyhow::Result<Self> {
        let stored = if files::is_owner_exposed(data) {
            let path = files::owner_path(data);
            tracing::warn!("other users could read {}; its token is replaced", path.display());
            None
        } else {
            files::read_owner(data)?
        };
        let owner = match stored {
            Some(token) => token,
            None => {
                let token = generate()?;
                files::write_owner(data, &token)?;
                token
            }
        };
        let mut valid = vec![Token {
            hash: hash(&owner),
            created_ms: clock.now_ms(),
            caller: Caller::new(OWNER, Role::Operator, None),
        }];
        valid.extend(files::read_tokens(data)?.into_iter().map(|stored| Token {
            hash: stored.hash,
            created_ms: stored.created_ms,
            caller: Caller::new(&stored.name, stored.role, stored.expires_ms),
        }));
        let (valid, changing) = (RwLock::new(valid), Mutex::new(()));
        Ok(Self(Arc::new(Inner { data: data.to_owned(), clock, valid, changing })))
    }

    /// Returns the holder of a token. The comparison takes the same time for any wrong token, so its duration shows an
    /// attacker nothing about the valid tokens.
    pub(super) fn authenticate(&self, token: &str) -> Result<Caller, Rejected> {
        let presented = hash(token);
        let mut found = None;
        for token in self.valid().iter() {
            if equal(&token.hash, &presented) {
                found = Some(token.caller.clone());
            }
        }
        let caller = found.ok_or(Rejected::Unknown)?;
        caller.check(self.0.clock.now_ms()).map(|()| caller)
    }

    /// Makes a token, and removes expired tokens. The new token is valid when this returns. Blocks until `tokens.json`
    /// is on disk.
    pub(super) fn create(
        &self,
        name: &str,
        role: Role,
        expires_in: Option<Duration>,
    ) -> Result<view::NewToken, TokenError> {
        let is_valid = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > NAME_LENGTH_MAX || !name.chars().all(is_valid) {
            return Err(TokenError::Name);
        }
        let _one_at_a_time = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let now_ms = self.0.clock.now_ms();
        let mut tokens = self.valid();
        tokens.retain(|token| token.caller.expires_ms.is_none_or(|expires_ms| expires_ms > now_ms));
        if tokens.iter().any(|token| *token.caller.name == *name) {
            return Err(TokenError::Exists(name.to_owned()));
        }
        if tokens.len() > TOKENS_MAX {
            return Err(TokenError::TooMany);
        }
        let to_ms = |duration: Duration| UnixMs::try_from(duration.as_millis()).unwrap_or(UnixMs::MAX);
        let expires_ms = expires_in.map(|duration| now_ms.saturating_add(to_ms(duration)));
        // A token that would expire after the last year of the calendar never expires, because such a time cannot be
        // written as text.
        let expires_ms = expires_ms.filter(|expires_ms| !rfc3339(*expires_ms).is_empty());
        let token = generate().map_err(|error| self.write_error(std::io::Error::other(error)))?;
        let caller = Caller::new(name, role, expires_ms);
        tokens.push(Token { hash: hash(&token), created_ms: now_ms, caller });
        self.replace(tokens)?;
        Ok(view::NewToken { name: name.to_owned(), role, token, expires: expires_ms.map(rfc3339) })
    }

    /// Makes a token with the role viewer, which can change nothing. Returns the text of the token.
    pub(crate) fn create_viewer(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.create(name, Role::Viewer, None)?.token)
    }

    /// Makes a token for a command that runs the API in its own process. There, the store refuses all changes. The
    /// token has the role operator, so that the command can also read recordings. This is safe, because the user of the
    /// command can read the files of the store anyway.
    pub(crate) fn create_local(&self, name: &str) -> anyhow::Result<String> {
        Ok(self.create(name, Role::Operator, None)?.token)
    }

    /// Revokes a token, and cuts off its responses that are in progress. Blocks until `tokens.json` is on disk.
    pub(super) fn revoke(&self, name: &str) -> Result<(), TokenError> {
        if name == OWNER {
            return Err(TokenError::Owner(files::owner_path(&self.0.data)));
        }
        let _one_at_a_time = self.0.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut tokens = self.valid();
        let Some(at) = tokens.iter().position(|token| *token.caller.name == *name) else {
            return Err(TokenError::NotFound(name.to_owned()));
        };
        let revoked = tokens.remove(at);
        self.replace(tokens)?;
        revoked.caller.revoked.cancel();
        Ok(())
    }

    /// Lists all tokens, the owner's first.
    pub(super) fn list(&self) -> Vec<view::Token> {
        let now_ms = self.0.clock.now_ms();
        let view = |Token { created_ms, caller, .. }: Token| view::Token {
            name: caller.name.to_string(),
            role: caller.role,
            created: rfc3339(created_ms),
            expires: caller.expires_ms.map(rfc3339),
            expired: caller.expires_ms.is_some_and(|expires_ms| expires_ms <= now_ms),
        };
        self.valid().into_iter().map(view).collect()
    }

    fn valid(&self) -> Vec<Token> {
        self.0.valid.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Writes the tokens to `tokens.json`, and then makes them valid.
    fn replace(&self, tokens: Vec<Token>) -> Result<(), TokenError> {
        let others = tokens.iter().filter(|token| *token.caller.name != *OWNER);
        let stored = others.map(|Token { hash, created_ms, caller }| StoredToken {
            name: caller.name.to_string(),
            role: caller.role,
            hash: *hash,
            created_ms: *created_ms,
            expires_ms: caller.expires_ms,
        });
        files::write_tokens(&self.0.data, stored.collect()).map_err(|error| self.write_error(error))?;
        *self.0.valid.write().unwrap_or_else(PoisonError::into_inner) = tokens;
        Ok(())
    }

    fn write_error(&self, error: std::io::Error) -> TokenError {
        TokenError::Write { path: files::tokens_path(&self.0.data), error }
    }
}

impl Caller {
    fn new(name: &str, role: Role, expires_ms: Option<UnixMs>) -> Self {
        Self { name: name.into(), role, expires_ms, revoked: CancellationToken::new() }
    }

    /// Returns this caller for a session of the console. The session ends at `until_ms`, when the token expires or is
    /// revoked, or by [`Self::end`], whichever comes first.
    pub(super) fn for_session(&self, until_ms: UnixMs) -> Self {
        let expires_ms = self.expires_ms.map_or(until_ms, |own| own.min(until_ms));
        Self { expires_ms: Some(expires_ms), revoked: self.revoked.child_token(), ..self.clone() }
    }

    /// Ends a session, and cuts off its responses that are in progress. Does not revoke the token.
    pub(super) fn end(self) {
        self.revoked.cancel();
    }

    /// Returns an error if the token or the session has ended.
    pub(super) fn check(&self, now_ms: UnixMs) -> Result<(), Rejected> {
        match self.expires_ms {
            _ if self.revoked.is_cancelled() => Err(Rejected::Unknown),
            Some(expires_ms) if expires_ms <= now_ms => Err(Rejected::Expired(expires_ms)),
            _ => Ok(()),
        }
    }

    /// Returns when the token or the session expires.
    pub(super) fn expires_ms(&self) -> Option<UnixMs> {
        self.expires_ms
    }

    /// Waits until the token is revoked or expires.
    pub(super) async fn invalid(&self, clock: &Clock) {
        /// The longest time between two readings of the wall clock, which may jump.
        const INTERVAL: Duration = Duration::from_secs(30);
        let expired = async {
            let Some(expires_ms) = self.expires_ms else { return std::future::pending().await };
            while let Ok(left_ms @ 1..) = u64::try_from(expires_ms.saturating_sub(clock.now_ms())) {
                tokio::time::sleep(Duration::from_millis(left_ms).min(INTERVAL)).await;
            }
        };
        tokio::select! {
            () = self.revoked.cancelled() => {}
            () = expired => {}
        }
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tokens").finish_non_exhaustive()
    }
}

fn generate() -> anyhow::Result<String> {
    Ok(format!("{PREFIX}{}", random_text()?))
}

/// Returns 256 random bits in base64 without padding (RFC 4648, section 5).
pub(super) fn random_text() -> anyhow::Result<String> {
    let mut random = [0; RANDOM_BYTES];
    getrandom::fill(&mut random).map_err(|error| anyhow::anyhow!("cannot get random numbers: {error}"))?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// Returns true if a text has the form of a token.
fn is_token(text: &str) -> bool {
    let random = text.strip_prefix(PREFIX).and_then(|random| URL_SAFE_NO_PAD.decode(random).ok());
    random.is_some_and(|random| random.len() >= RANDOM_BYTES)
}

pub(super) fn hash(token: &str) -> Hash {
    Sha256::digest(token.as_bytes()).into()
}

/// Compares in constant time.
pub(super) fn equal(a: &Hash, b: &Hash) -> bool {
    let difference = a.iter().zip(b).fold(0, |difference, (a, b)| difference | (a ^ b));
    std::hint::black_box(difference) == 0
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;
    use std::sync::atomic::{AtomicI64, Ordering};

    use super::*;

    fn mode(path: &Path) -> u32 {
        std::fs::metadata(path).unwrap().permissions().mode() & 0o777
    }

    #[test]
    fn the_owners_token_is_made_once_and_only_its_owner_can_read_it() {
        let folder = tempfile::tempdir().unwrap();
        let open = || Tokens::open(folder.path(), Clock::system()).unwrap();
        let first = open();
        let path = folder.path().join("admin.token");
        let token = std::fs::read_to_string(&path).unwrap();
        assert!(is_token(token.trim()) && token.trim().len() == PREFIX.len() + 43, "{token}");
        assert_eq!(mode(&path), 0o600);
        for tokens in [first, open()] {
            assert_eq!(tokens.authenticate(token.trim()).unwrap().role, Role::Operator);
            assert!(matches!(tokens.authenticate("evoke_x"), Err(Rejected::Unknown)));
            assert!(matches!(tokens.authenticate(""), Err(Rejected::Unknown)));
        }
        // Other users may have read the token, so the next start replaces it.
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        let replaced = open();
        assert!(replaced.authenticate(token.trim()).is_err());
        assert!(replaced.authenticate(std::fs::read_to_string(&path).unwrap().trim()).is_ok());
        assert_eq!(mode(&path), 0o600);
        std::fs::write(&path, "hello").unwrap();
        let error = Tokens::open(folder.path(), Clock::system()).unwrap_err().to_string();
        assert!(error.contains("delete the file"), "{error}");
        assert!(!error.contains("hello"), "{error}");
    }

    #[test]
    fn made_tokens_survive_a_restart_as_hashes_and_end_when_revoked_or_expired() {
        let folder = tempfile::tempdir().unwrap();
        let now_ms = Arc::new(AtomicI64::new(1_000));
        let open = || Tokens::open(folder.path(), Clock::manual(&now_ms)).unwrap();
        let tokens = open();
        let viewer = tokens.create("grafana", Role::Viewer, None).unwrap().token;
        let short = tokens.create("ci", Role::Operator, Some(Duration::from_secs(1))).unwrap().token;
        let path = folder.path().join("tokens.json");
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&viewer) && text.contains("grafana"), "{text}");
        assert_eq!(mode(&path), 0o600);

        let tokens = open();
        assert_eq!(tokens.authenticate(&viewer).unwrap().role, Role::Viewer);
        assert_eq!(&*tokens.authenticate(&short).unwrap().name, "ci");
        now_ms.store(2_000, Ordering::SeqCst);
        assert!(matches!(tokens.authenticate(&short), Err(Rejected::Expired(2_000))));

        let caller = tokens.authenticate(&viewer).unwrap();
        assert!(matches!(tokens.create("grafana", Role::Viewer, None), Err(TokenError::Exists(_))));
        tokens.create("ci", Role::Viewer, Some(Duration::MAX)).unwrap();
        tokens.revoke("grafana").unwrap();
        assert!(caller.revoked.is_cancelled());
        assert!(tokens.authenticate(&viewer).is_err() && open().authenticate(&viewer).is_err());
        assert!(matches!(tokens.revoke("grafana"), Err(TokenError::NotFound(_))));
        assert!(matches!(tokens.revoke("owner"), Err(TokenError::Owner(_))));
        for name in ["", "a b", "ü", "a\u{1b}", "owner/x", &"x".repeat(65)] {
            assert!(matches!(tokens.create(name, Role::Viewer, None), Err(TokenError::Name)), "{name}");
        }
        assert!(matches!(tokens.create("owner", Role::Viewer, None), Err(TokenError::Exists(_))));
    }

    #[test]
    fn the_number_of_tokens_is_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path(), Clock::system()).unwrap();
        for n in 0..TOKENS_MAX {
            tokens.create(&n.to_string(), Role::Viewer, None).unwrap();
        }
        assert!(matches!(tokens.create("more", Role::Viewer, None), Err(TokenError::TooMany)));
    }

    #[test]
    fn a_damaged_file_of_tokens_is_an_error_that_names_it() {
        let folder = tempfile::tempdir().unwrap();
        for text in ["", "{", r#"{"tokens":[{"name":"a"}]}"#, r#"{"tokens":[],"more":1}"#] {
            std::fs::write(folder.path().join("tokens.json"), text).unwrap();
            let error = format!("{:#}", Tokens::open(folder.path(), Clock::system()).unwrap_err());
            assert!(error.contains("tokens.json"), "{error}");
        }
    }
}
