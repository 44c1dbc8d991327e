//! What tests of a running account need.

use std::time::Duration;

use tokio::time::timeout;
use wamd::{client::Events, event::Envelope};

/// The next event of this name; what comes before it is let go.
pub(crate) async fn event(events: &mut Events, name: &str) -> Envelope {
    let wait = async {
        loop {
            let event = events.recv().await.expect("the account runs");
            if event.event == name {
                return event;
            }
        }
    };
    timeout(Duration::from_secs(20), wait).await.unwrap_or_else(|_| panic!("no {name} in time"))
}
