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

/// The corpus of a fuzzer.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let folder = format!("{}/fuzz/corpus/{target}", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_dir(folder).unwrap().map(|entry| std::fs::read(entry.unwrap().path()).unwrap()).collect()
}

proptest! {
    // Several times what PROPTEST_CASES says or what is usual, 256: a slow processor gets fewer.
    #![proptest_config(ProptestConfig {
        cases: 8 * ProptestConfig::default().cases,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_reply_panics_the_client(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        client_reply(&bytes);
    }

    #[test]
    fn no_mutated_reply_panics_the_client(bytes in mutated(client_seeds())) {
        client_reply(&bytes);
    }

    #[test]
    fn no_mutated_answer_of_redfish_is_off_by_mistake(bytes in mutated(seeds("redfish_answer"))) {
        redfish_answer(&bytes);
    }

    #[test]
    fn no_mutated_answer_of_a_plug_is_off_by_mistake(bytes in mutated(seeds("plug_answer"))) {
        plug_answer(&bytes);
    }

    #[test]
    fn no_request_panics_the_bmc(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        bmc_packet(&bytes);
    }

    #[test]
    fn no_mutated_request_panics_the_bmc(bytes in mutated(bmc_seeds())) {
        bmc_packet(&bytes);
    }
}

#[test]
fn the_corpus_in_the_tree_is_what_these_functions_generate() {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for (target, seeds) in [("client_reply", client_seeds()), ("bmc_packet", bmc_seeds())] {
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
