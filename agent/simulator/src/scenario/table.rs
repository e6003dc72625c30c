//! Takes values out of the tree, and reports what isn't as it should be.

use std::fmt::Display;
use std::ops::{Range, RangeInclusive};

use super::mistake::{Report, meant};
use super::tree::{Key, Tree, Value};

/// A table of the file, whose keys are all known.
pub(super) struct Table<'a> {
    pub(super) at: &'a Range<usize>,
    what: &'static str,
    entries: &'a [(Key, Tree)],
}

impl<'a> Table<'a> {
    /// Reports what is no table, and keys that aren't among `keys`.
    pub(super) fn open(tree: &'a Tree, what: &'static str, keys: &[&str], report: &mut Report) -> Option<Self> {
        let Value::Table(entries) = &tree.value else {
            report.add(&tree.at, format!("this is {}, and {what} is a table of keys", tree.value.word()));
            return None;
        };
        for (key, _) in entries {
            if !keys.contains(&key.text.as_str()) {
                let meant = meant(&key.text, keys.iter().copied());
                report.add(&key.at, format!("{what} has no key {:?}: {meant}", key.text));
            }
        }
        Some(Self { at: &tree.at, what, entries })
    }

    pub(super) fn get(&self, key: &str) -> Option<&'a Tree> {
        self.entries.iter().find(|(entry, _)| entry.text == key).map(|(_, value)| value)
    }

    /// A value, or `default` where there is none or a wrong one.
    pub(super) fn read<T>(&self, key: &str, default: T, report: &mut Report, read: impl Read<T>) -> T {
        self.optional(key, report, read).unwrap_or(default)
    }

    /// A value, if there is one.
    pub(super) fn optional<T>(&self, key: &str, report: &mut Report, read: impl Read<T>) -> Option<T> {
        let value = self.get(key)?;
        read(value).map_err(|why| report.add(&value.at, format!("{key}: {why}"))).ok()
    }

    /// A value that must be there, and where it stands.
    pub(super) fn required<T>(
        &self,
        key: &str,
        report: &mut Report,
        read: impl Read<T>,
    ) -> Option<(&'a Range<usize>, T)> {
        match self.get(key) {
            Some(value) => self.optional(key, report, read).map(|read| (&value.at, read)),
            None => {
                report.add(self.at, format!("{} needs the key {key:?}", self.what));
                None
            }
        }
    }

    /// The elements of a list; none where the key is missing.
    pub(super) fn list(&self, key: &str, report: &mut Report) -> &'a [Tree] {
        match self.get(key) {
            None => &[],
            Some(Tree { value: Value::List(list), .. }) => list,
            Some(other) => {
                report.add(&other.at, format!("{key}: this is {}, and should be a list", other.value.word()));
                &[]
            }
        }
    }
}

/// Reads one value, or says what is wrong with it.
pub(super) trait Read<T>: FnOnce(&Tree) -> Result<T, String> {}

impl<T, F: FnOnce(&Tree) -> Result<T, String>> Read<T> for F {}

fn not(tree: &Tree, wanted: impl Display) -> String {
    format!("this is {}, and should be {wanted}", tree.value.word())
}

pub(super) fn truth(tree: &Tree) -> Result<bool, String> {
    match &tree.value {
        Value::Bool(is) => Ok(*is),
        Value::Text(_) | Value::Integer(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => {
            Err(not(tree, "true or false"))
        }
    }
}

/// A whole number in bounds.
pub(super) fn number(bounds: RangeInclusive<u32>) -> impl Read<u32> {
    move |tree| {
        let wanted = format!("a whole number from {} to {}", bounds.start(), bounds.end());
        match &tree.value {
            Value::Integer(number) => u32::try_from(*number)
                .ok()
                .filter(|number| bounds.contains(number))
                .ok_or_else(|| format!("{number} is out of range: use {wanted}")),
            Value::Text(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => {
                Err(not(tree, wanted))
            }
        }
    }
}

/// A text, read by `read`.
pub(super) fn text<T>(wanted: &'static str, read: impl FnOnce(&str) -> Result<T, String>) -> impl Read<T> {
    move |tree| match &tree.value {
        Value::Text(text) => read(text),
        Value::Integer(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => {
            Err(not(tree, wanted))
        }
    }
}

/// One of some words.
pub(super) fn word<T: Copy>(words: &[(&'static str, T)]) -> impl Read<T> {
    move |tree| {
        let known = || words.iter().map(|(word, _)| *word);
        match &tree.value {
            Value::Text(text) => one_of(text, words),
            Value::Integer(_) | Value::Bool(_) | Value::List(_) | Value::Table(_) | Value::Other(_) => {
                Err(format!("{}; {}", not(tree, "a word"), meant("", known())))
            }
        }
    }
}

/// The meaning of a word.
pub(super) fn one_of<T: Copy>(text: &str, words: &[(&'static str, T)]) -> Result<T, String> {
    words
        .iter()
        .find(|(word, _)| *word == text)
        .map(|(_, means)| *means)
        .ok_or_else(|| format!("{text:?} is not known here: {}", meant(text, words.iter().map(|(word, _)| *word))))
}
