//! Names of clusters, members and resources: validated once, at the edge, and cheap to clone afterwards.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// Longest name, in bytes: that of a DNS label, because member names are host names.
pub const NAME_MAX: usize = 63;

/// Why a text is no name.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error(
    "{text:?} is no valid name: {why}; use 1 to 63 of a-z, 0-9, '-', '_', '.' and ':' (members and clusters: '-' alone), beginning with a letter or digit"
)]
pub struct NameError {
    /// What was to be named.
    pub what: &'static str,
    /// The refused text, cut to the length of a name.
    pub text: String,
    /// The rule that it breaks.
    pub why: &'static str,
}

/// Clusters and members: one DNS label, because a cluster's name is sent as a TLS server name and a member's is a host's.
fn label(text: &str) -> Result<(), &'static str> {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    common(text, |c| edge(c) || c == '-')?;
    if !text.starts_with(edge) || !text.ends_with(edge) {
        return Err("it must begin and end with a lower-case letter or a digit");
    }
    Ok(())
}

/// Resources and rules: also '_', '.' and ':', as in the names of units and in `vm:101`.
fn free(text: &str) -> Result<(), &'static str> {
    let edge = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    common(text, |c| edge(c) || matches!(c, '-' | '_' | '.' | ':'))?;
    if !text.starts_with(edge) {
        return Err("it must begin with a lower-case letter or a digit");
    }
    Ok(())
}

fn common(text: &str, allowed: impl Fn(char) -> bool) -> Result<(), &'static str> {
    if text.is_empty() {
        return Err("it is empty");
    }
    if text.len() > NAME_MAX {
        return Err("it is longer than 63 characters");
    }
    if !text.chars().all(allowed) {
        return Err("it holds something else than lower-case letters, digits and '-'");
    }
    Ok(())
}

/// A name as it is compared: names are short, and looked up more often than anything else.
///
/// No name holds a zero byte, so the first eight bytes, filled up with zeros, decide almost every comparison, in the order
/// of the texts.
#[derive(Clone)]
struct Text {
    head: u64,
    whole: Arc<str>,
}

impl Text {
    fn new(text: &str) -> Self {
        let mut head = [0; 8];
        head.iter_mut().zip(text.bytes()).for_each(|(to, byte)| *to = byte);
        Self { head: u64::from_be_bytes(head), whole: text.into() }
    }

    /// True where the head is all of it.
    #[inline]
    const fn is_head(&self) -> bool {
        self.head & 0xff == 0
    }
}

impl PartialEq for Text {
    #[inline]
    fn eq(&self, other: &Self) -> bool {
        self.head == other.head
            && (self.is_head() || Arc::ptr_eq(&self.whole, &other.whole) || self.whole == other.whole)
    }
}

impl Eq for Text {}

impl PartialOrd for Text {
    #[inline]
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text {
    #[inline]
    fn cmp(&self, other: &Self) -> Ordering {
        match self.head.cmp(&other.head) {
            Ordering::Equal if self.is_head() || Arc::ptr_eq(&self.whole, &other.whole) => Ordering::Equal,
            Ordering::Equal => self.whole.cmp(&other.whole),
            decided @ (Ordering::Less | Ordering::Greater) => decided,
        }
    }
}

impl Hash for Text {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.whole.hash(state);
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal, $check:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Text);

        impl $name {
            /// Checks a text and makes a name of it.
            ///
            /// # Errors
            /// [`NameError`] says which rule the text breaks.
            pub fn new(text: &str) -> Result<Self, NameError> {
                $check(text).map_err(|why| NameError {
                    what: $what,
                    text: text.chars().filter(|c| !c.is_control()).take(NAME_MAX).collect(),
                    why,
                })?;
                Ok(Self(Text::new(text)))
            }

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0.whole
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.as_str())
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

        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                self.as_str()
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> Self {
                name.as_str().to_owned()
            }
        }
    };
}

name! {
    /// The name of a cluster.
    ClusterName, "cluster", label
}
name! {
    /// The name of a member: a node or the appliance.
    MemberName, "member", label
}
name! {
    /// The name of a resource.
    ResourceName, "resource", free
}
name! {
    /// The name of a placement rule.
    RuleName, "rule", free
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_and_clusters_are_named_by_dns_labels() {
        for good in ["a", "node1", "pve-01", "0x"] {
            assert!(MemberName::new(good).is_ok(), "{good}");
            assert!(ClusterName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a b", "ä", ".x", "a/b", "a.b", "a_b", &"x".repeat(64)] {
            assert!(MemberName::new(bad).is_err(), "{bad}");
            assert!(ClusterName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn resources_and_rules_may_have_dots_and_underscores() {
        for good in ["vm-100", "nginx.service", "web_1"] {
            assert!(ResourceName::new(good).is_ok(), "{good}");
            assert!(RuleName::new(good).is_ok(), "{good}");
        }
        for bad in ["", "-a", ".x", "../x", "a/b", "A"] {
            assert!(ResourceName::new(bad).is_err(), "{bad}");
            assert!(RuleName::new(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_ordered_like_their_texts() {
        let texts = ["a", "a-1", "abcdefg", "abcdefgh", "abcdefgha", "abcdefghb", "abcdefgi", "b", "vm:101", "vm:1010"];
        for one in texts {
            for other in texts {
                let names = [one, other].map(|text| ResourceName::new(text).unwrap());
                assert_eq!(names[0].cmp(&names[1]), one.cmp(other), "{one} {other}");
                assert_eq!(names[0] == names[1], one == other, "{one} {other}");
            }
        }
    }
}
