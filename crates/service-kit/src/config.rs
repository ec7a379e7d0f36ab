//! One configuration file, all of its errors at once.
//!
//! serde stops at the first error, and an operator who fixes a file one error per restart stops trusting it. So each section is checked
//! key by key: a key is unknown when the section's default doesn't have it, and its value is wrong when the default with just this key
//! replaced doesn't parse. Ranges and relations are each section's own `validate`.

use serde::{Serialize, de::DeserializeOwned};
use std::{fmt, path::Path};
use toml::{Table, Value};

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `section.key`.
    pub key: String,
    pub detail: String,
}

impl ConfigError {
    pub fn new(key: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { key: key.into(), detail: detail.into() }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.key, self.detail)
    }
}

/// Everything that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigErrors {
    pub file: String,
    pub errors: Vec<ConfigError>,
}

impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} has {} error(s):", self.file, self.errors.len())?;
        self.errors.iter().try_for_each(|e| write!(f, "\n  {e}"))
    }
}

impl std::error::Error for ConfigErrors {}

/// Reads a TOML file into a table.
pub fn read_table(path: &Path) -> Result<Table, ConfigErrors> {
    let wrong = |detail: String| ConfigErrors {
        file: path.display().to_string(),
        errors: vec![ConfigError::new("file", detail)],
    };
    let text = std::fs::read_to_string(path).map_err(|e| wrong(format!("can't be read: {e}")))?;
    text.parse::<Table>().map_err(|e| wrong(format!("is not TOML: {e}")))
}

/// The section `name` of `file`, with its defaults filled in, and what is wrong with it. Wrong keys keep their default.
pub fn check_section<T>(file: &Table, name: &str) -> (T, Vec<ConfigError>)
where
    T: Default + Serialize + DeserializeOwned,
{
    let mut errors = Vec::new();
    let defaults = match Value::try_from(T::default()) {
        Ok(Value::Table(table)) => table,
        Ok(_) | Err(_) => return (T::default(), vec![ConfigError::new(name, "this section has no default (a bug)")]),
    };
    let given = match file.get(name) {
        None => return (T::default(), errors),
        Some(Value::Table(table)) => table,
        Some(other) => {
            errors.push(ConfigError::new(name, format!("must be a section, is a {}", other.type_str())));
            return (T::default(), errors);
        }
    };
    let mut merged = defaults.clone();
    for (key, value) in given {
        let mut trial = defaults.clone();
        trial.insert(key.clone(), value.clone());
        match Value::Table(trial).try_into::<T>() {
            Ok(_) => {
                merged.insert(key.clone(), value.clone());
            }
            Err(e) => errors.push(ConfigError::new(format!("{name}.{key}"), one_line(&e.to_string()))),
        }
    }
    let parsed = Value::Table(merged).try_into::<T>();
    match parsed {
        Ok(section) => (section, errors),
        Err(e) => {
            errors.push(ConfigError::new(name, one_line(&e.to_string())));
            (T::default(), errors)
        }
    }
}

/// Top-level names that are no section.
#[must_use]
pub fn unknown_sections(file: &Table, known: &[&str]) -> Vec<ConfigError> {
    let unknown = file.keys().filter(|key| !known.contains(&key.as_str()));
    unknown
        .map(|key| ConfigError::new(key.clone(), format!("unknown section; there are: {}", known.join(", "))))
        .collect()
}

fn one_line(text: &str) -> String {
    text.lines().map(str::trim).filter(|l| !l.is_empty()).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(default, deny_unknown_fields)]
    struct Section {
        port: u16,
        name: String,
        limit: Option<u32>,
    }

    impl Default for Section {
        fn default() -> Self {
            Self { port: 80, name: "x".into(), limit: None }
        }
    }

    #[test]
    fn all_errors_are_reported_and_good_keys_kept() {
        let file: Table = "[a]\nport = 'no'\nnmae = 'y'\nname = 'kept'\nlimit = 3\n[b]\n".parse().expect("toml");
        let (section, errors) = check_section::<Section>(&file, "a");
        assert_eq!(section, Section { port: 80, name: "kept".into(), limit: Some(3) });
        let keys: Vec<_> = errors.iter().map(|e| e.key.as_str()).collect();
        assert_eq!(keys, ["a.nmae", "a.port"]);
        assert_eq!(unknown_sections(&file, &["a"]).len(), 1);
        assert_eq!(check_section::<Section>(&file, "absent"), (Section::default(), vec![]));
    }
}
