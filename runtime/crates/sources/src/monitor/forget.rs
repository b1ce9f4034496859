//! Removes subjects that the readings no longer find, with their states and readings in the store.

use std::time::Duration;

use evoke_model::Mark;
use evoke_threshold::{Moment, State};

use super::monitors::{Subjects, readings_mark};
use super::readings::{Check, Outcome};
use super::settings;
use super::watched::Watched;

/// Maximum number of subjects (watched things) that a reading of one monitor finds.
pub(super) const SUBJECTS_MAX: usize = 256;
/// Maximum number of subjects of a monitor after a reading: those that the reading found, and the others that the
/// monitor still reports. Without this limit, a user who renames the files of a watched folder again and again could
/// add any number of subjects.
pub(super) const KNOWN_MAX: usize = 2 * SUBJECTS_MAX;
/// How long the monitor still reports a subject that its check no longer finds.
const FORGET_AFTER: Duration = Duration::from_secs(86_400);

/// Removes the subjects that the readings no longer find: immediately if a missing subject counts as ok, otherwise
/// after a day, or earlier if the monitor has more than [`KNOWN_MAX`] subjects. Returns the marks that remove their
/// data.
pub(super) fn forget_gone(subjects: &mut Subjects, uri: &str, check: &Check, now: Moment) -> Vec<Mark> {
    if subjects.values().all(|watched| watched.is_found) {
        return Vec::new();
    }
    let (gone, fixed) = (gone_state(check), check.subjects());
    let after = if gone == State::Ok { 0 } else { settings::millis(FORGET_AFTER) };
    let mut marks = Vec::new();
    subjects.retain(|subject, watched| {
        let lasts = now.ms_since(watched.machine.since());
        let stays = watched.is_found || watched.state() != gone || lasts < after || fixed.contains(subject);
        if !stays {
            marks.extend(removal(uri, subject, watched));
        }
        stays
    });
    marks.extend(forget_excess(subjects, uri, check, |watched| !watched.is_found));
    marks
}

/// Removes subjects for which `may_forget` returns true, until at most [`KNOWN_MAX`] subjects are left. Returns the
/// marks that remove their data.
pub(super) fn forget_excess(
    subjects: &mut Subjects,
    uri: &str,
    check: &Check,
    may_forget: impl Fn(&Watched) -> bool,
) -> Vec<Mark> {
    let excess = subjects.len().saturating_sub(KNOWN_MAX);
    if excess == 0 {
        return Vec::new();
    }
    let (gone, fixed) = (gone_state(check), check.subjects());
    // The order of removal. First the subjects whose state already says that they are gone, the longest gone first.
    // Then the others, the newest first. Because of the option `for`, some of them may not be reported as gone yet. If
    // the oldest were removed first, many new names could prevent this report for an old subject.
    let order = |watched: &Watched| match watched.machine.since().mono_us {
        since if watched.state() == gone => (false, since),
        since => (true, -since),
    };
    let may_forget = |subject: &String, watched: &Watched| may_forget(watched) && !fixed.contains(subject);
    let candidates = subjects.iter().filter(|(subject, watched)| may_forget(subject, watched));
    let mut candidates: Vec<_> = candidates.map(|(subject, watched)| (order(watched), subject.clone())).collect();
    candidates.sort_unstable();
    let forgotten = candidates.into_iter().take(excess).filter_map(|(_, subject)| subjects.remove_entry(&subject));
    forgotten.flat_map(|(subject, watched)| removal(uri, &subject, &watched)).collect()
}

/// Returns the state of a subject that the readings no longer find.
fn gone_state(check: &Check) -> State {
    match check.gone() {
        Outcome::Read(found) => State::from(found.at_least),
        Outcome::Unknown(_) | Outcome::Pending => State::Unknown,
    }
}

/// Returns the marks that remove the state and the readings of a subject.
fn removal(uri: &str, subject: &str, watched: &Watched) -> Vec<Mark> {
    let state = Mark { scope: uri.to_owned(), key: format!("state/{subject}"), value: None };
    let readings = watched.minutes.all_stored().map(|hour| readings_mark(uri, subject, hour, None));
    std::iter::once(state).chain(readings).collect()
}
