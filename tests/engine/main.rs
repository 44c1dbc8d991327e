//! What an engine promises, one file for each promise: every test plays in a [`world`] of its own, in one thread, and does the
//! same every time. One program, because what the files share is most of what there is to build.
//!
//! `cargo test --test engine prekeys` runs the file `prekeys.rs`.

#[path = "../common/people.rs"]
mod people;
#[path = "../common/puppet.rs"]
mod puppet;
#[path = "../common/vectors.rs"]
mod vectors;
#[path = "../common/world.rs"]
mod world;

mod bad_input;
mod bot_replies;
mod damaged_delivery;
mod deletes;
mod device_lists;
mod edits;
mod event_responses;
mod group_acks;
mod group_content;
mod group_metadata;
mod group_notifications;
mod group_receipts;
mod group_receive;
mod group_send;
mod hostile_peer;
mod identity_change;
mod lid_migration;
mod life_cycle;
mod life_cycle_limits;
mod noise_writes;
mod offline_resume;
mod pair_code_link;
mod passkey_link;
mod peer_message;
mod placeholder;
mod polls;
mod prekey_digest;
mod prekeys;
mod privacy_tokens;
mod qr_link;
mod reactions;
mod receipts;
mod relink;
mod reporting_tokens_sent;
mod resend_group;
mod resend_rules;
mod restrictions;
mod resume;
mod retention;
mod retry_requests;
mod send;
mod sender_key_rotation;
mod sender_keys_go;
mod session_setup_slices;
mod status_receive;
mod status_send;
mod store_failure;
mod told_and_forgotten;
mod who_is_who;
