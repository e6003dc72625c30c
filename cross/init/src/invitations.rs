//! What a person needs to let machines and people in, and shows on the screen: each is made once. What the server refuses now,
//! since its clock isn't set yet, it may make later: a Pi starts in 1970, and the time comes by network.

use std::time::Duration;

use anyhow::Result;

use crate::settings::Setup;

/// How long a token is good for: time enough to walk to the machines.
const TOKEN_MINUTES: &str = "60";
/// From one refusal to the next try.
const AGAIN: Duration = Duration::from_secs(5);

/// What is still to be made.
#[derive(Debug)]
pub struct Invitations {
    open: Vec<Invitation>,
    next: Duration,
}

#[derive(Debug)]
struct Invitation {
    arguments: Vec<String>,
    /// What stands before what the server made.
    made: String,
    /// What stands before its refusal.
    refused: String,
    /// The refusal that was shown last.
    shown: Option<String>,
}

impl Invitations {
    /// Those that the settings name.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        let tokens = setup.cluster.iter().flat_map(|cluster| {
            setup.tokens.iter().map(move |kind| {
                let kind = kind.word();
                Invitation {
                    arguments: words(&[
                        "token",
                        "create",
                        "--cluster",
                        cluster,
                        "--kind",
                        kind,
                        "--ttl-minutes",
                        TOKEN_MINUTES,
                    ]),
                    made: format!("token for one {kind} of {cluster}"),
                    refused: format!("no token for a {kind} of {cluster}"),
                    shown: None,
                }
            })
        });
        let qdevices = setup.qdevices.iter().map(|cluster| Invitation {
            arguments: words(&["qdevice", "invite", "--ttl-minutes", TOKEN_MINUTES, cluster]),
            made: format!("for one node of {cluster}, as root"),
            refused: format!("no invitation for {cluster}"),
            shown: None,
        });
        Self { open: tokens.chain(qdevices).collect(), next: Duration::ZERO }
    }

    /// Whether some are to be asked for now.
    #[must_use]
    pub fn due(&self, now: Duration) -> bool {
        !self.open.is_empty() && now >= self.next
    }

    /// Asks for those that aren't made yet. A line to show for each that is made, and for each refusal that wasn't shown yet.
    pub fn look(&mut self, now: Duration, mut ask: impl FnMut(&[String]) -> Result<String>) -> Vec<String> {
        let mut lines = Vec::new();
        self.open.retain_mut(|invitation| match ask(&invitation.arguments) {
            Ok(made) => {
                lines.push(format!("{}: {}", invitation.made, made.trim()));
                false
            }
            Err(error) => {
                let refusal = format!("{}: {error:#}", invitation.refused);
                if invitation.shown.as_ref() != Some(&refusal) {
                    lines.push(refusal.clone());
                    invitation.shown = Some(refusal);
                }
                true
            }
        });
        self.next = now + AGAIN;
        lines
    }
}

#[cfg(test)]
mod tests {
    use anyhow::bail;

    use super::*;
    use crate::settings::Settings;

    fn setup() -> Setup {
        let text = "addresses = [\"192.0.2.1:8405\"]\n[setup]\ncluster = \"home\"\ntokens = [\"node\"]\nqdevices = [\"pve\"]\n[qdevice]\n";
        Settings::parse(text).unwrap().setup
    }

    #[test]
    fn what_is_refused_is_asked_for_again_and_what_is_made_is_not() {
        let mut invitations = Invitations::new(&setup());
        assert!(invitations.due(Duration::ZERO));
        let lines = invitations.look(Duration::from_secs(1), |arguments| {
            if arguments[0] == "token" {
                bail!("the clock says it is before 2026")
            }
            Ok("curl ...\n".to_owned())
        });
        assert_eq!(
            lines,
            ["no token for a node of home: the clock says it is before 2026", "for one node of pve, as root: curl ..."]
        );
        assert!(!invitations.due(Duration::from_secs(5)));
        assert!(invitations.due(Duration::from_secs(6)));
        let same = invitations.look(Duration::from_secs(6), |_| bail!("the clock says it is before 2026"));
        assert_eq!(same, [""; 0], "a refusal is shown once");
        let mut asked = Vec::new();
        let lines = invitations.look(Duration::from_secs(11), |arguments| {
            asked.push(arguments.join(" "));
            Ok("TOKEN".to_owned())
        });
        assert_eq!(lines, ["token for one node of home: TOKEN"]);
        assert_eq!(asked, ["token create --cluster home --kind node --ttl-minutes 60"]);
        assert!(!invitations.due(Duration::from_secs(100)), "all are made");
    }
}
