//! What is wrong with a configuration; all of it is reported at once.

use super::Origin;
use ptystream_common::error::{Failure, Kind};
use std::fmt;
use std::path::PathBuf;

/// One fault of a configuration.
#[derive(Debug, thiserror::Error)]
#[must_use]
pub enum ConfigError {
    /// A key that is not declared.
    #[error("{origin}: unknown key '{key}'; {}", hint(near.as_deref(), elsewhere.as_deref()))]
    Unknown {
        /// The key as it was given.
        key: String,
        /// Who gave it.
        origin: Origin,
        /// The known key that is most like it.
        near: Option<String>,
        /// The source that declares it, if another does than the chosen one.
        elsewhere: Option<String>,
    },
    /// A value that its key does not take.
    #[error("{origin}: {key}: {text}")]
    Value {
        /// The key with its block.
        key: String,
        /// Who gave it.
        origin: Origin,
        /// What was wrong, and the cure.
        text: String,
    },
    /// Nothing says what to read.
    #[error(
        "data.name is missing, so nothing says what to read; give one of {known} \
         (--set data.name=...), or a folder in the tutorial layout in the place of the file"
    )]
    NoSource {
        /// The registered sources.
        known: String,
    },
    /// The file cannot be used.
    #[error("{}: {text}", file.display())]
    File {
        /// Which one.
        file: PathBuf,
        /// What was wrong, and the cure.
        text: String,
        /// The cause.
        #[source]
        source: Option<std::io::Error>,
    },
    /// A preset that cannot be used.
    #[error("preset: {text}")]
    Preset {
        /// What was wrong, and the cure.
        text: String,
    },
    /// A `--set` that is no assignment.
    #[error("--set {given}: {text}")]
    Assignment {
        /// The argument.
        given: String,
        /// What was wrong, and the cure.
        text: String,
    },
}

fn hint(near: Option<&str>, elsewhere: Option<&str>) -> String {
    match (elsewhere, near) {
        (Some(source), _) => format!("it belongs to the source '{source}', see data.name"),
        (None, Some(near)) => format!("did you mean '{near}'?"),
        (None, None) => "`ptystream params` lists all keys".to_owned(),
    }
}

/// All faults of a configuration.
#[derive(Debug)]
#[must_use]
pub struct ConfigErrors(pub Vec<ConfigError>);

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let chain = ptystream_common::error::chain;
        match self.0.as_slice() {
            [one] => f.write_str(&chain(one)),
            all => {
                write!(f, "{} faults in the configuration:", all.len())?;
                all.iter().try_for_each(|error| write!(f, "\n  {}", chain(error)))
            }
        }
    }
}

impl std::error::Error for ConfigErrors {}

impl From<ConfigError> for ConfigErrors {
    fn from(error: ConfigError) -> Self {
        Self(vec![error])
    }
}

impl From<&ConfigErrors> for Failure {
    fn from(errors: &ConfigErrors) -> Self {
        Self::new(Kind::Config, errors.to_string())
    }
}
