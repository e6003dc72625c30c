//! Updates of the appliance's image: what process 1 of the image and `tiebreaker-server update` share.
//!
//! An update is one file: a signed manifest and the content of a slot ([`mod@file`]). [`install()`] checks all of it before it
//! writes a byte, and reads the slot back. [`autoboot`] and [`fat`] find the one sector that says which slot starts,
//! [`record`] tells after each start what became of a trial, [`Trial`] judges one while it runs, and [`wire`] is how the
//! file gets to process 1.
//!
//! Nothing here opens a device or knows a path: that is process 1's.

pub mod autoboot;
pub mod fat;
pub mod file;
mod install;
pub mod record;
mod slot;
mod trial;
pub mod wire;

pub use file::{Build, Head, Key, Manifest, UpdateError, Version};
pub use install::{InstallError, Medium, Step, check, install};
pub use record::{Book, Phase, Record, Start};
pub use slot::Slot;
pub use trial::{Sign, Trial, Verdict, WITHIN};

/// The name of an update on the card's first partition.
pub const ON_THE_CARD: &str = "tiebreaker.update";
/// What an image knows of itself: the lines `version` and `build` of its own manifest.
pub const BUILD_FILE: &str = "/etc/tiebreaker-build";
/// The public key that an image was built with, where there is one.
pub const KEY_FILE: &str = "/etc/tiebreaker-update.pub";
/// Where process 1 takes updates.
pub const SOCKET: &str = "/run/update.socket";
/// What became of the last update, as JSON, for whoever wants to show it.
pub const STATUS_FILE: &str = "/run/update.json";
