use proptest::prelude::*;

use super::*;

fn jid(text: &str) -> Jid {
    text.parse().expect(text)
}

fn check_err(text: &str, expected: JidError) {
    assert_eq!(text.parse::<Jid>(), Err(expected), "{text:?}");
}

#[test]
fn bad_texts_name_their_fault() {
    check_err("a@b@c", JidError::SecondAt);
    check_err("@@", JidError::SecondAt);
    check_err("", JidError::UnknownServer);
    check_err("abc", JidError::UnknownServer);
    check_err("@example.com", JidError::UnknownServer);
    check_err("@", JidError::EmptyServer);
    check_err("1@", JidError::EmptyServer);
    check_err("1@G.us", JidError::BadServer);
    check_err("1@g us", JidError::BadServer);
    check_err(":1@s.whatsapp.net", JidError::EmptyUser);
    check_err(".1@s.whatsapp.net", JidError::EmptyUser);
    check_err("3-@interop", JidError::EmptyUser);
    check_err("1:2:3@lid", JidError::SecondColon);
    check_err("1:@lid", JidError::BadDevice);
    check_err("1:+2@lid", JidError::BadDevice);
    check_err("1:\u{0661}@lid", JidError::BadDevice);
    check_err("1:256@hosted.lid", JidError::DeviceTooLarge { max: 255 });
    check_err("1:65536@msgr", JidError::DeviceTooLarge { max: 65535 });
    check_err("1:99999999999999999999999@bot", JidError::DeviceTooLarge { max: 65535 });
    check_err("1.2.3@s.whatsapp.net", JidError::SecondAgent);
    check_err("12345@interop", JidError::BadIntegrator);
    check_err("x-12345@interop", JidError::BadIntegrator);
    check_err("65536-12345@interop", JidError::BadIntegrator);
}

#[test]
fn a_long_fraction_belongs_to_the_user() {
    assert_eq!(jid("5511.2000@s.whatsapp.net").user(), "5511.2000");
    assert_eq!(jid("5511.x@c.us").user(), "5511.x");
}

#[test]
fn forms_of_one_account() {
    let hosted = jid("5511987654321:99@hosted");
    assert_eq!(hosted.to_bare(), jid("5511987654321@hosted"));
    assert_eq!(hosted.to_account(), jid("5511987654321@s.whatsapp.net"));
    assert_eq!(jid("7:99@hosted.lid").to_account(), jid("7@lid"));
    assert_eq!(jid("7@c.us").to_account(), jid("7@s.whatsapp.net"));
    assert!(hosted.same_account(&jid("5511987654321:2@c.us")));
    assert!(!hosted.same_account(&jid("5511987654321@lid")));
    assert!(!jid("3-7@interop").same_account(&jid("4-7@interop")));
    assert_eq!(jid("3-7:5@interop").to_bare().integrator(), 3);
}

#[test]
fn kinds() {
    let kinds = |text: &str| {
        let j = jid(text);
        let tests = [
            (j.is_pn_family(), "pn"),
            (j.is_lid_family(), "lid"),
            (j.is_group(), "group"),
            (j.is_broadcast(), "broadcast"),
            (j.is_status_broadcast(), "status"),
            (j.is_newsletter(), "newsletter"),
            (j.is_bot(), "bot"),
            (j.is_hosted(), "hosted"),
            (j.is_server_only(), "server"),
        ];
        tests.iter().filter(|(yes, _)| *yes).map(|(_, name)| *name).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(kinds("5511@s.whatsapp.net"), "pn");
    assert_eq!(kinds("5511:99@s.whatsapp.net"), "pn hosted");
    assert_eq!(kinds("5511:99@hosted"), "pn hosted");
    assert_eq!(kinds("5511@c.us"), "pn");
    assert_eq!(kinds("7@lid"), "lid");
    assert_eq!(kinds("7:99@hosted.lid"), "lid hosted");
    assert_eq!(kinds("s.whatsapp.net"), "pn server");
    assert_eq!(kinds("1-2@g.us"), "group");
    assert_eq!(kinds("g.us"), "server");
    assert_eq!(kinds("status@broadcast"), "broadcast status");
    assert_eq!(kinds("123@broadcast"), "broadcast");
    assert_eq!(kinds("123@newsletter"), "newsletter");
    assert_eq!(kinds("867051314767696@bot"), "bot");
    assert_eq!(kinds("13135550002@s.whatsapp.net"), "pn bot");
    assert_eq!(kinds("13135550002@c.us"), "pn bot");
    assert_eq!(kinds("13165550012@s.whatsapp.net"), "pn bot");
    assert_eq!(kinds("131355500021@s.whatsapp.net"), "pn");
    assert_eq!(kinds("13135550002:1@s.whatsapp.net"), "pn");
    assert_eq!(kinds("123:99@bot"), "bot");
}

#[test]
fn constants_and_builders_agree_with_parsing() {
    assert_eq!(Jid::whatsapp_server(), jid("s.whatsapp.net"));
    assert_eq!(Jid::status_broadcast(), jid("status@broadcast"));
    assert_eq!(Jid::pn("55").with_device(3), jid("55:3@s.whatsapp.net"));
    assert_eq!(Jid::new("7", Server::Interop).with_integrator(3), jid("3-7@interop"));
    assert_eq!(Jid::new("7", Server::Other("g.us".into())), jid("7@g.us"));
    assert_eq!(Jid::lid("7").server().to_string(), "lid");
}

#[test]
fn participant_hash_form() {
    assert_eq!(jid("5511:3@s.whatsapp.net").ad_string(), "5511.0:3@s.whatsapp.net");
    assert_eq!(jid("100@lid").ad_string(), "100.0:0@lid");
    assert_eq!(jid("g.us").ad_string(), "g.us");
}

#[test]
fn logs_hide_the_user() {
    let show = |text: &str| jid(text).redacted().to_string();
    assert_eq!(show("5511987654321:2@s.whatsapp.net"), "**21:2@s.whatsapp.net");
    assert_eq!(show("3-98765432101@interop"), "**01@interop");
    assert_eq!(show("12@lid"), "**@lid");
    assert_eq!(show("my name@g.us"), "**@g.us");
    assert_eq!(show("status@broadcast"), "status@broadcast");
    assert_eq!(show("s.whatsapp.net"), "s.whatsapp.net");
    let odd = Jid::from_parts("1234", Server::from_wire("a\nb"), 0, 0);
    assert_eq!(odd.redacted().to_string(), "**34@a\\nb");
}

#[test]
fn serde_uses_the_text() {
    let text = "\"5511987654321:3@s.whatsapp.net\"";
    let jid: Jid = serde_json::from_str(text).unwrap();
    assert_eq!(serde_json::to_string(&jid).unwrap(), text);
    assert!(serde_json::from_str::<Jid>("\"a@b@c\"").is_err());
    assert!(serde_json::from_str::<Jid>("7").is_err());
}

fn any_server() -> impl Strategy<Value = Server> {
    let names = [
        "s.whatsapp.net",
        "lid",
        "hosted",
        "hosted.lid",
        "g.us",
        "broadcast",
        "newsletter",
        "bot",
        "call",
        "msgr",
        "interop",
        "c.us",
    ];
    prop_oneof![
        proptest::sample::select(names.to_vec()).prop_map(Server::from_wire),
        "[a-z0-9.-]{1,30}".prop_map(|s| Server::from_wire(&s))
    ]
}

proptest! {
    #[test]
    fn print_then_parse_is_the_identity(
        user in "[^@:.]{1,40}",
        server in any_server(),
        device in 0..=255u16,
        integrator: u16,
    ) {
        let integrator = if server == Server::Interop { integrator } else { 0 };
        let jid = Jid::from_parts(&user, server, device, integrator);
        prop_assert_eq!(jid.to_string().parse::<Jid>(), Ok(jid));
    }

    #[test]
    fn what_parses_prints_to_the_same(text in "[0-9a-z.:@-]{0,24}|[0-9.:-]{1,9}@(s.whatsapp.net|c.us|hosted|lid|interop|bot)") {
        if let Ok(jid) = text.parse::<Jid>() {
            prop_assert_eq!(jid.to_string().parse::<Jid>(), Ok(jid));
        }
    }

    #[test]
    fn no_text_panics(text in ".*") {
        let _ = text.parse::<Jid>();
    }

    #[test]
    fn redaction_shows_two_characters_at_most(user in "[0-9]{5,20}", server in any_server()) {
        let shown = Jid::new(&user, server).redacted().to_string();
        let hidden = &user[..user.len() - 2];
        let start = format!("**{}@", &user[user.len() - 2..]);
        prop_assert!(shown.starts_with(&start));
        prop_assert!(!shown.contains(hidden) || hidden.len() < 4);
    }
}
