//! Clients over real sockets: well-behaved ones, hostile ones, and those that vanish.

mod backend;
mod client;
mod hostile;
mod noise;
mod requests;
mod serving;
mod spdy;
mod spdy_client;
#[cfg(feature = "measure")]
mod speed;
mod tls;
mod vanishing;
mod web_socket;
