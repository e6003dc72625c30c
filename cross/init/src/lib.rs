//! Process 1 of the appliance's image.
//!
//! It arms the hardware's watchdog before anything else, loads drivers, mounts the card, reads `tiebreaker.toml`, brings up
//! the network and the clock, and keeps `tiebreaker-server` running. The watchdog is fed only while the server proves that
//! it works: it asks itself through its own socket. There is no shell, nothing to log in to, and the root is memory.
//!
//! What decides (`supervisor`, `dhcp`) and what reads (`settings`, `adopt`, `mbr`, `cmdline`, `notify`) does no more I/O
//! than it must; `machine`, `network`, `clock` and `server` are the shells around them.

mod adopt;
mod clock;
mod cmdline;
mod dhcp;
mod disk;
mod dog;
mod known;
mod light;
mod log;
pub mod machine;
mod mbr;
mod modules;
mod netlink;
mod network;
mod notify;
mod server;
mod settings;
mod supervisor;

pub use log::say;
