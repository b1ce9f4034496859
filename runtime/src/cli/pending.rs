//! `pending`: lists and cancels deliveries that are not done.

use clap::{Args, Subcommand};

use super::client::{Client, parse};
use super::table::table;
use super::text::{self, EventSummary, escape, print, print_json_text};
use super::{Common, Failure, WithCommon};
use crate::admin::view::{Count, DeadLetter, PendingSelection};
use evoke_model::{DeliveryId, Seq};

#[derive(Debug, Subcommand)]
pub(super) enum Pending {
    /// List pending deliveries, oldest first: ready, retrying and blocked ones
    #[command(after_help = "Example: evoke pending list --function shop/charge")]
    List(WithCommon<List>),
    /// Make pending deliveries dead letters, which `evoke dead redrive` undoes. Attempts that run now have no effect
    #[command(after_help = "Example: evoke pending cancel --root 17")]
    Cancel(WithCommon<Cancel>),
}

#[derive(Debug, Args)]
pub(super) struct List {
    /// Only deliveries of this function, app/function
    #[arg(long, conflicts_with = "root")]
    function: Option<String>,
    /// Only deliveries of the event with this number and of all events that it caused
    #[arg(long, value_name = "EVENT")]
    root: Option<Seq>,
    /// Only deliveries with higher numbers
    #[arg(long, value_name = "DELIVERY")]
    after: Option<DeliveryId>,
    /// Maximum number of deliveries to list
    #[arg(long, short = 'n', default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
pub(super) struct Cancel {
    /// Number of one delivery
    delivery: Option<DeliveryId>,
    /// All pending deliveries of this function, app/function
    #[arg(long)]
    function: Option<String>,
    /// All pending deliveries of the event with this number and of all events that it caused
    #[arg(long, value_name = "EVENT")]
    root: Option<Seq>,
}

impl Pending {
    pub(super) fn run(self, global: &Common) -> Result<(), Failure> {
        match self {
            Self::List(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
            Self::Cancel(WithCommon { command, common }) => command.run(&common.with_defaults(global)),
        }
    }
}

impl List {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let mut query = vec![("limit", self.limit.to_string())];
        query.extend(self.function.map(|function| ("function", function)));
        query.extend(self.root.map(|root| ("root", root.to_string())));
        query.extend(self.after.map(|after| ("after", after.to_string())));
        let client = Client::find(common)?;
        if common.client_args.json {
            return client.lines("/api/v1/pending", &query, print_json_text);
        }
        let mut rows = Vec::new();
        client.lines("/api/v1/pending", &query, |line| {
            rows.push(row(&parse(line)?));
            Ok(())
        })?;
        if rows.is_empty() {
            return print("no pending deliveries");
        }
        print(&table(&["delivery#", "function", "state", "attempts#", "event"], &rows, text::columns()))
    }
}

impl Cancel {
    fn run(self, common: &Common) -> Result<(), Failure> {
        let which = match self {
            Self { delivery: Some(id), .. } => PendingSelection::Delivery(id),
            Self { function: Some(name), .. } => PendingSelection::Function(name),
            Self { root, .. } => PendingSelection::Root(root.unwrap_or_default()),
        };
        let response = Client::find(common)?.post("/api/v1/pending/cancel", &which)?;
        let Count { count } = parse(&response)?;
        if let (PendingSelection::Delivery(id), 0) = (which, count) {
            return Err(Failure::NotFound(format!(
                "delivery {id} is not pending; `evoke pending list` lists all pending deliveries"
            )));
        }
        if common.client_args.json {
            return print_json_text(&response);
        }
        print(&format!("{} cancelled", text::count(count, "delivery")))
    }
}

fn row(pending: &DeadLetter) -> Vec<String> {
    let DeadLetter { delivery, event } = pending;
    let EventSummary { type_, .. } = EventSummary::parse(&event.event);
    vec![
        delivery.id.to_string(),
        delivery.function.clone(),
        escape(&delivery.state).into_owned(),
        delivery.attempts.len().to_string(),
        format!("{} {type_}", event.seq),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn row_shows_the_state_the_attempts_and_the_event() {
        let pending: DeadLetter = parse(
            r#"{"delivery":{"id":3,"event":7,"function":"shop/charge","trigger":"on[0]","state":"retrying",
                "attempts":[{"attempt":1,"started":"soon","duration_us":900,"outcome":"retry","message":"no"}]},
              "event":{"seq":7,"accepted":"soon","event":{"id":"1","source":"/s","type":"t"}}}"#,
        )
        .unwrap();
        assert_eq!(row(&pending), ["3", "shop/charge", "retrying", "1", "7 t"]);
    }
}
