//! What a version of the protocol has promised stays: each is compared with its layout in `versions/`.
//!
//! A version that was released is never changed: what is new gets `[since N]`, and `Version::NEWEST` becomes N. The newest
//! one may grow as long as no release has it.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used)] // a test fails by panicking

use podwright_pause::plan::LaunchPlan;
use podwright_pause::protocol::{Answer, ContainerEntry, LogState, Message, Request};
use podwright_pause::version::Version;
use podwright_pause::wire::{DecodeError, Newer, Schema, Wire};

fn layout(version: Version) -> String {
    let mut schema = Schema::default();
    Message::<Request>::describe(&mut schema);
    Message::<Answer>::describe(&mut schema);
    LaunchPlan::describe(&mut schema);
    schema.of(version)
}

#[test]
fn no_version_changes() {
    let directory = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/versions");
    for number in 1..=Version::NEWEST.0 {
        let path = directory.join(format!("{number}.txt"));
        let promised = std::fs::read_to_string(&path).unwrap_or_default();
        let now = layout(Version(number));
        if promised != now {
            let seen = std::env::temp_dir().join(format!("podwright-protocol-{number}.txt"));
            std::fs::write(&seen, &now).unwrap();
            let (promised, now) = (promised.lines(), now.lines());
            let differs = promised.zip(now).position(|(one, other)| one != other);
            panic!(
                "version {number} is not what {} promises, from line {} on: see {}",
                path.display(),
                differs.map_or(0, |line| line + 1),
                seen.display()
            );
        }
    }
}

fn entry(log: Option<LogState>) -> ContainerEntry {
    ContainerEntry {
        id: "c".into(),
        pid: 1,
        started_at: 2,
        exit: None,
        log,
    }
}

#[test]
fn what_an_older_version_does_not_have_is_left_out_or_refused() {
    let (older, newer) = (Version(1), Version(2));
    let whole = entry(Some(LogState::Resumed { lost: 3 }));
    let field = Newer {
        what: "ContainerEntry.log",
        since: newer,
    };
    assert_eq!(whole.to_bytes_of(older), Err(field));
    let known = whole.to_known_bytes_of(older).unwrap();
    assert_eq!(known, entry(None).to_bytes_of(older).unwrap());
    assert_eq!(
        ContainerEntry::from_bytes_of(&known, older),
        Ok(entry(None))
    );
    assert_eq!(
        ContainerEntry::from_bytes_of(&known, newer),
        Err(DecodeError::Truncated)
    );
    let told = whole.to_bytes_of(newer).unwrap();
    assert_eq!(ContainerEntry::from_bytes_of(&told, newer), Ok(whole));
    assert!(matches!(
        ContainerEntry::from_bytes_of(&told, older),
        Err(DecodeError::TrailingBytes(_))
    ));

    let news = Answer::Log {
        container: "c".into(),
        state: LogState::Failing { errno: 28 },
    };
    let variant = Newer {
        what: "Answer::Log",
        since: newer,
    };
    assert_eq!(news.to_known_bytes_of(older), Err(variant));
    let told = news.to_bytes_of(newer).unwrap();
    assert_eq!(Answer::from_bytes_of(&told, newer), Ok(news));
    assert_eq!(
        Answer::from_bytes_of(&told, older),
        Err(DecodeError::UnknownTag("Answer", 9))
    );
}
