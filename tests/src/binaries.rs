//! Where the built programs are. Knows cargo's folder layout, nothing else.

use std::env;
use std::path::PathBuf;

use crate::LabError;

/// Path of the built program `name`: in `BASTIO_BIN_DIR` if that is set, otherwise in the folder that holds this
/// process's own program (for a test: the folder above `deps`).
///
/// # Errors
/// [`LabError::Missing`] when it has not been built.
pub fn binary(name: &str) -> Result<PathBuf, LabError> {
    let path = folder()?.join(name);
    if path.is_file() {
        return Ok(path);
    }
    Err(LabError::Missing {
        what: format!("the program {}", path.display()),
        hint: "build it first: cargo build --workspace --bins".into(),
    })
}

fn folder() -> Result<PathBuf, LabError> {
    if let Some(folder) = env::var_os("BASTIO_BIN_DIR") {
        return Ok(PathBuf::from(folder));
    }
    let program = env::current_exe().map_err(LabError::doing("find this program's own path"))?;
    let mut folder = program.parent().map(PathBuf::from).unwrap_or_default();
    if folder.ends_with("deps") {
        folder.pop();
    }
    Ok(folder)
}
