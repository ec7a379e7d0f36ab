//! Data on stdout: a table for people, JSON or YAML for programs.

use crate::{error::CliError, plain};
use clap::ValueEnum;
use comfy_table::{Attribute, Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;
use std::io::{self, IsTerminal, Write};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum Format {
    #[default]
    Table,
    Json,
    Yaml,
}

/// One row of a list.
pub trait Row: Serialize {
    const HEADER: &'static [&'static str];
    fn cells(&self) -> Vec<String>;
    /// All that is worth showing of one, by name: its cells, unless there is more to say.
    fn fields(&self) -> Vec<(&'static str, String)> {
        Self::HEADER.iter().copied().zip(self.cells()).collect()
    }
}

/// The colour of a word that is a state; `None`: it is no state.
fn state_color(word: &str) -> Option<Color> {
    match word {
        "running" | "active" | "up" | "ok" => Some(Color::Green),
        "error" | "disconnected" | "fail" => Some(Color::Red),
        "pending" | "scheduling" | "building" | "deleting" | "queued" | "rebuilding" | "resizing" | "warn" => {
            Some(Color::Yellow)
        }
        _ => None,
    }
}

/// Columns with two spaces between, no lines: easy to read, easy to cut.
#[must_use]
pub fn render_table(header: &[&str], rows: &[Vec<String>], color: bool) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    if color {
        table.enforce_styling();
    } else {
        table.force_no_tty();
    }
    table.set_header(header.iter().map(|text| Cell::new(text).add_attribute(Attribute::Bold)));
    for row in rows {
        table.add_row(row.iter().map(|text| {
            let one_line = plain::line(text);
            let cell = Cell::new(&one_line);
            state_color(&one_line).map_or_else(|| cell.clone(), |color| cell.clone().fg(color))
        }));
    }
    trim(&mut table)
}

/// Name and value, one per line.
#[must_use]
pub fn render_fields(fields: &[(&str, String)]) -> String {
    let width = fields.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    fields.iter().fold(String::new(), |text, (name, value)| {
        let value = plain::lines(value);
        let value = value.replace('\n', &format!("\n{:width$}  ", ""));
        text + format!("{name:width$}  {value}").trim_end() + "\n"
    })
}

fn trim(table: &mut Table) -> String {
    let columns = table.column_count();
    for index in 0..columns {
        if let Some(column) = table.column_mut(index) {
            column.set_padding((0, if index + 1 < columns { 2 } else { 0 }));
        }
    }
    table.to_string().lines().fold(String::new(), |text, line| text + line.trim_end() + "\n")
}

/// Where data goes.
#[derive(Debug, Clone, Copy)]
pub struct Output {
    pub format: Format,
}

impl Output {
    /// Whether stdout takes colours.
    #[must_use]
    pub fn color() -> bool {
        io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
    }

    pub fn list<T: Row>(self, items: &[T]) -> Result<(), CliError> {
        match self.format {
            Format::Table => {
                let rows: Vec<_> = items.iter().map(Row::cells).collect();
                print(&render_table(T::HEADER, &rows, Self::color()))
            }
            Format::Json | Format::Yaml => self.value(&items),
        }
    }

    pub fn one<T: Row>(self, item: &T) -> Result<(), CliError> {
        match self.format {
            Format::Table => print(&render_fields(&item.fields())),
            Format::Json | Format::Yaml => self.value(item),
        }
    }

    /// JSON or YAML; for `table` a value's own lines.
    pub fn value<T: Serialize + ?Sized>(self, value: &T) -> Result<(), CliError> {
        let failed = |e: String| CliError::Stdout(io::Error::other(e));
        match self.format {
            Format::Yaml => print(&serde_yaml_ng::to_string(value).map_err(|e| failed(e.to_string()))?),
            Format::Json | Format::Table => {
                print(&(serde_json::to_string_pretty(value).map_err(|e| failed(e.to_string()))? + "\n"))
            }
        }
    }

    /// One compact JSON line, or one YAML document: for streams.
    pub fn stream_item<T: Serialize>(self, value: &T, line: &str) -> Result<(), CliError> {
        let failed = |e: String| CliError::Stdout(io::Error::other(e));
        match self.format {
            Format::Table => print(&(plain::line(line) + "\n")),
            Format::Json => print(&(serde_json::to_string(value).map_err(|e| failed(e.to_string()))? + "\n")),
            Format::Yaml => {
                print(&format!("---\n{}", serde_yaml_ng::to_string(value).map_err(|e| failed(e.to_string()))?))
            }
        }
    }
}

/// Writes to stdout at once.
pub fn print(text: &str) -> Result<(), CliError> {
    print_bytes(text.as_bytes())
}

pub fn print_bytes(bytes: &[u8]) -> Result<(), CliError> {
    let mut stdout = io::stdout().lock();
    stdout.write_all(bytes).and_then(|()| stdout.flush()).map_err(CliError::Stdout)
}
