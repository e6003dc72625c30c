//! From a file to a scenario.

use std::path::{Path, PathBuf};

use super::Scenario;
use super::mistake::{Mistakes, Report};
use super::{check, shape, tree};

/// A scenario file at most: far more than the largest cluster needs.
const FILE_MAX: u64 = 4 << 20;

/// How a scenario is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// `.toml`.
    Toml,
    /// `.json`.
    Json,
}

/// Why there is no scenario.
#[derive(Debug, thiserror::Error)]
pub enum ScenarioError {
    /// The file can't be read.
    #[error("reading {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Its name doesn't say how it is written.
    #[error("{}: a scenario's name ends in .toml or .json, by which it is read", path.display())]
    Ending {
        /// Which.
        path: PathBuf,
    },
    /// Too large.
    #[error("{}: {size} bytes are no scenario: {FILE_MAX} are the most", path.display())]
    Size {
        /// Which.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// Not UTF-8.
    #[error("{}:{line}:{column}: this is not UTF-8: save the file as UTF-8", path.display())]
    Encoding {
        /// Which.
        path: PathBuf,
        /// The line of the first bad byte.
        line: usize,
        /// Its column, in characters.
        column: usize,
    },
    /// What it says is wrong.
    #[error(transparent)]
    Mistakes(#[from] Mistakes),
}

impl Format {
    /// The format that a file's ending names.
    #[must_use]
    pub fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "toml" => Some(Self::Toml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

impl Scenario {
    /// Reads a file.
    ///
    /// # Errors
    /// Names the file, every mistake in it with line and column, and what was probably meant.
    pub fn load(path: &Path) -> Result<Self, ScenarioError> {
        let format = Format::of(path).ok_or_else(|| ScenarioError::Ending { path: path.into() })?;
        let read = |source| ScenarioError::Read { path: path.into(), source };
        let size = std::fs::metadata(path).map_err(read)?.len();
        if size > FILE_MAX {
            return Err(ScenarioError::Size { path: path.into(), size });
        }
        let text = String::from_utf8(std::fs::read(path).map_err(read)?).map_err(|error| {
            let good = error.utf8_error().valid_up_to();
            let good = String::from_utf8_lossy(&error.as_bytes()[..good]).into_owned();
            let line = good.matches('\n').count() + 1;
            let column = good.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
            ScenarioError::Encoding { path: path.into(), line, column }
        })?;
        Ok(Self::parse(&text, format, &path.display().to_string())?)
    }

    /// Reads a text; `file` is what mistakes call it.
    ///
    /// # Errors
    /// All mistakes of the text's form, or where that is right, all mistakes of its sense.
    pub fn parse(text: &str, format: Format, file: &str) -> Result<Self, Mistakes> {
        let mut report = Report::default();
        let shape = tree::read(text, format, &mut report).map(|tree| shape::shape(text, &tree, &mut report));
        report.into_mistakes(file, text)?;
        let shape = shape.expect("what can't be read is reported");
        let mut report = Report::default();
        check::check(&shape, &mut report);
        report.into_mistakes(file, text)?;
        Ok(shape.into_scenario())
    }
}
