//! How the daemon is linked.

use std::env;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    // A program that may be loaded anywhere holds some ten thousand addresses to be adjusted when it starts. Packed, the list
    // of them is a few kilobytes instead of a third of a megabyte, all of which is read and stays in memory. Linkers that don't
    // know it say so and write the long list; glibc reads the short one from 2.36 on, which is Debian 12's.
    let of = |what: &str| env::var(what).unwrap_or_default();
    if of("CARGO_CFG_TARGET_OS") == "linux" && of("CARGO_CFG_TARGET_ENV") == "gnu" {
        println!("cargo:rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
}
