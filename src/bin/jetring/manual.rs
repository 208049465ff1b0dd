//! `jetring completions` and `jetring man`: what the tool says of itself, generated from its own description of the command line,
//! so that neither can be out of date.

use crate::args::Args;
use crate::{Failure, Outcome, Result};
use clap::{Command, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::fs;
use std::io::{self, Write};
use std::path::Path;

pub(crate) fn completions(shell: Shell) -> Result<Outcome> {
    let mut command = Args::command();
    let name = command.get_name().to_owned();
    // Through memory, because the generator panics where a pipe is closed.
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut command, name, &mut script);
    io::stdout().write_all(&script).map_err(Failure::run)?;
    Ok(Outcome::Well)
}

/// Prints the page of the tool, or writes the pages of all its commands into a directory and prints their names.
pub(crate) fn pages(dir: Option<&Path>) -> Result<Outcome> {
    let mut command = Args::command().disable_help_subcommand(true);
    command.build();
    let Some(dir) = dir else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page).map_err(Failure::run)?;
        io::stdout().write_all(&page).map_err(Failure::run)?;
        return Ok(Outcome::Well);
    };
    let failed = |error: io::Error| Failure::Run(format!("{}: {error}", dir.display()));
    fs::create_dir_all(dir).map_err(failed)?;
    write_pages(&command, dir).map_err(failed)?;
    Ok(Outcome::Well)
}

/// The page of a command, and those of the commands below it.
fn write_pages(command: &Command, dir: &Path) -> io::Result<()> {
    let path = Man::new(command.clone()).generate_to(dir)?;
    println!("{}", path.display());
    command.get_subcommands().try_for_each(|command| write_pages(command, dir))
}
