//! rtnetlink(7): the requests about links, addresses and routes that a pod network needs, and no more.

pub(crate) mod address;
pub(crate) mod link;
pub(crate) mod route;
