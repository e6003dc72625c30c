//! Questions to the person at the terminal.

use std::io::{IsTerminal as _, Read as _, stdin};

use anyhow::{Context, Result, bail};
use rustix::termios::{LocalModes, OptionalActions, Termios, tcgetattr, tcsetattr};
use tiebreaker_member::ask::Hidden;

use super::device::flush;

/// Puts the terminal back as it was, whatever happens.
struct Echo(Termios);

impl Drop for Echo {
    fn drop(&mut self) {
        // The terminal may have gone; then there is nothing to put back.
        let _ = tcsetattr(stdin(), OptionalActions::Flush, &self.0);
    }
}

/// Asks for a secret without showing it; reads a line where there is no terminal.
///
/// # Errors
/// Nothing was typed, or it can't be read.
pub(super) fn ask_secret(question: &str) -> Result<Hidden> {
    read_silently(question, "no secret was given: type it, or name a file with --password-file")
}

/// Asks for a passphrase without showing it; for a new one twice.
///
/// # Errors
/// There is no terminal, nothing was typed, or not the same twice.
pub(super) fn ask_passphrase(is_new: bool) -> Result<Hidden> {
    if !stdin().is_terminal() {
        bail!("there is no terminal to ask for the passphrase at: name a file that holds it with --passphrase-file");
    }
    let none = "no passphrase was given: type it, or name a file with --passphrase-file";
    let passphrase = read_silently("Passphrase of the backup", none)?;
    if is_new && read_silently("The same once more", none)?.expose() != passphrase.expose() {
        bail!("the two are not the same: nothing was written");
    }
    Ok(passphrase)
}

fn read_silently(question: &str, none: &'static str) -> Result<Hidden> {
    let mut echo = None;
    if stdin().is_terminal() {
        eprint!("{question}: ");
        flush()?;
        let before = tcgetattr(stdin()).context("reading the terminal's settings")?;
        let mut silent = before.clone();
        silent.local_modes.remove(LocalModes::ECHO);
        tcsetattr(stdin(), OptionalActions::Flush, &silent).context("silencing the terminal")?;
        echo = Some(Echo(before));
    }
    // Byte by byte: the standard input's own buffer would keep a copy.
    let mut line = zeroize::Zeroizing::new(Vec::with_capacity(1024));
    for byte in stdin().lock().bytes() {
        match byte.context("reading the secret")? {
            b'\n' => break,
            _ if line.len() == line.capacity() => bail!("the secret is longer than any that a device takes"),
            byte => line.push(byte),
        }
    }
    if echo.take().is_some() {
        eprintln!();
    }
    let text =
        std::str::from_utf8(crate::recipe::without_line_end(&line)).ok().context("the secret is no UTF-8 text")?;
    if text.is_empty() {
        bail!(none);
    }
    Ok(Hidden::new(text.to_owned()))
}

/// Has a name typed, before something that can't be undone.
///
/// # Errors
/// It is another name, or there is nobody to ask.
pub(super) fn confirm(name: &str, question: &str, typed: Option<String>) -> Result<()> {
    let typed = match typed {
        Some(typed) => typed,
        None if !stdin().is_terminal() => bail!("{question} Give --confirm {name} to have it done"),
        None => {
            eprint!("{question}\nType {name} to go on: ");
            flush()?;
            let mut line = String::new();
            stdin().read_line(&mut line).context("reading the answer")?;
            line.trim().to_owned()
        }
    };
    if typed != name {
        bail!("{typed:?} is not {name}: nothing was done");
    }
    Ok(())
}
