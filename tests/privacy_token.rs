//! Privacy tokens are valid, attached and issued as the protocol wants: `vectors/signal_misc.json`, spec 03 §4.7.

use bytes::Bytes;
use serde_json::Value;
use wamd::{
    jid::Jid,
    message::privacy_token::{
        Attachment, Buckets, MAX_AHEAD, MAX_TOKEN_LEN, PrivacyToken, attach, cstoken, takes_token,
    },
};

const FILE: &str = include_str!("vectors/signal_misc.json");
const WEEK: u64 = 604_800;
/// In the middle of bucket 2,955.
const NOW: u64 = 2_955 * WEEK + 1_000;

fn file() -> Value {
    serde_json::from_str(FILE).expect("vector file is JSON")
}

#[test]
fn buckets_agree() {
    let file = file();
    let vectors = file["tctoken_buckets"].as_array().expect("buckets");
    for vector in vectors {
        let number = |name: &str| vector[name].as_u64().expect("number");
        let (buckets, now, cutoff) = (Buckets::default(), number("now"), number("cutoff"));
        assert_eq!((buckets.bucket(now), buckets.cutoff(now)), (number("bucket"), cutoff));
        assert!(buckets.is_valid(cutoff, now) && !buckets.is_valid(cutoff - 1, now));
    }
    assert_eq!(vectors.len(), 4);
}

#[test]
fn salted_tokens_agree() {
    let file = file();
    let vectors = file["cstoken"].as_array().expect("cstoken");
    for vector in vectors {
        let text = |name: &str| vector[name].as_str().expect("text");
        let (salt, lid): (_, Jid) = (hex::decode(text("nct_salt")).expect("hex"), text("lid").parse().expect("LID"));
        assert_eq!(hex::encode(cstoken(&salt, &lid)), text("cstoken"));
        assert_eq!(cstoken(&salt, &lid.with_device(5)), cstoken(&salt, &lid));
    }
    assert_eq!(vectors.len(), 2);
    // Spec 06 §4.6.
    let token = cstoken(&[0x07; 32], &Jid::lid("111111111111"));
    assert_eq!(hex::encode(token), "7ff5e119805fc534918a863ee000fe33f106c0f4df2d3a22465cf2ab1fc84897");
}

#[test]
fn windows_of_the_server_count() {
    assert_eq!((Buckets::new(0, 4), Buckets::new(WEEK, 0)), (None, None));
    assert_eq!(Buckets::new(WEEK, 4), Some(Buckets::default()));
    let day = Buckets::new(86_400, 1).expect("not 0");
    assert_eq!(day.cutoff(86_400 * 3 + 5), 86_400 * 3, "only the bucket of now");
    assert!(day.is_valid(86_400 * 3, 86_400 * 3 + 5) && !day.is_valid(86_400 * 3 - 1, 86_400 * 3 + 5));
    // Nothing is before the beginning, and nothing overflows at the end.
    assert_eq!(Buckets::default().cutoff(5), 0);
    let wide = Buckets::new(u64::MAX, u64::MAX).expect("not 0");
    assert_eq!((wide.cutoff(u64::MAX), wide.bucket(u64::MAX)), (0, 1));
}

#[test]
fn the_newest_token_counts() {
    let mut token = PrivacyToken::default();
    let bytes = |text: &'static str| Bytes::from_static(text.as_bytes());
    assert!(token.receive(bytes("a"), NOW, NOW));
    assert!(!token.receive(bytes("b"), NOW - 1, NOW), "older");
    assert_eq!(token.received, Some((bytes("a"), NOW)));
    assert!(token.receive(bytes("c"), NOW, NOW), "the same time");
    assert!(token.receive(bytes("d"), NOW + MAX_AHEAD, NOW));
    assert!(!token.receive(bytes("e"), NOW + MAX_AHEAD + 1, NOW), "a date in the future would stay for ever");
    assert!(!token.receive(Bytes::new(), NOW + MAX_AHEAD, NOW));
    assert!(!token.receive(vec![1; MAX_TOKEN_LEN + 1].into(), NOW + MAX_AHEAD, NOW));
    assert_eq!(token.received, Some((bytes("d"), NOW + MAX_AHEAD)));
    assert!(!format!("{token:?}").contains("\"d\""));
}

#[test]
fn ours_is_issued_once_per_bucket() {
    let (buckets, mut token) = (Buckets::default(), PrivacyToken::default());
    assert!(buckets.must_issue(token.issued, NOW));
    token.issue(NOW);
    assert!(!buckets.must_issue(token.issued, NOW));
    assert!(!buckets.must_issue(token.issued, NOW - WEEK), "the clock went back");
    let next = 2_956 * WEEK;
    assert!(!buckets.must_issue(token.issued, next - 1) && buckets.must_issue(token.issued, next));
    token.issue(5);
    assert_eq!(token.issued, Some(NOW), "an older one of the history");
}

#[test]
fn a_changed_identity_gets_the_token_again() {
    let (buckets, mut token) = (Buckets::default(), PrivacyToken::default());
    assert_eq!(token.reissue(&buckets, NOW), None);
    token.issue(NOW);
    assert_eq!(token.reissue(&buckets, NOW + 10), Some(NOW));
    assert_eq!(token.reissue(&buckets, NOW + 3 * WEEK), Some(NOW));
    assert_eq!(token.reissue(&buckets, NOW + 4 * WEEK), None, "it has expired");
}

#[test]
fn a_valid_token_goes_first_then_the_salted_one() {
    let (buckets, mut token, lid) = (Buckets::default(), PrivacyToken::default(), Jid::lid("1"));
    let salted = Attachment::Salted(cstoken(&[7; 32], &lid));
    let salt = Some(&[7; 32][..]);
    let attached = |token: &PrivacyToken, now| attach(Some(token), salt, Some(&lid), &buckets, now);
    assert_eq!(attached(&token, NOW), salted);
    token.receive(Bytes::from_static(b"token"), NOW, NOW);
    let trusted = Attachment::Trusted(Bytes::from_static(b"token"));
    assert_eq!(attached(&token, NOW), trusted);
    // Valid to the end of the third bucket after its own.
    let end = 2_959 * WEEK;
    assert_eq!((attached(&token, end - 1), attached(&token, end)), (trusted, salted.clone()));
    assert_eq!(attach(None, salt, Some(&lid), &buckets, NOW), salted);
    assert_eq!(attach(None, salt, None, &buckets, NOW), Attachment::None);
    assert_eq!(attach(None, Some(&[]), Some(&lid), &buckets, NOW), Attachment::None);
    assert_eq!(attach(None, None, Some(&lid), &buckets, NOW), Attachment::None);
    assert_eq!(format!("{salted:?}"), "Salted([redacted])");
}

#[test]
fn records_go_when_nothing_is_of_use() {
    let (buckets, mut token) = (Buckets::default(), PrivacyToken::default());
    assert!(token.is_stale(&buckets, &buckets, NOW));
    token.receive(Bytes::from_static(b"token"), NOW, NOW);
    assert!(!token.is_stale(&buckets, &buckets, NOW));
    token.issue(NOW + WEEK);
    assert!(!token.is_stale(&buckets, &buckets, NOW + 4 * WEEK), "ours is valid still");
    assert!(token.is_stale(&buckets, &buckets, NOW + 5 * WEEK));
}

#[test]
fn only_users_get_tokens() {
    let check = |jid: &str, expected| assert_eq!(takes_token(&jid.parse().expect("JID"), false), expected, "{jid}");
    check("49151@s.whatsapp.net", true);
    check("49151:3@s.whatsapp.net", true);
    check("1@lid", true);
    check("123@g.us", false);
    check("status@broadcast", false);
    check("123@broadcast", false);
    check("123@newsletter", false);
    check("867051314767696@bot", false);
    check("13135550002@s.whatsapp.net", false);
    check("0@s.whatsapp.net", false);
    check("s.whatsapp.net", false);
    assert!(!takes_token(&Jid::lid("1"), true), "ourselves");
}
