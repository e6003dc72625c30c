//! JSON of devices, whose errors repeat nothing of what they said.

use serde::de::{DeserializeOwned, Error as _};
use serde_json::{Error, error::Category};

/// Reads one JSON object. A name given twice is an error, and so is anything behind the object.
///
/// # Errors
/// It is no such object. The error tells the place alone: what a device says may hold what it was told.
pub(crate) fn object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Error> {
    // serde takes a list of values for a structure, too.
    if body.trim_ascii_start().first() != Some(&b'{') {
        return Err(Error::custom("it is no JSON object"));
    }
    serde_json::from_slice(body).map_err(without_values)
}

/// serde repeats what it didn't expect, so only the place is kept.
fn without_values(error: Error) -> Error {
    let (line, column) = (error.line(), error.column());
    let class = match error.classify() {
        Category::Data => "something of the wrong kind",
        Category::Eof => "the end, too early,",
        Category::Io | Category::Syntax => "no JSON",
    };
    Error::custom(format!("{class} at line {line}, column {column}"))
}
