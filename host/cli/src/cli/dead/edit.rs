//! `outbox dead edit`.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::Args;
use outbox_host::outbox::Operator;
use outbox_host::{Column, Field, JsonSerde, Payload, RawEntry, Row, Serde, files};

use crate::cli::database::{Database, act};
use crate::cli::terminal::print;

/// The most bytes of a file with new data: more than an event may have, so that the error about the event is shown.
const DATA_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Args)]
pub struct Edit {
    #[command(flatten)]
    database: Database,
    #[arg(allow_negative_numbers = true)]
    id: i64,
    /// A file with the new data; `-` is standard input. It is JSON, unless a content_type is set too.
    #[arg(long, value_name = "FILE")]
    data: Option<PathBuf>,
    /// The new value of a column of the table, for example `name=order.placed`; an empty value stands for no value. May
    /// be given again.
    #[arg(long, value_name = "COLUMN=VALUE", value_parser = change)]
    set: Vec<(Column, String)>,
}

impl Edit {
    pub fn run(self) -> Result<()> {
        let id = self.id;
        let mut changes: Vec<(Column, Field<'_>)> =
            self.set.iter().map(|(column, value)| (*column, field(*column, value))).collect();
        let data =
            self.data.as_deref().map(|file| read(file).with_context(|| format!("cannot read {}", file.display())));
        let data = data.transpose()?;
        if let (Some(data), Some(file)) = (&data, &self.data) {
            let has_type = changes.iter().any(|(column, _)| *column == Column::ContentType);
            if !has_type {
                let data = Payload::Json(data.trim().to_owned());
                JsonSerde.serialize(&data).with_context(|| file.display().to_string())?;
                changes.push((Column::ContentType, Field::Null));
            }
            changes.push((Column::Data, if has_type { data.as_str() } else { data.trim() }.into()));
        }
        ensure!(!changes.is_empty(), "what is to be replaced? Give --data FILE, or --set COLUMN=VALUE");
        let outbox = self.database.open()?;
        let entry = outbox.dead_entry(id)?.with_context(|| format!("there is no dead letter {id}"))?;
        check(&changes)?;
        ensure!(outbox.mend_dead_letter(id, &changes, &act())?, "there is no dead letter {id}");
        let asked = |column: &Column| *column != Column::ContentType || self.set.iter().any(|(set, _)| set == column);
        let what: Vec<String> =
            changes.iter().map(|(column, _)| *column).filter(asked).map(|it| format!("the {}", it.name())).collect();
        print(format!(
            "replaced {} of dead letter {id}; put it back with: outbox dead retry {id}",
            what.join(" and ")
        ))?;
        let mended = changes.into_iter().fold(entry.row(), |row, (column, field)| row.with(column, field));
        match RawEntry::new(entry.position, &mended).decode(1, &JsonSerde) {
            Ok(_) => Ok(()),
            Err(error) => print(format!("it would still be no event: {error}")),
        }
    }
}

fn read(file: &Path) -> io::Result<String> {
    if file.as_os_str() != "-" {
        return files::read_text(file, DATA_BYTES_MAX);
    }
    let mut data = String::new();
    io::stdin().take(DATA_BYTES_MAX).read_to_string(&mut data)?;
    Ok(data)
}

fn field(column: Column, value: &str) -> Field<'_> {
    match value.parse::<i64>() {
        _ if value.is_empty() => Field::Null,
        Ok(version) if column == Column::Version => Field::Integer(version),
        _ => value.into(),
    }
}

/// Checks that a valid entry with these columns would still be an event.
fn check(changes: &[(Column, Field<'_>)]) -> Result<()> {
    let good = Row {
        stream_id: "s".into(),
        uuid: "00000000-0000-4000-8000-000000000000".into(),
        name: "n".into(),
        created_at: "2026-01-31T12:00:00Z".into(),
        data: "{}".into(),
        ..Row::default()
    };
    let changed = changes.iter().cloned().fold(good, |row, (column, field)| row.with(column, field));
    RawEntry::new(1, &changed).decode(1, &JsonSerde)?;
    Ok(())
}

fn change(text: &str) -> Result<(Column, String), String> {
    let (name, value) = text.split_once('=').ok_or("write it as COLUMN=VALUE")?;
    let columns = || Column::ALL.into_iter().chain(Column::TIMES);
    let names = columns().map(Column::name).collect::<Vec<_>>().join(", ");
    let column = columns().find(|column| column.name() == name);
    Ok((column.ok_or_else(|| format!("`{name}` is none of {names}"))?, value.to_owned()))
}
