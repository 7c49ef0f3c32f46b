//! The small HTTP/JSON router each half serves on its own unix socket, and the client the command line uses.
//!
//! A socket answers whoever may open it (the group `bedrail`); who asked is told by the kernel and goes into the audit trail.

mod client;
mod collect;
mod deliver;
mod learn;
mod server;

pub use client::{ClientError, call};
pub use collect::{CollectState, Listed, MOST_SECONDS, router as collect_router, router_without_radio};
pub use deliver::{DeliverState, router as deliver_router, router_without_desk};
pub use learn::{LearnState, router as learn_router};
pub use server::{Actor, Peer, bind, serve};

/// Socket names in the runtime directory.
pub const COLLECT_SOCKET: &str = "collect.sock";
pub const DELIVER_SOCKET: &str = "deliver.sock";
