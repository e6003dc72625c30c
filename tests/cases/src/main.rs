//! Shows what becomes of the published cases: their scenarios, and what is expected of them.

use std::io::{ErrorKind, Write};
use std::path::PathBuf;

use anyhow::{Context, bail};
use clap::{Args, Parser, Subcommand};
use tiebreaker_cases::{CASES_VARIABLE, Case, Conversion, convert, load};

/// Published failure cases as scenarios of ours.
#[derive(Parser)]
#[command(name = "tiebreaker-cases", version)]
struct Cli {
    /// The folder with the published cases.
    #[arg(long, env = CASES_VARIABLE, value_name = "FOLDER", global = true)]
    cases: Option<PathBuf>,
    #[command(subcommand)]
    command: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Prints scenarios as JSON: one document, or with --all one object from case to scenario.
    Convert(Which),
    /// Prints what is expected, or why a case is left out.
    Expect(Which),
    /// Prints each case's name, and why it is left out if it is.
    List,
}

#[derive(Args)]
#[group(required = true)]
struct Which {
    /// A case: `test-basic1`, or `basic1`.
    name: Option<String>,
    /// All cases.
    #[arg(long, conflicts_with = "name")]
    all: bool,
}

fn main() -> anyhow::Result<()> {
    match show(Cli::parse()) {
        // Whoever reads this has seen enough.
        Err(error) if error.downcast_ref::<std::io::Error>().is_some_and(|io| io.kind() == ErrorKind::BrokenPipe) => {
            Ok(())
        }
        other => other,
    }
}

fn show(cli: Cli) -> anyhow::Result<()> {
    let Some(folder) = cli.cases else {
        bail!("set {CASES_VARIABLE}, or give --cases, to the folder that holds the published cases");
    };
    let cases = load(&folder)?;
    let mut out = std::io::stdout().lock();
    match cli.command {
        Verb::Convert(Which { name: Some(name), .. }) => match convert(find(&cases, &name)?)? {
            Conversion::Converted(converted) => writeln!(out, "{}", converted.scenario.to_json())?,
            Conversion::LeftOut(reason) => bail!("{name} is left out: {reason}"),
        },
        Verb::Convert(_) => {
            let mut scenarios = serde_json::Map::new();
            for case in &cases {
                if let Conversion::Converted(converted) = convert(case)? {
                    scenarios.insert(case.name.clone(), serde_json::to_value(&converted.scenario)?);
                }
            }
            writeln!(out, "{}", serde_json::to_string_pretty(&scenarios)?)?;
        }
        Verb::Expect(Which { name: Some(name), .. }) => expect(&mut out, find(&cases, &name)?)?,
        Verb::Expect(_) => cases.iter().try_for_each(|case| expect(&mut out, case))?,
        Verb::List => {
            for case in &cases {
                match convert(case)? {
                    Conversion::Converted(_) => writeln!(out, "{}", case.name)?,
                    Conversion::LeftOut(reason) => writeln!(out, "{}: left out: {reason}", case.name)?,
                }
            }
        }
    }
    Ok(())
}

fn find<'a>(cases: &'a [Case], name: &str) -> anyhow::Result<&'a Case> {
    cases
        .iter()
        .find(|case| case.name == name || case.name.strip_prefix("test-") == Some(name))
        .with_context(|| format!("there is no case {name}: `tiebreaker-cases list` names them"))
}

fn expect(out: &mut impl Write, case: &Case) -> anyhow::Result<()> {
    match convert(case)? {
        Conversion::Converted(converted) => {
            write!(out, "{}", converted.expected)?;
            for note in &converted.notes {
                writeln!(out, "  note: {note}")?;
            }
        }
        Conversion::LeftOut(reason) => writeln!(out, "{}\n  left out: {reason}", case.name)?,
    }
    Ok(())
}
