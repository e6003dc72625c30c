//! `If-Match` as various BMCs want it.

/// What to put into `If-Match` for an ETag, the proper way first: as it came; without the mark of weakness and doubled
/// quotes; without any quotes.
pub(super) fn forms(etag: &str) -> Vec<String> {
    let bare = etag.strip_prefix("W/").unwrap_or(etag).trim_matches('"');
    let mut forms = vec![etag.to_owned()];
    for form in [format!("\"{bare}\""), bare.to_owned()] {
        if !forms.contains(&form) {
            forms.push(form);
        }
    }
    forms
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_and_doubled_etags_are_straightened() {
        assert_eq!(forms("\"a1\""), ["\"a1\"", "a1"]);
        assert_eq!(forms("W/\"a1\""), ["W/\"a1\"", "\"a1\"", "a1"]);
        assert_eq!(forms("\"\"a1\"\""), ["\"\"a1\"\"", "\"a1\"", "a1"]);
        assert_eq!(forms("a1"), ["a1", "\"a1\""]);
    }
}
