//! What the agent takes and can do, as ClusterLabs' schema wants it.

use std::fmt::Write as _;

use super::options::{ANSWER_WITHIN_S, Action, IDENTITY, PORT};

/// A parameter: its name, whether it has to be given, as it stands on the command line, its type, default and description.
struct Parameter {
    name: &'static str,
    required: bool,
    mixed: &'static str,
    kind: &'static str,
    default: Option<String>,
    obsoletes: Option<&'static str>,
    deprecated: bool,
    about: &'static str,
}

impl Parameter {
    const fn new(name: &'static str, mixed: &'static str, kind: &'static str, about: &'static str) -> Self {
        Self { name, required: false, mixed, kind, default: None, obsoletes: None, deprecated: false, about }
    }
}

fn parameters() -> Vec<Parameter> {
    vec![
        Parameter {
            required: true,
            ..Parameter::new("action", "-o, --action=[action]", "string", "What is to be done")
        },
        Parameter {
            default: Some(ANSWER_WITHIN_S.to_string()),
            ..Parameter::new(
                "answer_timeout",
                "--answer-timeout=[seconds]",
                "second",
                "How long to wait for the result of a fence; it goes on after that",
            )
        },
        Parameter {
            default: Some(IDENTITY.into()),
            ..Parameter::new("identity", "--identity=[folder]", "string", "The folder with this node's identity")
        },
        Parameter::new("ip", "-a, --ip=[host]", "string", "The appliance; where the node enrolled, if it is left out"),
        Parameter {
            default: Some(PORT.to_string()),
            ..Parameter::new("ipport", "-u, --ipport=[port]", "integer", "The appliance's port")
        },
        Parameter {
            obsoletes: Some("port"),
            ..Parameter::new(
                "plug",
                "-n, --plug=[node]",
                "string",
                "The node that is meant, by its name in the appliance's configuration",
            )
        },
        Parameter {
            deprecated: true,
            ..Parameter::new(
                "port",
                "-n, --plug=[node]",
                "string",
                "The node that is meant, by its name in the appliance's configuration",
            )
        },
        Parameter::new("verbose", "-v, --verbose", "boolean", "Without effect: what there is to say is always said"),
    ]
}

const ABOUT: &str = "fence_tiebreaker asks a Tiebreaker appliance to fence nodes of a Corosync cluster. The appliance grants it to the \
half of the cluster that has the vote of its QDevice service and refuses the other one, so that no delays are needed; it holds the \
passwords of the power devices, and says that a node is off only after it has seen it off twice. A fence goes on when the agent is \
killed, and whoever asks again gets its result.";

/// The metadata.
pub fn xml() -> String {
    let mut out = String::from(
        "<?xml version=\"1.0\" ?>\n<resource-agent name=\"fence_tiebreaker\" shortdesc=\"Fence agent for Tiebreaker appliances\">\n",
    );
    let _ = writeln!(out, "<longdesc>{}</longdesc>\n<vendor-url></vendor-url>\n<parameters>", escaped(ABOUT));
    for parameter in parameters() {
        let Parameter { name, required, mixed, kind, default, obsoletes, deprecated, about } = parameter;
        let _ = write!(out, "\t<parameter name=\"{name}\" unique=\"0\" required=\"{}\"", u8::from(required));
        if deprecated {
            out.push_str(" deprecated=\"1\"");
        }
        if let Some(obsoletes) = obsoletes {
            let _ = write!(out, " obsoletes=\"{obsoletes}\"");
        }
        let _ = write!(out, ">\n\t\t<getopt mixed=\"{mixed}\" />\n\t\t<content type=\"{kind}\"");
        if let Some(default) = default {
            let _ = write!(out, " default=\"{}\"", escaped(&default));
        }
        let _ = writeln!(out, " />\n\t\t<shortdesc lang=\"en\">{}</shortdesc>\n\t</parameter>", escaped(about));
    }
    out.push_str("</parameters>\n<actions>\n");
    for (name, action) in Action::ALL {
        // No node is to be given power by itself when it joins.
        let automatic = if action == Action::On { " automatic=\"0\"" } else { "" };
        let _ = writeln!(out, "\t<action name=\"{name}\"{automatic} />");
    }
    out.push_str("</actions>\n</resource-agent>\n");
    out
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
