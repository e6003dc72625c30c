//! The table of `docs/safety.md`: every row is there, and what it names exists.

use std::collections::BTreeSet;
use std::path::Path;

use tiebreaker_sim::known;

const TABLE: &str = include_str!("../../../docs/safety.md");
/// The rows of the list of attacks; two were never given out.
const ROWS: std::ops::RangeInclusive<u32> = 1..=66;
const NEVER_GIVEN_OUT: [u32; 2] = [54, 55];

struct Row {
    number: u32,
    proofs: Vec<&'static str>,
    missing: Option<&'static str>,
}

fn rows() -> Vec<Row> {
    let lines = TABLE.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| row "));
    lines
        .map(|line| {
            let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
            let [number, rule, proofs, missing] = cells[..] else { panic!("{line} has not four cells") };
            assert!(!rule.is_empty(), "{line}");
            let proofs = proofs.split("<br>").filter(|proof| *proof != "-").collect();
            let missing = Some(missing).filter(|text| *text != "-");
            Row { number: number.parse().expect("a row begins with its number"), proofs, missing }
        })
        .collect()
}

fn read(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(file);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// Whether a file has a test of this name: a function below an attribute of a test, or a name in the list of a macro
/// that makes one.
fn has_test(text: &str, name: &str) -> bool {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let heads = [format!("fn {name}()"), format!("async fn {name}()")];
    let written = lines.iter().enumerate().any(|(at, line)| {
        let attributes = || lines[..at].iter().rev().take_while(|line| line.starts_with("#["));
        heads.iter().any(|head| line.starts_with(head))
            && attributes().any(|line| line.starts_with("#[test]") || line.starts_with("#[tokio::test"))
    });
    let listed = || text.split_once("\nproofs! {").and_then(|(_, rest)| rest.split_once('}')).map(|(list, _)| list);
    written || listed().is_some_and(|list| list.split(',').any(|listed| listed.trim() == name))
}

#[test]
fn every_row_is_there_once_in_order_and_is_proven_or_says_what_is_missing() {
    let expected: Vec<u32> = ROWS.filter(|row| !NEVER_GIVEN_OUT.contains(row)).collect();
    let rows = rows();
    assert_eq!(rows.iter().map(|row| row.number).collect::<Vec<_>>(), expected);
    for row in rows {
        assert!(!row.proofs.is_empty() || row.missing.is_some(), "row {}", row.number);
    }
}

#[test]
fn every_test_that_is_named_exists() {
    for row in rows() {
        for proof in row.proofs.iter().filter(|proof| !proof.starts_with("simulator: ")) {
            let named = proof.strip_prefix('`').and_then(|proof| proof.strip_suffix('`'));
            let (file, name) = named.and_then(|named| named.split_once("::")).unwrap_or_else(|| panic!("{proof}"));
            assert!(has_test(&read(file), name), "row {}: {proof}", row.number);
        }
    }
}

#[test]
fn every_seed_that_is_named_is_recorded_and_none_is_left_out() {
    let mut named = BTreeSet::new();
    for row in rows() {
        for proof in row.proofs.iter().filter_map(|proof| proof.strip_prefix("simulator: ")) {
            let (rule, seed) = proof.split_once(", seed ").unwrap_or_else(|| panic!("{proof}"));
            let rule = rule.trim_matches('`');
            let known = known(rule).unwrap_or_else(|| panic!("{rule} has no line in tests/sim/mutations.txt"));
            assert_eq!((known.row, known.seed), (row.number, seed.parse().ok()), "{rule}");
            named.insert(rule);
        }
    }
    let recorded = tiebreaker_sim::Switches::table();
    let recorded = recorded.into_iter().filter(|(rule, _)| known(rule).is_some_and(|known| known.seed.is_some()));
    assert_eq!(named, recorded.map(|(rule, _)| rule).collect());
}

#[test]
fn a_name_without_a_test_is_noticed() {
    let text = "#[test]\nfn holds() {}\n\nfn helps() {}\n\nproofs! {\n    listed,\n}\n";
    assert!(has_test(text, "holds") && has_test(text, "listed"));
    assert!(!has_test(text, "helps") && !has_test(text, "hold") && !has_test(text, "gone"));
}
