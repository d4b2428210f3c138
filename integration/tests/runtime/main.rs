//! What the runtime promises, tested through its socket; a module per kind of promise.
//!
//! They need root and a built `podwright` (`cargo build -p podwright`, or `PODWRIGHT_BINARY`). Each
//! test has a daemon of its own and ends by checking that nothing is left on the machine.
#![allow(clippy::unwrap_used, clippy::expect_used)]

mod apparmor;
mod attacks;
mod bad_input;
mod calls;
mod cdi;
mod cgroup;
mod checkpoint;
mod churn;
mod crash;
mod doctor;
mod events;
mod exec;
mod full_disk;
mod handlers;
mod hogs;
mod hostile_streams;
mod images;
mod lifecycle;
mod logs;
mod mounts;
mod namespaces;
mod network;
mod nri;
mod reboot;
mod reconnect;
mod seccomp;
mod selinux;
mod stats;
mod stream;
mod systemd;
mod tls;
mod tour;
mod upgrade;
mod user_namespaces;
mod users;
