//! The contract: options, exit codes, metadata.

use super::*;

fn options(text: &str) -> Result<Options, Mistake> {
    Args::from_input(text).check()
}

fn code(text: &str, answer: FenceAnswer) -> Result<String, String> {
    tell(&options(text).unwrap(), answer).map(|code| format!("{code:?}"))
}

fn exit(code: u8) -> Result<String, String> {
    Ok(format!("{:?}", ExitCode::from(code)))
}

#[test]
fn what_pacemaker_sends_is_understood() {
    let sent =
        "# a comment\nnodename=home\nplug=pve2\nip=pi.lan\nstrange=thing\naction=off\nwithout\nanswer_timeout=20s\n";
    let options = options(sent).unwrap();
    assert_eq!((options.action, options.plug.as_deref()), (Action::Off, Some("pve2")));
    assert_eq!(options.address.unwrap().to_string(), "pi.lan:8405");
    assert_eq!(options.answer_within.as_secs(), 20);
}

#[test]
fn the_last_of_a_name_counts_and_a_plug_goes_before_a_name() {
    let plug = |text: &str| options(&format!("action=off\naction=status\n{text}")).unwrap().plug;
    assert_eq!(options("action=off\naction=status\n").unwrap().action, Action::Status);
    assert_eq!(plug("plug=a\nplug=b\n"), Some("b".into()));
    assert_eq!(plug("plug=a\nport=b\nnodename=c"), Some("a".into()));
    assert_eq!(plug("port=b\nnodename=c"), Some("b".into()));
    assert_eq!(plug("nodename=c"), Some("c".into()));
    assert_eq!(plug("plug=\n"), None, "an empty one is none");
}

#[test]
fn mistakes_are_named_and_nothing_is_guessed() {
    assert_eq!(options(""), Err(Mistake::NoAction));
    assert_eq!(options("action=destroy"), Err(Mistake::Action("destroy".into())));
    assert!(matches!(options("action=off\nanswer_timeout=0"), Err(Mistake::Timeout(_))));
    assert!(matches!(options("action=off\nanswer_timeout=601"), Err(Mistake::Timeout(_))));
    assert!(matches!(options("action=off\nip=pi\nipport=many"), Err(Mistake::Address { .. })));
    let address = |text: &str| options(&format!("action=list\n{text}")).unwrap().address.unwrap().to_string();
    assert_eq!(address("ip=192.0.2.1:9000"), "192.0.2.1:9000");
    assert_eq!(address("ip=2001:db8::1"), "[2001:db8::1]:8405");
    assert_eq!(address("ipaddr=pi\nipport=9000"), "pi:9000");
}

#[test]
fn options_of_people_are_the_same() {
    let parsed = |line: &str| Args::try_parse_from(line.split_whitespace()).unwrap();
    let options = parsed("fence_tiebreaker -o status -n pve2 -a pi.lan -u 9000 --identity /x").check().unwrap();
    assert_eq!((options.action, options.plug.as_deref()), (Action::Status, Some("pve2")));
    assert_eq!(options.address.unwrap().to_string(), "pi.lan:9000");
    assert!(parsed("fence_tiebreaker").is_empty());
    assert!(Args::try_parse_from(["fence_tiebreaker", "--join", "pi"]).is_err(), "without a token");
    let join = parsed("fence_tiebreaker --join pi --token t --name pve1").join().unwrap().unwrap();
    assert_eq!((join.address.to_string().as_str(), join.name.as_deref()), ("pi:8405", Some("pve1")));
}

#[test]
fn only_a_status_that_says_off_ends_with_two() {
    let nodes = || FenceAnswer::Nodes { nodes: Vec::new() };
    let done = || FenceAnswer::Done { how: "bmc-off".into() };
    assert_eq!(code("action=status\nplug=a", FenceAnswer::State { on: true }), exit(0));
    assert_eq!(code("action=status\nplug=a", FenceAnswer::State { on: false }), exit(2));
    assert_eq!(code("action=off\nplug=a", done()), exit(0));
    assert_eq!(code("action=monitor", done()), exit(0));
    assert_eq!(code("action=list", nodes()), exit(0));
    for text in ["action=status\nplug=a", "action=off\nplug=a", "action=monitor", "action=list", "action=list-status"] {
        for answer in [
            FenceAnswer::Refused { why: "no".into() },
            FenceAnswer::Failed { why: "no".into() },
            FenceAnswer::Working { what: "no".into() },
            FenceAnswer::Certificate { der: Vec::new() },
        ] {
            assert!(code(text, answer).is_err(), "{text}");
        }
    }
    // What belongs to another question is no success.
    assert!(code("action=off\nplug=a", FenceAnswer::State { on: false }).is_err());
    assert!(code("action=off\nplug=a", nodes()).is_err());
    assert!(code("action=status\nplug=a", done()).is_err());
    assert!(code("action=monitor", FenceAnswer::State { on: true }).is_err());
}

#[test]
fn a_failure_says_what_of_whom_and_why() {
    let why = code("action=off\nplug=pve2", FenceAnswer::Refused { why: "pve1 has no vote".into() }).unwrap_err();
    assert_eq!(why, "off of pve2: the appliance refuses: pve1 has no vote");
    let why =
        code("action=off\nplug=pve2\nanswer_timeout=9", FenceAnswer::Working { what: "slow".into() }).unwrap_err();
    assert!(why.contains("not certain after 9 s (slow)") && why.contains("ask again"), "{why}");
}

#[test]
fn a_state_that_is_not_known_is_listed_as_such() {
    let node = |on| FenceNode { name: "a".into(), id: 1, on, fault: None };
    assert_eq!([Some(true), Some(false), None].map(|on| line_of(&node(on))), ["a,,ON", "a,,OFF", "a,,UNKNOWN"]);
}

#[test]
fn wrong_usage_never_ends_as_off() {
    let code = main(["fence_tiebreaker", "--nonsense"].map(OsString::from).to_vec());
    assert_eq!(format!("{code:?}"), format!("{:?}", ExitCode::FAILURE));
}

#[test]
fn the_metadata_names_every_action_and_each_option_of_standard_input() {
    let xml = metadata::xml();
    for (name, _) in Action::ALL {
        assert!(xml.contains(&format!("<action name=\"{name}\"")), "{name}");
    }
    for name in ["action", "plug", "port", "ip", "ipport", "identity", "answer_timeout"] {
        assert!(xml.contains(&format!("<parameter name=\"{name}\"")), "{name}");
    }
}
