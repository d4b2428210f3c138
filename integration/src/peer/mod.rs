//! containerd as a peer of Podwright in a benchmark: built from its release, and run privately.
//!
//! What it makes is named after a [`Slot`](crate::node::Slot), as all of a test daemon is; its links, rules and addresses are in
//! the network namespace of this process ([`crate::node::enter_private_network`]), and its mounts in a mount namespace of its own.

mod configuration;
mod containerd;
mod programs;

pub use containerd::Containerd;
pub use programs::Programs;
