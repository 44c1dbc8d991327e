//! Sizes that the boxed members buy: a decoded message is moved about as less than 1 kB.

use std::mem::size_of;

use wamd_proto::{e2e, history, sync_action, web};

#[test]
fn messages_stay_small_in_memory() {
    assert!(size_of::<e2e::Message>() < 1024, "{}", size_of::<e2e::Message>());
    assert!(size_of::<e2e::ContextInfo>() < 1024, "{}", size_of::<e2e::ContextInfo>());
    assert!(size_of::<web::WebMessageInfo>() < 1024, "{}", size_of::<web::WebMessageInfo>());
    assert!(size_of::<history::Conversation>() < 1024, "{}", size_of::<history::Conversation>());
    assert!(size_of::<sync_action::SyncActionValue>() < 1024, "{}", size_of::<sync_action::SyncActionValue>());
}
