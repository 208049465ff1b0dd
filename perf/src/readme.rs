use anyhow::Result;
use std::path::Path;
pub(crate) fn update(_: &Path, _: &Path, _: bool) -> Result<()> {
    Ok(())
}
