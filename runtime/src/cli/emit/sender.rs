//! Sends events in batches over one connection.

use std::time::Duration;

use super::super::client::{Client, PostError, parse};
use super::super::{Common, Failure};
use crate::admin::view::Posted;

const PATH: &str = "/api/v1/events";

/// Sends events to the admin API that the options of the command name. If Evoke cannot be reached, the next attempt
/// reads the address again, because Evoke may have another port after a restart.
pub(super) struct Sender<'a> {
    common: &'a Common,
    client: Option<Client>,
    /// Counts all events that were sent so far.
    pub(super) sent: Sent,
}

/// The numbers of events that Evoke accepted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// Events that Evoke stored now.
    pub(super) stored: u64,
    /// Events that Evoke had stored before, and did not store again.
    pub(super) duplicates: u64,
}

/// Why sending a batch failed. With `Away`, it is unknown whether the events of the batch are stored. With the other
/// variants, no event of the batch is stored.
pub(super) enum NotSent {
    /// Evoke cannot be reached, or sent no complete response.
    Away(Failure),
    /// Evoke accepts no events at the moment. Send the batch again after this time.
    Later(String, Duration),
    /// Evoke refuses the event with this index; with `None`, it is unknown which event of the batch is refused.
    Refused(Option<usize>, String),
    /// The request failed for another reason. Do not send the batch again.
    Failed(Failure),
}

impl<'a> Sender<'a> {
    pub(super) fn new(common: &'a Common) -> Self {
        Self { common, client: None, sent: Sent::default() }
    }

    /// Sends events in their JSON form. Evoke stores all of them or none.
    pub(super) fn send(&mut self, events: &[impl AsRef<[u8]>]) -> Result<(), NotSent> {
        let client = match &self.client {
            Some(client) => client,
            None => match Client::find(self.common) {
                Ok(client) => &*self.client.insert(client),
                Err(failure @ Failure::NotRunning(_)) => return Err(NotSent::Away(failure)),
                Err(failure) => return Err(NotSent::Failed(failure)),
            },
        };
        let mut body = Vec::with_capacity(events.iter().map(|event| event.as_ref().len() + 1).sum::<usize>() + 2);
        for event in events {
            body.push(if body.is_empty() { b'[' } else { b',' });
            body.extend_from_slice(event.as_ref());
        }
        body.push(b']');
        match client.try_post(PATH, &body) {
            Ok(response) => {
                let posted: Posted = parse(&response).map_err(NotSent::Failed)?;
                let duplicates = posted.accepted.iter().filter(|event| event.duplicate).count() as u64;
                self.sent.duplicates += duplicates;
                self.sent.stored += posted.accepted.len() as u64 - duplicates;
                Ok(())
            }
            Err(PostError::Away(detail)) => {
                // Evoke may have another port after a restart, so the next call reads the address again.
                self.client = None;
                Err(NotSent::Away(Failure::NotRunning(detail)))
            }
            Err(PostError::Later(detail, wait)) => Err(NotSent::Later(detail, wait)),
            Err(PostError::Refused(detail)) => {
                let index = if events.len() == 1 { Some(0) } else { index_of(&detail).filter(|at| *at < events.len()) };
                Err(NotSent::Refused(index, detail))
            }
            Err(PostError::Failed(detail)) => Err(NotSent::Failed(Failure::Failed(detail))),
        }
    }
}

/// Returns the index of the event that an error message of the API is about. Such a message begins with the word
/// `event` and the index, as in `event 7: `.
fn index_of(detail: &str) -> Option<usize> {
    let rest = detail.strip_prefix("event ")?;
    rest.get(..rest.find(|char: char| !char.is_ascii_digit())?)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_index_of_a_refused_event_is_in_the_message() {
        assert_eq!(index_of("event 12: `id` is missing"), Some(12));
        assert_eq!(index_of("event 3 has 9 bytes; the limit is 5 bytes"), Some(3));
        assert_eq!(index_of("the body is not JSON"), None);
        assert_eq!(index_of("event x"), None);
    }
}
