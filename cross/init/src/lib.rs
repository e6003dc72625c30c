//! Process 1 of the appliance's image.
//!
//! It arms the hardware's watchdog before anything else, loads drivers, mounts the card, reads `tiebreaker.toml`, brings up
//! the network and the clock, and keeps `tiebreaker-server` running. The watchdog is fed only while the server proves that
//! it works: it asks itself through its own socket. There is no shell, nothing to log in to, and the root is memory.
//!
//! Updates come by `desk`, are written by `slots` and tried by `updates`; what is decided about them is `tiebreaker-update`'s.
//!
//! What decides (`supervisor`, `dhcp`) and what reads (`settings`, `adopt`, `mbr`, `cmdline`, `notify`) does no more I/O
//! than it must; `machine`, `network`, `clock` and `server` are the shells around them.

mod adopt;
mod clock;
mod cmdline;
mod desk;
mod dhcp;
mod disk;
mod dog;
mod firmware;
mod invitations;
mod known;
mod light;
mod log;
pub mod machine;
mod mbr;
mod modules;
mod netlink;
mod network;
mod notify;
mod pairing;
mod server;
mod settings;
mod slots;
mod supervisor;
mod sys;
mod updates;

pub use log::say;
