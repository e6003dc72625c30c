//! Lets `pvecm qdevice setup` in over ssh, once, on a machine that has no shell and no sshd.
//!
//! It is a server of ssh that understands the commands and files of that setup and nothing else. There are no programs, no
//! files, no users and no terminals behind it: what is written lives in its memory, what is signed is signed by
//! `tiebreaker-server qdevice sign`, which also decides whether the cluster is one of its own.
//!
//! Process 1 of the image starts it where `tiebreaker.toml` asks for it. It shows a fresh code on its standard output, which
//! is root's password; the window closes after one setup, a quarter of an hour or ten wrong codes, and with it the process ends.
//!
//! `window` decides what may still happen, `command` and `place` what can be named, `scp` and `sftp` how files come and go:
//! none of them does I/O. `session` is one connection, `server` all of them. Why it is a program of its own: docs/adr/0033.

mod code;
mod command;
mod host_key;
mod options;
mod place;
mod scp;
mod server;
mod session;
mod sftp;
mod signer;
mod window;

pub use options::{HELP, Options};
pub use server::run;
pub use window::Outcome;
