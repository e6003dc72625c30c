//! A file as a tree whose every key and value knows where it stands: the same for TOML and JSON.

use std::borrow::Cow;
use std::ops::Range;

use serde::Deserialize;
use serde_json::value::RawValue;
use toml::de::{DeTable, DeValue};

use super::file::Format;
use super::mistake::Report;

/// A scenario needs four levels; a file that nests deeper is no scenario, and must not exhaust the stack.
const DEPTH_MAX: usize = 16;

#[derive(Clone, Debug)]
pub(super) struct Tree {
    pub(super) at: Range<usize>,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Integer(i64),
    Bool(bool),
    List(Vec<Tree>),
    Table(Vec<(Key, Tree)>),
    /// What no scenario needs, by its name.
    Other(&'static str),
}

#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) at: Range<usize>,
    pub(super) text: String,
}

impl Value {
    /// What it is, for messages.
    pub(super) const fn word(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Integer(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(word) => word,
        }
    }
}

/// Reads a file. `None` when it is not even TOML or JSON, which the report says.
pub(super) fn read(source: &str, format: Format, report: &mut Report) -> Option<Tree> {
    match format {
        Format::Toml => {
            let (table, errors) = DeTable::parse_recoverable(source);
            for error in &errors {
                report.add(&error.span().unwrap_or(0..0), error.message().replace('\n', "; "));
            }
            let at = table.span();
            errors.is_empty().then(|| Tree { at, value: toml_table(table.into_inner()) })
        }
        Format::Json => match serde_json::from_str::<&RawValue>(source) {
            Ok(raw) => Json { source, report }.tree(raw, 0),
            Err(error) => {
                let at = position(source, &error);
                report.add(&(at..at + 1), json_says(&error));
                None
            }
        },
    }
}

fn toml_table(table: DeTable<'_>) -> Value {
    let mut entries: Vec<(Key, Tree)> = table
        .into_iter()
        .map(|(key, value)| {
            let key = Key { at: key.span(), text: key.into_inner().into_owned() };
            (key, Tree { at: value.span(), value: toml_value(value.into_inner()) })
        })
        .collect();
    entries.sort_by_key(|(key, _)| key.at.start);
    Value::Table(entries)
}

fn toml_value(value: DeValue<'_>) -> Value {
    match value {
        DeValue::String(text) => Value::Text(text.into_owned()),
        DeValue::Integer(number) => i64::from_str_radix(number.as_str(), number.radix())
            .map_or(Value::Other("a number that is too large"), Value::Integer),
        DeValue::Float(_) => Value::Other("a number with a fraction"),
        DeValue::Boolean(is) => Value::Bool(is),
        DeValue::Datetime(_) => Value::Other("a date or time"),
        DeValue::Array(list) => Value::List(
            list.into_iter().map(|one| Tree { at: one.span(), value: toml_value(one.into_inner()) }).collect(),
        ),
        DeValue::Table(table) => toml_table(table),
    }
}

/// The place of an error in the text that was parsed.
fn position(text: &str, error: &serde_json::Error) -> usize {
    let line = error.line().saturating_sub(1);
    let begins: usize = text.split_inclusive('\n').take(line).map(str::len).sum();
    begins + error.column().saturating_sub(1)
}

/// The message without the place, which is told anyway.
fn json_says(error: &serde_json::Error) -> String {
    let text = error.to_string();
    text.rsplit_once(" at line ").map_or(text.clone(), |(what, _)| what.to_owned())
}

/// Turns raw JSON values, which point into the source, into trees.
struct Json<'a, 'r> {
    source: &'a str,
    report: &'r mut Report,
}

/// A JSON object as it is written: doubled keys and all.
struct Entries<'a>(Vec<(&'a RawValue, &'a RawValue)>);

impl<'de> Deserialize<'de> for Entries<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl<'de> serde::de::Visitor<'de> for Visitor {
            type Value = Entries<'de>;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(Visitor)
    }
}

impl<'a> Json<'a, '_> {
    fn at(&self, raw: &RawValue) -> Range<usize> {
        let start = raw.get().as_ptr().addr() - self.source.as_ptr().addr();
        start..start + raw.get().len()
    }

    fn parse<T: Deserialize<'a>>(&mut self, raw: &'a RawValue) -> Option<T> {
        serde_json::from_str(raw.get())
            .map_err(|error| {
                let at = self.at(raw).start + position(raw.get(), &error);
                self.report.add(&(at..at + 1), json_says(&error));
            })
            .ok()
    }

    fn tree(&mut self, raw: &'a RawValue, depth: usize) -> Option<Tree> {
        let at = self.at(raw);
        if depth > DEPTH_MAX {
            self.report.add(&at, format!("this is nested more than {DEPTH_MAX} deep: no scenario needs that"));
            return None;
        }
        let value = match raw.get().as_bytes().first() {
            Some(b'{') => self.table(raw, depth)?,
            Some(b'[') => {
                let list: Vec<&RawValue> = self.parse(raw)?;
                Value::List(list.into_iter().map(|one| self.tree(one, depth + 1)).collect::<Option<_>>()?)
            }
            Some(b'"') => Value::Text(self.parse::<Cow<'a, str>>(raw)?.into_owned()),
            Some(b't' | b'f') => Value::Bool(self.parse(raw)?),
            Some(b'n') => Value::Other("null"),
            Some(_) | None => match raw.get().parse() {
                Ok(number) => Value::Integer(number),
                Err(_) if raw.get().contains(['.', 'e', 'E']) => Value::Other("a number with a fraction"),
                Err(_) => Value::Other("a number that is too large"),
            },
        };
        Some(Tree { at, value })
    }

    fn table(&mut self, raw: &'a RawValue, depth: usize) -> Option<Value> {
        let Entries(entries) = self.parse(raw)?;
        let mut table: Vec<(Key, Tree)> = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let at = self.at(key);
            let text = self.parse::<Cow<'a, str>>(key)?.into_owned();
            if table.iter().any(|(other, _)| other.text == text) {
                self.report.add(&at, format!("the key {text:?} is here twice: leave one of them out"));
            }
            table.push((Key { at, text }, self.tree(value, depth + 1)?));
        }
        Some(Value::Table(table))
    }
}
