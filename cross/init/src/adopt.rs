//! From the file that a person wrote to the settings that hold: what has a mistake changes nothing.

use std::fs;
use std::io;
use std::path::Path;

use crate::settings::{Mistake, Settings};

/// The file's name, on the card's first partition.
pub const FILE: &str = "tiebreaker.toml";

/// Settings are small; more is another file by the same name.
const LONGEST: u64 = 256 * 1024;

/// What came of looking for settings.
#[derive(Debug)]
pub struct Adopted {
    /// Those that hold.
    pub settings: Settings,
    /// Whether somebody wrote them. What holds for want of others replaces nothing that is there.
    pub written: bool,
    /// The text to keep as the last one that was in order, if it is new.
    pub keep: Option<String>,
    /// Why the file that was written doesn't hold.
    pub trouble: Option<Mistake>,
}

/// Reads the person's file and falls back to the last good one. `check` is the server's word on its part, `Err` a
/// mistake.
pub fn adopt(written: &Path, last_good: &Path, check: impl Fn(&str) -> Result<(), Mistake>) -> Adopted {
    let kept = match read(last_good) {
        Ok(Some(text)) => Settings::parse(&text).ok().map(|settings| (text, settings)),
        Ok(None) | Err(_) => None,
    };
    let fall_back = |trouble: Mistake| Adopted {
        settings: kept.as_ref().map_or_else(Settings::without_a_file, |(_, settings)| settings.clone()),
        written: kept.is_some(),
        keep: None,
        trouble: Some(trouble),
    };
    let without_place = |what: String| Mistake { place: None, what };
    let text = match read(written) {
        Ok(Some(text)) => text,
        Ok(None) => return fall_back(without_place("it isn't there, on the card's first partition".into())),
        Err(error) => return fall_back(without_place(format!("it can't be read: {error}"))),
    };
    let settings = match Settings::parse(&text) {
        Ok(settings) => settings,
        Err(mistake) => return fall_back(mistake),
    };
    if kept.as_ref().is_some_and(|(old, _)| *old == text) {
        return Adopted { settings, written: true, keep: None, trouble: None };
    }
    match check(&settings.server) {
        Ok(()) => Adopted { settings, written: true, keep: Some(text), trouble: None },
        Err(mistake) => fall_back(mistake),
    }
}

/// What is wrong in the file, as compilers write it.
pub fn in_file(mistake: &Mistake) -> String {
    match mistake.place {
        Some((line, column)) => format!("{FILE}:{line}:{column}: {}", mistake.what),
        None => format!("{FILE}: {}", mistake.what),
    }
}

/// The text of a file; `None` where there is none.
fn read(path: &Path) -> io::Result<Option<String>> {
    match fs::metadata(path) {
        Ok(about) if about.len() > LONGEST => {
            Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than settings are"))
        }
        // Editors of some systems begin a text with a mark of its encoding.
        Ok(_) => fs::read_to_string(path).map(|text| Some(text.trim_start_matches('\u{feff}').to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn play(written: Option<&str>, good: Option<&str>, check: Result<(), Mistake>) -> Adopted {
        let folder = tempfile::tempdir().unwrap();
        let (new, old) = (folder.path().join("new"), folder.path().join("old"));
        for (path, text) in [(&new, written), (&old, good)] {
            if let Some(text) = text {
                fs::write(path, text).unwrap();
            }
        }
        adopt(&new, &old, |_| check.clone())
    }

    fn at_line_1(what: &str) -> Mistake {
        Mistake { place: Some((1, 1)), what: what.into() }
    }

    const GOOD: &str = "name = \"good\"\n";

    #[test]
    fn a_file_in_order_holds_and_is_kept() {
        let adopted = play(Some("\u{feff}name = \"new\"\n"), Some(GOOD), Ok(()));
        assert_eq!((adopted.settings.name.as_str(), adopted.trouble), ("new", None));
        assert_eq!(adopted.keep.as_deref(), Some("name = \"new\"\n"));
    }

    #[test]
    fn the_same_file_is_neither_checked_nor_kept_again() {
        let adopted = play(Some(GOOD), Some(GOOD), Err(at_line_1("must not be asked")));
        assert_eq!((adopted.settings.name.as_str(), adopted.keep, adopted.trouble), ("good", None, None));
    }

    #[test]
    fn a_mistake_changes_nothing_and_has_its_place() {
        let adopted = play(Some("name = \"new\"\n[network]\nx = 1\n"), Some(GOOD), Ok(()));
        assert_eq!((adopted.settings.name.as_str(), adopted.keep), ("good", None));
        let trouble = in_file(&adopted.trouble.unwrap());
        assert!(trouble.starts_with("tiebreaker.toml:3:1: "), "{trouble}");
        let refused = play(Some("name = \"new\"\n"), Some(GOOD), Err(at_line_1("no")));
        assert_eq!((refused.settings.name.as_str(), refused.keep), ("good", None));
        assert_eq!(in_file(&refused.trouble.unwrap()), "tiebreaker.toml:1:1: no");
    }

    #[test]
    fn without_any_file_the_machine_comes_up_by_dhcp() {
        for written in [None, Some("name =")] {
            let adopted = play(written, None, Ok(()));
            assert_eq!(adopted.settings, Settings::without_a_file());
            assert!(adopted.trouble.is_some() && !adopted.written);
        }
        assert!(in_file(&play(None, None, Ok(())).trouble.unwrap()).contains("isn't there"));
        let spoiled = play(None, Some("name ="), Ok(()));
        assert_eq!((spoiled.settings, spoiled.written), (Settings::without_a_file(), false));
        assert!(play(Some("name ="), Some(GOOD), Ok(())).written);
    }
}
