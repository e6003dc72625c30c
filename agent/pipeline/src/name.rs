//! Names of clusters, members and resources: validated once, at the edge, and cheap to clone afterwards.

use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: that of a DNS label, because member names are host names.
pub const NAME_MAX: usize = 63;

/// Why a text is no name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?} is no valid name: {why}; use 1 to 63 of a-z, 0-9, '-', '_' and '.', beginning with a letter or digit"
)]
pub struct NameError {
    /// The refused text, cut to the length of a name.
    pub text: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

fn check(text: &str) -> Result<(), NameError> {
    let refuse = |why| Err(NameError { text: text.chars().take(NAME_MAX).collect(), why });
    if text.is_empty() {
        return refuse("it is empty");
    }
    if text.len() > NAME_MAX {
        return refuse("it is longer than 63 characters");
    }
    if !text.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit()) {
        return refuse("it begins with another character");
    }
    if !text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.')) {
        return refuse("it holds another character");
    }
    Ok(())
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            /// Checks a text and makes a name of it.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                check(text)?;
                Ok(Self(text.into()))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::new(&text)
            }
        }

        impl std::str::FromStr for $name {
            type Err = NameError;
            fn from_str(text: &str) -> Result<Self, NameError> {
                Self::new(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.0.as_ref().to_owned()
            }
        }
    };
}

name! {
    /// The name of a cluster.
    ClusterName
}
name! {
    /// The name of a member: a node or the appliance.
    MemberName
}
name! {
    /// The name of a resource.
    ResourceName
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_short_lower_case_label() {
        for good in ["a", "node1", "pve-01.lan", "0x"] {
            assert!(MemberName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "A", "a b", "ä", ".x", "a/b", &"x".repeat(64)] {
            assert!(MemberName::new(bad).is_err(), "{bad}");
        }
    }
}
