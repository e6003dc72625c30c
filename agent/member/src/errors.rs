//! Errors as text.

/// An error with its causes, `what: why: why`. What an error says of its cause itself isn't said again.
#[must_use]
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{says}")]
    struct Fault {
        says: &'static str,
        #[source]
        cause: Option<Box<Fault>>,
    }

    #[test]
    fn causes_follow_unless_they_were_said() {
        let fault = |says, cause| Fault { says, cause };
        let lowest = || Some(Box::new(fault("no route", None)));
        assert_eq!(
            chain(&fault("no answer", Some(Box::new(fault("asking pi", lowest()))))),
            "no answer: asking pi: no route"
        );
        assert_eq!(chain(&fault("no answer: no route", lowest())), "no answer: no route");
    }
}
