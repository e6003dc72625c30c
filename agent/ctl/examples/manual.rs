//! Writes the manual pages and shell completions of all programs, from the very definitions by which they read their
//! command lines: `cargo run -p tiebreaker --example manual -- FOLDER`.
//!
//! The packages carry them (`cross/package`). It is no program of its own, because none that ships shall hold the generators.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;
use clap_mangen::Man;

fn main() -> Result<()> {
    let folder = std::env::args_os().nth(1).map(PathBuf::from).context("usage: manual FOLDER")?;
    // Section 1 is what everybody may use, 8 what an administrator does.
    for (command, section) in [
        (tiebreaker::command(), "1"),
        (tiebreaker_server::cli::command(), "8"),
        (tiebreaker_agent::cli::command(), "8"),
        (tiebreaker::fence::command(), "8"),
    ] {
        let name = command.get_name().to_owned();
        write(&folder.join(&name), command, section).with_context(|| format!("the manual of {name}"))?;
    }
    Ok(())
}

/// A program's pages below `man`, its completions below the names of the shells.
fn write(folder: &Path, command: Command, section: &str) -> Result<()> {
    let name = command.get_name().to_owned();
    for (shell, part, file) in [
        (Shell::Bash, "bash", name.clone()),
        (Shell::Zsh, "zsh", format!("_{name}")),
        (Shell::Fish, "fish", format!("{name}.fish")),
    ] {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), &name, &mut text);
        put(&folder.join(part), &file, &text)?;
    }
    let mut whole = command.disable_help_subcommand(true);
    whole.build();
    pages(&whole, section, &folder.join("man"))
}

/// One page for each command that is shown.
fn pages(command: &Command, section: &str, folder: &Path) -> Result<()> {
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        pages(below, section, folder)?;
    }
    let page = Man::new(command.clone()).section(section);
    let mut text = Vec::new();
    page.render(&mut text)?;
    put(folder, &page.get_filename(), &text)
}

fn put(folder: &Path, file: &str, text: &[u8]) -> Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("creating {}", folder.display()))?;
    let path = folder.join(file);
    std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))
}
