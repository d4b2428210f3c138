//! Launching containers: what they see, how they end, what their logs hold.
#![allow(missing_docs)]
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod client;

use client::{Pause, container, plans, root, texts};

#[test]
fn a_container_runs_and_its_exit_code_and_output_are_told() {
    let (pause, mut client) = Pause::ready(plans::sandbox());
    root::make(pause.dir.path());
    let plan = plans::container(
        pause.dir.path(),
        &[
            "box",
            "say",
            "hello",
            "err",
            "trouble",
            "print",
            "no newline",
            "exit",
            "7",
        ],
        vec![],
    );
    client.launch("one", &plan, &pause.log("log")).unwrap();
    let exit = client.exit_of(&container("one"));
    assert_eq!((exit.code, exit.signal), (7, 0));
    let log = pause.log_text("log");
    assert!(texts(&log).contains("hello\n"), "{log}");
    assert!(
        log.contains(" stdout F hello\n")
            && log.contains(" stderr F trouble\n")
            && log.contains(" stdout P no newline\n"),
        "{log}"
    );
}
