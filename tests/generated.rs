//! What is written in two places says the same in both: the CRDs as files and as types, the reasons as documentation and
//! as code. Needs no control plane.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use vpptoken_operator::api::{Reason, crds_as_files};

fn at(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

#[test]
fn the_crd_files_are_what_the_types_say() {
    let generated = crds_as_files().unwrap();
    for folder in ["crds", "charts/vpptoken-operator/crds"] {
        let found: BTreeSet<String> = std::fs::read_dir(at(folder))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        let expected: BTreeSet<String> = generated.iter().map(|(name, _)| name.clone()).collect();
        assert_eq!(found, expected, "{folder}/ has other files than the types make: run make generate");
        for (name, yaml) in &generated {
            let path = at(folder).join(name);
            assert!(read(&path) == *yaml, "{} is not what the types in src/api say: run make generate", path.display());
        }
    }
}

/// The rows of the table under `| reason | meaning |`.
fn documented() -> Vec<(String, String)> {
    let text = read(&at("docs/reasons.md"));
    let rows = text.lines().skip_while(|line| *line != "| reason | meaning |").skip(2);
    rows.take_while(|line| line.starts_with('|'))
        .map(|line| {
            let (reason, meaning) =
                line.strip_prefix("| `").unwrap().strip_suffix(" |").unwrap().split_once("` | ").unwrap();
            (reason.to_owned(), meaning.to_owned())
        })
        .collect()
}

#[test]
fn every_reason_is_documented_with_its_meaning() {
    let in_code: Vec<(String, String)> = Reason::ALL
        .iter()
        .map(|reason| {
            let words: Vec<&str> = reason.meaning().split_whitespace().collect();
            (reason.as_str().to_owned(), words.join(" "))
        })
        .collect();
    let documented = documented();
    for (reason, meaning) in &in_code {
        let row = format!("| `{reason}` | {meaning} |");
        assert!(
            documented.contains(&(reason.clone(), meaning.clone())),
            "docs/reasons.md lacks this line, or has another meaning for the reason:\n{row}"
        );
    }
    for (reason, _) in &documented {
        assert!(in_code.iter().any(|(name, _)| name == reason), "docs/reasons.md has {reason}, which is no reason");
    }
    assert_eq!(documented.len(), in_code.len(), "docs/reasons.md has a reason twice");
}

#[test]
fn a_reason_is_one_word_and_its_meaning_a_sentence() {
    for reason in Reason::ALL {
        let (name, meaning) = (reason.as_str(), reason.meaning());
        assert!(name.starts_with(|c: char| c.is_ascii_uppercase()), "{name}");
        assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{name}");
        assert!(meaning.trim().ends_with('.'), "{name}: {meaning}");
    }
}
