//! `jetring schema`: the schemas of envelope and reports, and what a change of schemas breaks.

use crate::args::{self, SchemaAction};
use crate::{Failure, Outcome, Result};
use jetring::schema::Schemas;
use jetring::schema::compatibility::{Change, Comparison, Readers, compare};
use serde::Serialize;
use std::path::Path;

pub(crate) fn run(args: &args::Schema, json: bool) -> Result<Outcome> {
    match (&args.action, &args.out) {
        (Some(SchemaAction::Check { old, new, readers }), _) => check(old, new, readers.0, json),
        (None, Some(directory)) => {
            let written = Schemas::of_jetring().write_to(directory);
            written.map_err(|error| Failure::Run(format!("{}: {error}", directory.display())))?;
            Ok(Outcome::Well)
        }
        (None, None) => {
            println!("{:#}", Schemas::of_jetring().to_json());
            Ok(Outcome::Well)
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    compatible: bool,
    schemas: &'a [Comparison],
}

fn check(old: &Path, new: &Path, readers: Option<Readers>, json: bool) -> Result<Outcome> {
    let read = |path: &Path| Schemas::read(path).map_err(Failure::run);
    let mut schemas = compare(&read(old)?, &read(new)?);
    if let Some(readers) = readers {
        schemas.iter_mut().for_each(|comparison| comparison.breaks.retain(|found| found.readers == readers));
    }
    let compatible = schemas.iter().all(|comparison| comparison.breaks.is_empty());
    if json {
        let printed = Printed { compatible, schemas: &schemas };
        println!("{}", serde_json::to_string(&printed).map_err(Failure::run)?);
    } else {
        schemas.iter().for_each(print);
    }
    Ok(if compatible { Outcome::Well } else { Outcome::Loss })
}

fn print(Comparison { name, change, breaks }: &Comparison) {
    let change = match change {
        Change::Unchanged => "unchanged",
        Change::Added => "added",
        Change::Removed => "removed",
        Change::Changed if breaks.is_empty() => "changed, compatible",
        Change::Changed => "changed",
    };
    println!("{} {name}: {change}", if breaks.is_empty() { "ok    " } else { "breaks" });
    breaks.iter().for_each(|found| println!("       {found}"));
}
