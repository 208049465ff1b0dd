use anyhow::Result;
use std::path::Path;
pub(crate) fn write_all(_: &Path, _: &Path) -> Result<()> {
    Ok(())
}
