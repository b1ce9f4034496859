//! Sessions of browsers. The holder of a token requests a code, which opens one session within two minutes. The session
//! has the rights of the token.
//!
//! A session has two secrets: a cookie, which scripts cannot read, and a key, which the page keeps in the storage of
//! its origin and sends in a header. A request needs both. Browsers send cookies to every port of a host, so another
//! program on this machine can see the cookie, but not the key. Pages of other sites can send neither the header nor
//! the cookie. The process keeps only hashes of codes, cookies and keys, in memory: a restart ends all sessions.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::admin::tokens::{Caller, Hash, equal, hash, random_text};
use evoke_model::clock::UnixMs;

/// How long a code is valid: enough to switch from the terminal to the browser.
pub(super) const CODE_TIME: Duration = Duration::from_secs(120);
/// How long a session lasts: a working day.
pub(super) const SESSION_TIME: Duration = Duration::from_secs(12 * 60 * 60);
/// Maximum number of unused codes. A further code replaces the oldest code of the token that has the most codes.
const CODES_MAX: usize = 16;
/// Maximum number of sessions. A further session ends the oldest session of the token that has the most sessions.
const SESSIONS_MAX: usize = 64;

/// The codes and sessions.
#[derive(Default)]
pub(in crate::admin) struct Sessions(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    /// Oldest first.
    codes: VecDeque<Code>,
    /// Oldest first.
    sessions: VecDeque<Session>,
}

struct Code {
    hash: Hash,
    caller: Caller,
    ends: Instant,
}

struct Session {
    cookie: Hash,
    key: Hash,
    caller: Caller,
}

/// A new session.
pub(super) struct Opened {
    pub(super) cookie: String,
    pub(super) key: String,
    pub(super) caller: Caller,
}

impl Sessions {
    /// Returns a code that opens one session with the rights of `caller`.
    pub(super) fn make_code(&self, caller: Caller) -> anyhow::Result<String> {
        let code = random_text()?;
        let mut inner = self.lock();
        inner.codes.retain(|code| Instant::now() < code.ends);
        if inner.codes.len() >= CODES_MAX {
            let replaced = oldest_of_most(inner.codes.iter().map(|code| &*code.caller.name), &caller.name);
            inner.codes.remove(replaced);
        }
        inner.codes.push_back(Code { hash: hash(&code), caller, ends: Instant::now() + CODE_TIME });
        Ok(code)
    }

    /// Opens a session. Returns `None` if the code does not exist, was used or is too old, or if its token was revoked
    /// or has expired.
    pub(super) fn open(&self, code: &str, now_ms: UnixMs) -> anyhow::Result<Option<Opened>> {
        let (cookie, key) = (random_text()?, random_text()?);
        let presented = hash(code);
        let mut inner = self.lock();
        let Some(at) = inner.codes.iter().position(|code| equal(&code.hash, &presented)) else { return Ok(None) };
        let Some(code) = inner.codes.remove(at) else { return Ok(None) };
        if Instant::now() >= code.ends || code.caller.check(now_ms).is_err() {
            return Ok(None);
        }
        let until_ms = now_ms.saturating_add(UnixMs::try_from(SESSION_TIME.as_millis()).unwrap_or(UnixMs::MAX));
        let caller = code.caller.for_session(until_ms);
        inner.sessions.retain(|session| session.caller.check(now_ms).is_ok());
        if inner.sessions.len() >= SESSIONS_MAX {
            let replaced = oldest_of_most(inner.sessions.iter().map(|session| &*session.caller.name), &caller.name);
            inner.sessions.remove(replaced).into_iter().for_each(|session| session.caller.end());
        }
        inner.sessions.push_back(Session { cookie: hash(&cookie), key: hash(&key), caller: caller.clone() });
        Ok(Some(Opened { cookie, key, caller }))
    }

    /// Returns the caller whose session has this cookie and this key. The comparison takes the same time for all wrong
    /// cookies and keys, so its duration shows an attacker nothing about the right ones.
    pub(in crate::admin) fn authenticate(&self, cookie: &str, key: &str, now_ms: UnixMs) -> Option<Caller> {
        let (cookie, key) = (hash(cookie), hash(key));
        let mut found = None;
        for session in &self.lock().sessions {
            // `&` compares the key even if the cookie is wrong, so that the time does not depend on the cookie.
            if equal(&session.cookie, &cookie) & equal(&session.key, &key) {
                found = Some(session.caller.clone());
            }
        }
        found.filter(|caller| caller.check(now_ms).is_ok())
    }

    /// Ends the session with this cookie. Returns false if there is no such session.
    pub(super) fn close(&self, cookie: &str) -> bool {
        let cookie = hash(cookie);
        let mut inner = self.lock();
        let Some(at) = inner.sessions.iter().position(|session| equal(&session.cookie, &cookie)) else { return false };
        let session = inner.sessions.remove(at);
        session.into_iter().for_each(|session| session.caller.end());
        true
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the position of the entry that a new entry replaces: the oldest entry of the owner that has the most
/// entries, with the new entry counted. `owners` are the owners of the entries, oldest first; `new` is the owner of the
/// new entry. So the holder of one token cannot push out the entries of other holders.
fn oldest_of_most<'a>(owners: impl Iterator<Item = &'a str>, new: &'a str) -> usize {
    let owners: Vec<_> = owners.collect();
    let count = |owner: &str| owners.iter().chain([&new]).filter(|other| **other == owner).count();
    let most = owners.iter().map(|owner| count(owner)).max().unwrap_or_default();
    owners.iter().position(|owner| count(owner) == most).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::tokens::{Role, Tokens};
    use evoke_model::clock::Clock;

    fn tokens() -> (tempfile::TempDir, Tokens, String) {
        let folder = tempfile::tempdir().unwrap();
        let tokens = Tokens::open(folder.path(), Clock::fixed(1_000)).unwrap();
        let viewer = tokens.create("v", Role::Viewer, Some(Duration::from_secs(60))).unwrap().token;
        (folder, tokens, viewer)
    }

    #[tokio::test(start_paused = true)]
    async fn a_code_opens_one_session_within_two_minutes() {
        let (_folder, tokens, viewer) = tokens();
        let (sessions, caller) = (Sessions::default(), tokens.authenticate(&viewer).unwrap());
        let code = sessions.make_code(caller.clone()).unwrap();
        assert!(sessions.open("", 1_000).unwrap().is_none() && sessions.open(&code[1..], 1_000).unwrap().is_none());
        let Opened { cookie, key, caller: opened } = sessions.open(&code, 1_000).unwrap().unwrap();
        assert!(sessions.open(&code, 1_000).unwrap().is_none(), "a code opens only one session");
        // The session ends with the token.
        assert_eq!((opened.role, opened.expires_ms()), (Role::Viewer, Some(61_000)));
        assert_eq!(&*sessions.authenticate(&cookie, &key, 1_000).unwrap().name, "v");
        for (cookie, key) in [(&cookie, &cookie), (&key, &key), (&key, &cookie), (&cookie, &String::new())] {
            assert!(sessions.authenticate(cookie, key, 1_000).is_none());
        }
        assert!(sessions.authenticate(&cookie, &key, 61_000).is_none());
        let late = sessions.make_code(caller).unwrap();
        tokio::time::advance(CODE_TIME).await;
        assert!(sessions.open(&late, 1_000).unwrap().is_none());
    }

    #[tokio::test]
    async fn a_session_ends_by_itself_and_with_its_token() {
        let (_folder, tokens, viewer) = tokens();
        let (sessions, caller) = (Sessions::default(), tokens.authenticate(&viewer).unwrap());
        let open = || sessions.open(&sessions.make_code(caller.clone()).unwrap(), 1_000).unwrap().unwrap();
        let (first, second) = (open(), open());
        assert!(sessions.close(&first.cookie) && !sessions.close(&first.cookie));
        assert!(first.caller.check(1_000).is_err() && second.caller.check(1_000).is_ok());
        assert!(tokens.authenticate(&viewer).is_ok());
        let unused = sessions.make_code(caller.clone()).unwrap();
        tokens.revoke("v").unwrap();
        assert!(sessions.authenticate(&second.cookie, &second.key, 1_000).is_none());
        assert!(sessions.open(&unused, 1_000).unwrap().is_none());
    }

    #[tokio::test]
    async fn the_number_of_codes_and_of_sessions_is_bounded() {
        let (_folder, tokens, viewer) = tokens();
        let (sessions, caller) = (Sessions::default(), tokens.authenticate(&viewer).unwrap());
        let oldest = sessions.make_code(caller.clone()).unwrap();
        for _ in 0..CODES_MAX {
            sessions.make_code(caller.clone()).unwrap();
        }
        assert!(sessions.open(&oldest, 1_000).unwrap().is_none());
        let open = || sessions.open(&sessions.make_code(caller.clone()).unwrap(), 1_000).unwrap().unwrap();
        let first = open();
        for _ in 0..SESSIONS_MAX {
            open();
        }
        assert!(first.caller.check(1_000).is_err());
        assert_eq!(sessions.lock().sessions.len(), SESSIONS_MAX);
    }

    #[tokio::test]
    async fn the_holder_of_a_token_ends_no_code_and_no_session_of_another_one() {
        let (_folder, tokens, viewer) = tokens();
        let operator = tokens.create("o", Role::Operator, None).unwrap().token;
        let sessions = Sessions::default();
        let [viewer, operator] = [viewer, operator].map(|token| tokens.authenticate(&token).unwrap());
        let open = |caller: &Caller| {
            let code = sessions.make_code(caller.clone()).unwrap();
            sessions.open(&code, 1_000).unwrap().unwrap()
        };
        let (of_viewer, of_operator) = (open(&viewer), open(&operator));
        for _ in 0..SESSIONS_MAX {
            open(&viewer);
        }
        assert!(of_operator.caller.check(1_000).is_ok() && of_viewer.caller.check(1_000).is_err());
        let code = sessions.make_code(operator).unwrap();
        for _ in 0..CODES_MAX {
            sessions.make_code(viewer.clone()).unwrap();
        }
        assert!(sessions.open(&code, 1_000).unwrap().is_some());
    }
}
