//! Mistakes in a scenario file: where, what, and what was probably meant.

use std::fmt;
use std::ops::Range;

/// Words further off than this are no typing mistakes of each other.
const NEAR: f64 = 0.7;

/// One mistake.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistake {
    /// The line, from 1.
    pub line: usize,
    /// The column in characters, from 1.
    pub column: usize,
    /// What is wrong, and the way out.
    pub what: String,
    /// The line's text.
    text: String,
    /// How many characters of it are meant.
    width: usize,
}

/// All mistakes of a file, in its order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mistakes {
    file: String,
    mistakes: Vec<Mistake>,
}

impl Mistakes {
    /// The mistakes.
    #[must_use]
    pub fn all(&self) -> &[Mistake] {
        &self.mistakes
    }
}

impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (nth, mistake) in self.mistakes.iter().enumerate() {
            if nth > 0 {
                f.write_str("\n")?;
            }
            let Mistake { line, column, what, text, width } = mistake;
            let margin = line.to_string().len();
            writeln!(f, "{}:{line}:{column}: {what}", self.file)?;
            writeln!(f, " {line} | {text}")?;
            write!(f, " {:margin$} | {:indent$}{}", "", "", "^".repeat(*width), indent = column - 1)?;
        }
        Ok(())
    }
}

impl std::error::Error for Mistakes {}

/// Collects mistakes while a file is read.
#[derive(Debug, Default)]
pub(super) struct Report {
    found: Vec<(Range<usize>, String)>,
}

impl Report {
    pub(super) fn add(&mut self, at: &Range<usize>, what: impl Into<String>) {
        self.found.push((at.clone(), what.into()));
    }

    /// Nothing if there was no mistake.
    pub(super) fn into_mistakes(mut self, file: &str, source: &str) -> Result<(), Mistakes> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|(at, _)| at.start);
        let mistakes = self.found.into_iter().map(|(at, what)| locate(source, &at, what)).collect();
        Err(Mistakes { file: file.to_owned(), mistakes })
    }
}

fn locate(source: &str, at: &Range<usize>, what: String) -> Mistake {
    let start = source.floor_char_boundary(at.start.min(source.len()));
    let before = &source[..start];
    let begins = before.rfind('\n').map_or(0, |at| at + 1);
    let text = source[begins..].split('\n').next().unwrap_or_default().trim_end_matches('\r');
    let column = source[begins..start].chars().count() + 1;
    let end = source.floor_char_boundary(at.end.clamp(start, begins + text.len().max(start - begins)));
    let width = source[start..end].chars().count().max(1);
    // A tab is as wide as the caret's line needs it to be.
    let text = text.replace('\t', " ");
    Mistake { line: before.matches('\n').count() + 1, column, what, text, width }
}

/// What was meant by a word that is none of the known ones: ", did you mean …" or, where nothing is near, all of them.
pub(super) fn meant<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    let known: Vec<&str> = known.into_iter().collect();
    let mut begin = known.iter().filter(|one| word.len() > 1 && one.starts_with(word));
    if let (Some(only), None) = (begin.next(), begin.next()) {
        return format!("did you mean {only:?}?");
    }
    let near = known
        .iter()
        .map(|one| (strsim::normalized_damerau_levenshtein(&word.to_lowercase(), one), *one))
        .max_by(|(a, _), (b, _)| a.total_cmp(b))
        .filter(|(nearness, _)| *nearness >= NEAR);
    match (near, &known[..]) {
        (Some((_, one)), _) => format!("did you mean {one:?}?"),
        (None, []) => "there is none".to_owned(),
        (None, [only]) => format!("use {only:?}"),
        (None, [most @ .., last]) => {
            let most: Vec<String> = most.iter().map(|one| format!("{one:?}")).collect();
            format!("use {} or {last:?}", most.join(", "))
        }
    }
}
