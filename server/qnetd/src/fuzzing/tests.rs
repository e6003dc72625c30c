//! The fuzzers' work in small, for every test run on a stable compiler.

use proptest::prelude::*;

use super::*;

fn mutated(seeds: Vec<Vec<u8>>) -> impl Strategy<Value = Vec<u8>> {
    let edits = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6);
    (prop::sample::select(seeds), edits, any::<prop::sample::Index>(), any::<bool>()).prop_map(
        |(mut bytes, edits, cut, whole)| {
            for (at, value) in edits {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            if !whole {
                bytes.truncate(cut.index(bytes.len()) + 1);
            }
            bytes
        },
    )
}

proptest! {
    // Several times what PROPTEST_CASES says or what is usual, 256: a slow processor gets fewer.
    #![proptest_config(ProptestConfig {
        cases: 4 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn any_bytes_are_read_without_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode(&bytes);
    }

    #[test]
    fn bent_messages_are_read_without_a_panic(bytes in mutated(decode_seeds())) {
        decode(&bytes);
    }

    #[test]
    fn bent_conversations_leave_nothing_behind(bytes in mutated(conversation_seeds())) {
        conversation(&bytes);
    }
}

#[test]
fn starttls_and_the_handshake_may_be_cut_anywhere() {
    let said = |cut| conversation_with(&secured_seed(cut), |server, _, _| server);
    let whole = said(0);
    assert!(whole.len() > 20, "all of the conversation is held: {}", whole.len());
    for cut in 1..=starting().len() {
        assert_eq!(said(cut), whole, "cut at {cut}");
    }
}

#[test]
fn the_corpus_in_the_tree_is_what_these_functions_generate() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, seeds) in [("qnetd_decode", decode_seeds()), ("qnetd_conversation", conversation_seeds())] {
        for (n, seed) in seeds.iter().enumerate() {
            let path = root.join(target).join(format!("honest-{n}"));
            if std::env::var_os("UPDATE_CORPUS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, seed).unwrap();
            }
            let stored = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(&stored, seed, "{} is stale: run with UPDATE_CORPUS=1", path.display());
        }
    }
}
