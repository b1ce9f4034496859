//! The JSON form of a delivery.

use super::{Attempt, Delivery};
use evoke_model::clock::rfc3339;
use evoke_model::{DamagedDelivery, DeliveryRecord, ReadDelivery};

impl From<DeliveryRecord> for Delivery {
    fn from(record: DeliveryRecord) -> Self {
        Self {
            id: record.id,
            event: record.event,
            function: record.function,
            trigger: record.trigger,
            order_key: record.order_key,
            replay: record.replay,
            state: record.state.name().into(),
            cause: record.cause,
            due: record.due_ms.map(rfc3339),
            attempts: record.attempts.into_iter().map(Attempt::from).collect(),
            published: Vec::new(),
            omitted: 0,
        }
    }
}

impl From<ReadDelivery> for Delivery {
    fn from(read: ReadDelivery) -> Self {
        match read {
            Ok(record) => record.into(),
            Err(DamagedDelivery { id, state: _, attempts, what }) => Self {
                id,
                event: 0,
                function: String::new(),
                trigger: String::new(),
                order_key: None,
                replay: None,
                state: "damaged".into(),
                cause: Some(what),
                due: None,
                attempts: attempts.into_iter().map(Attempt::from).collect(),
                published: Vec::new(),
                omitted: 0,
            },
        }
    }
}
