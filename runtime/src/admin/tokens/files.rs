//! The files of the tokens, `admin.token` and `tokens.json` in the data folder. `tokens.json` is
//! `{"tokens": [{"name", "role", "sha256", "created", "expires"}]}`; `sha256` is in hexadecimal digits, times are RFC
//! 3339, and `expires` is absent if the token never expires.

use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Read as _, Write as _};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use serde::{Deserialize, Serialize};

use super::{Hash, Role, is_token};
use evoke_model::clock::{UnixMs, rfc3339};
use evoke_model::{hex, hex_bytes};

/// Maximum size of each file, in bytes.
const BYTES_MAX: u64 = 256 * 1024;
const PRIVATE: u32 = 0o600;

/// A token as it is stored.
pub(super) struct StoredToken {
    pub(super) name: String,
    pub(super) role: Role,
    pub(super) hash: Hash,
    pub(super) created_ms: UnixMs,
    pub(super) expires_ms: Option<UnixMs>,
}

#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct TokensFile {
    tokens: Vec<Entry>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    role: Role,
    sha256: String,
    created: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    expires: Option<String>,
}

pub(super) fn owner_path(data: &Path) -> PathBuf {
    data.join("admin.token")
}

pub(super) fn tokens_path(data: &Path) -> PathBuf {
    data.join("tokens.json")
}

/// Reads the owner's token of a data folder; `None` if there is no file. Returns an error if other users can read it.
pub(crate) fn read_owner(data: &Path) -> anyhow::Result<Option<String>> {
    let path = owner_path(data);
    let Some(text) = read_private(&path)? else { return Ok(None) };
    let token = text.trim();
    let at = path.display();
    ensure!(is_token(token), "{at} has no token; delete the file, and the next start of `evoke up` makes a new one");
    Ok(Some(token.to_owned()))
}

/// Returns true if other users could read the owner's token.
pub(super) fn is_owner_exposed(data: &Path) -> bool {
    owner_path(data).symlink_metadata().is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o077 != 0)
}

pub(super) fn write_owner(data: &Path, token: &str) -> anyhow::Result<()> {
    let path = owner_path(data);
    write_private(&path, &format!("{token}\n")).with_context(|| format!("cannot write {}", path.display()))
}

/// Reads the tokens in `tokens.json`: all except the owner's. Returns an empty list if there is no file.
pub(super) fn read_tokens(data: &Path) -> anyhow::Result<Vec<StoredToken>> {
    let path = tokens_path(data);
    let Some(text) = read_private(&path)? else { return Ok(Vec::new()) };
    let parse = || -> anyhow::Result<Vec<StoredToken>> {
        let file: TokensFile = serde_json::from_str(&text)?;
        file.tokens.into_iter().map(stored).collect()
    };
    parse()
        .with_context(|| format!("{} is damaged; delete it, restart Evoke, and make the tokens again", path.display()))
}

pub(super) fn write_tokens(data: &Path, tokens: Vec<StoredToken>) -> io::Result<()> {
    let entry = |token: StoredToken| Entry {
        name: token.name,
        role: token.role,
        sha256: hex(&token.hash),
        created: rfc3339(token.created_ms),
        expires: token.expires_ms.map(rfc3339),
    };
    let file = TokensFile { tokens: tokens.into_iter().map(entry).collect() };
    // Strings always serialise.
    write_private(&tokens_path(data), &(serde_json::to_string_pretty(&file).unwrap_or_default() + "\n"))
}

fn stored(entry: Entry) -> anyhow::Result<StoredToken> {
    let Entry { name, role, sha256, created, expires } = entry;
    let parse_time = |text: &str| text.parse::<jiff::Timestamp>().map(jiff::Timestamp::as_millisecond);
    let hash: Hash =
        hex_bytes(&sha256).with_context(|| format!("the hash of the token {name} is not 64 hexadecimal digits"))?;
    let created_ms = parse_time(&created)?;
    let expires_ms = expires.as_deref().map(parse_time).transpose()?;
    Ok(StoredToken { name, role, hash, created_ms, expires_ms })
}

/// Reads a file that only its owner may read. Returns `None` if the file does not exist.
fn read_private(path: &Path) -> anyhow::Result<Option<String>> {
    let at = path.display();
    let file = match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        opened => opened.with_context(|| format!("cannot read {at}"))?,
    };
    let mode = file.metadata().with_context(|| format!("cannot read {at}"))?.permissions().mode();
    if mode & 0o077 != 0 {
        bail!(
            "other users of this machine can read {at} and use its tokens: delete the file and restart `evoke up`, or \
             run `chmod 600 {at}` if you are sure that nobody has read it"
        );
    }
    let mut text = String::new();
    file.take(BYTES_MAX).read_to_string(&mut text).with_context(|| format!("cannot read {at}"))?;
    Ok(Some(text))
}

/// Replaces a file atomically; only its owner can read it. Returns when the file is on disk.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut new = path.to_owned().into_os_string();
    new.push(".new");
    let new = PathBuf::from(new);
    // A crash may have left the new file behind. It is removed and created again, so that it always has the right mode.
    match std::fs::remove_file(&new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(PRIVATE).open(&new)?;
    file.set_permissions(Permissions::from_mode(PRIVATE))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    evoke_fs::sync_folder(path.parent().unwrap_or(Path::new(".")))
}
