//! From defaults, a file and the environment to one typed struct, with every problem told at once.
//!
//! Layers, later ones win: the compiled-in defaults of a section, `[common]` and then `[section]` of the file,
//! `TRACKLAYER_COMMON__KEY` and then `TRACKLAYER_SECTION__KEY` of the environment, which is passed in as a map. What stands
//! under `common` is for whoever knows the key. A value that should not stand in the file (a password) may come from a file
//! of its own: `database_url_file = "/run/secrets/database-url"` sets `database_url`.
//!
//! Modules in reading order: [`duration`] and [`size`] (values with a unit), `tree` (values and where each came from), `layers`
//! (how they are put together), `read` (tree → struct), `load` (all problems, not the first), [`problem`] (how they read), `show`.
//! It knows no setting of any service.

pub mod duration;
mod layers;
mod load;
pub mod problem;
mod read;
mod show;
pub mod size;
mod tree;

use std::{collections::BTreeMap, path::Path};

pub use duration::HumanDuration;
pub use load::{Loaded, load, load_checked, unknown_sections};
pub use problem::{ConfigErrors, Problem};
pub use show::show;
pub use size::ByteSize;

/// Where the settings of one section come from.
#[derive(Debug, Clone, Copy)]
pub struct LoadRequest<'a> {
    /// The section's defaults as TOML, without a `[section]` line; compiled in.
    pub defaults: &'a str,
    /// The operator's file with a table per section, if there is one.
    pub file: Option<&'a Path>,
    /// The environment.
    pub environment: &'a BTreeMap<String, String>,
    /// The section: `ingest`, `telemetry` …
    pub section: &'a str,
}
