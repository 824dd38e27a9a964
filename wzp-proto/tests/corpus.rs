//! Replays the corpora of the fuzz targets.

use std::path::Path;

#[path = "support/fuzzing.rs"]
mod fuzzing;

const TARGETS: [&str; 10] = [
    "compact",
    "fec",
    "handshake",
    "media_packet",
    "nack",
    "names",
    "seal",
    "signal",
    "trunk",
    "video",
];

#[test]
fn every_corpus_is_survived() {
    let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    for name in TARGETS {
        let mut inputs: Vec<_> = std::fs::read_dir(corpora.join(name))
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        inputs.sort();
        assert!(inputs.len() >= 3, "the corpus of {name} is too small");
        for input in inputs {
            let data = std::fs::read(&input).unwrap();
            println!("{}", input.display());
            fuzzing::run(name, &data);
            // Cut and damaged inputs too.
            for len in (0..data.len()).step_by(1 + data.len() / 40) {
                fuzzing::run(name, &data[..len]);
                let mut damaged = data.clone();
                damaged[len] ^= 0x55;
                fuzzing::run(name, &damaged);
            }
        }
    }
}

#[test]
fn every_target_has_a_fuzz_target_and_a_corpus() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in TARGETS {
        let source = std::fs::read_to_string(fuzz.join(format!("fuzz_targets/{name}.rs"))).unwrap();
        assert!(source.contains(&format!("fuzzing::run(\"{name}\", data)")), "{name}");
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
    assert_eq!(
        std::fs::read_dir(fuzz.join("fuzz_targets")).unwrap().count(),
        TARGETS.len()
    );
}
