//! Rows → the bytes of a Parquet file. Written column by column, without Arrow: the columns are few and flat.
//!
//! The same rows are the same bytes, whoever writes them and when: no time, no version of the program, no chance is in a file.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{ByteArray, ByteArrayType, DataType, Int64Type};
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::{ColumnPath, TypePtr};
use tracklayer_destination::warehouse::row::Row;
use tracklayer_ids::Position;

/// Version of the columns, in the file's metadata under this key. Columns are only ever added, at the end, and nullable; a
/// change of any other kind would be another number.
pub const SCHEMA_VERSION: (&str, &str) = ("tracklayer.schema_version", "1");
/// Who wrote the file, in the form that readers look for. The same for all versions of the program.
const CREATED_BY: &str = "tracklayer version 1";
const ZSTD_LEVEL: i32 = 3;

/// The columns. Texts that hold JSON are declared as texts: not every reader knows the other type.
const COLUMNS: &str = "
message event {
  required binary message_id (STRING);
  required binary event_type (STRING);
  optional binary event_name (STRING);
  optional binary category (STRING);
  optional binary user_id (STRING);
  optional binary anonymous_id (STRING);
  optional binary group_id (STRING);
  optional binary previous_id (STRING);
  optional binary profile_key (STRING);
  required int64 timestamp (TIMESTAMP(MICROS,true));
  required int64 received_at (TIMESTAMP(MICROS,true));
  optional int64 original_timestamp (TIMESTAMP(MICROS,true));
  optional int64 sent_at (TIMESTAMP(MICROS,true));
  required int64 source_id;
  optional binary channel (STRING);
  optional binary properties (STRING);
  optional binary traits (STRING);
  optional binary context (STRING);
  optional binary consent (STRING);
  required int64 journal_generation;
  required int64 journal_partition;
  required int64 journal_offset;
}";

/// Read once; the text is tested.
static SCHEMA: LazyLock<Result<TypePtr, String>> =
    LazyLock::new(|| parse_message_type(COLUMNS).map(Arc::new).map_err(|error| error.to_string()));

/// A row, and where its event stands in the journal.
#[derive(Debug, Clone)]
pub struct PlacedRow {
    /// Where.
    pub position: Position,
    /// The row as JSON, as `Destination::build` made it.
    pub row: Bytes,
}

/// A file that cannot be made of these rows.
#[derive(Debug, thiserror::Error)]
pub enum EncodeError {
    /// No row as `Destination::build` makes them.
    #[error("what stands at {position} is no row")]
    Row {
        /// Where.
        position: Position,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The columns.
    #[error("the columns cannot be read: {0}")]
    Schema(String),
    /// The writer.
    #[error("the file could not be put together")]
    Parquet(#[from] ParquetError),
}

/// The bytes of a file of these rows, in their order. `metadata` goes into the file beside the schema's version.
///
/// # Errors
/// A row is none.
pub fn encode(rows: &[PlacedRow], metadata: &BTreeMap<String, String>) -> Result<Bytes, EncodeError> {
    let schema = SCHEMA.as_ref().map_err(|why| EncodeError::Schema(why.clone()))?;
    let read = |row: &PlacedRow| {
        serde_json::from_slice::<Row>(&row.row)
            .map_err(|source| EncodeError::Row { position: row.position, source })
    };
    let read: Vec<Row> = rows.iter().map(read).collect::<Result<_, _>>()?;
    let properties = Arc::new(properties(metadata)?);
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::clone(schema), properties)?;
    let mut group = file.next_row_group()?;
    write_columns(&mut group, &read, rows)?;
    group.close()?;
    Ok(file.into_inner()?.into())
}

fn properties(metadata: &BTreeMap<String, String>) -> Result<WriterProperties, ParquetError> {
    let (key, version) = SCHEMA_VERSION;
    let mut pairs = vec![KeyValue::new(key.to_owned(), version.to_owned())];
    pairs.extend(metadata.iter().map(|(key, value)| KeyValue::new(key.clone(), value.clone())));
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL)?))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_statistics_truncate_length(Some(64))
        .set_key_value_metadata(Some(pairs));
    // Each of their values occurs once: a dictionary would be the column again, and nobody looks for JSON by its bounds.
    for name in ["message_id", "properties", "traits", "context", "journal_offset"] {
        builder = builder.set_column_dictionary_enabled(ColumnPath::from(name), false);
    }
    for name in ["properties", "traits", "context", "consent"] {
        builder = builder.set_column_statistics_enabled(ColumnPath::from(name), EnabledStatistics::None);
    }
    Ok(builder.build())
}

type Group<'g, 'f> = &'g mut SerializedRowGroupWriter<'f, Vec<u8>>;

fn write_columns(group: Group<'_, '_>, rows: &[Row], placed: &[PlacedRow]) -> Result<(), ParquetError> {
    let micros = |time: jiff::Timestamp| time.as_microsecond();
    text(group, rows.iter().map(|r| r.message_id.as_str()))?;
    text(group, rows.iter().map(|r| r.event_type.as_str()))?;
    texts(group, rows.iter().map(|r| r.event_name.as_deref()))?;
    texts(group, rows.iter().map(|r| r.category.as_deref()))?;
    texts(group, rows.iter().map(|r| r.user_id.as_deref()))?;
    texts(group, rows.iter().map(|r| r.anonymous_id.as_deref()))?;
    texts(group, rows.iter().map(|r| r.group_id.as_deref()))?;
    texts(group, rows.iter().map(|r| r.previous_id.as_deref()))?;
    texts(group, rows.iter().map(|r| r.profile_key.as_deref()))?;
    number(group, rows.iter().map(|r| micros(r.timestamp)))?;
    number(group, rows.iter().map(|r| micros(r.received_at)))?;
    numbers(group, rows.iter().map(|r| r.original_timestamp.map(micros)))?;
    numbers(group, rows.iter().map(|r| r.sent_at.map(micros)))?;
    number(group, rows.iter().map(|r| r.source_id))?;
    texts(group, rows.iter().map(|r| r.channel.as_deref()))?;
    texts(group, rows.iter().map(|r| r.properties.as_deref()))?;
    texts(group, rows.iter().map(|r| r.traits.as_deref()))?;
    texts(group, rows.iter().map(|r| r.context.as_deref()))?;
    texts(group, rows.iter().map(|r| r.consent.as_deref()))?;
    number(group, placed.iter().map(|p| i64::from(p.position.generation.0)))?;
    number(group, placed.iter().map(|p| i64::from(p.position.partition.0)))?;
    number(group, placed.iter().map(|p| p.position.offset.0.cast_signed()))
}

fn text<'a>(group: Group<'_, '_>, values: impl Iterator<Item = &'a str>) -> Result<(), ParquetError> {
    column::<ByteArrayType>(group, values.map(ByteArray::from).collect(), None)
}

fn texts<'a>(
    group: Group<'_, '_>,
    values: impl Iterator<Item = Option<&'a str>>,
) -> Result<(), ParquetError> {
    let (there, levels) = split(values.map(|value| value.map(ByteArray::from)));
    column::<ByteArrayType>(group, there, Some(levels))
}

fn number(group: Group<'_, '_>, values: impl Iterator<Item = i64>) -> Result<(), ParquetError> {
    column::<Int64Type>(group, values.collect(), None)
}

fn numbers(group: Group<'_, '_>, values: impl Iterator<Item = Option<i64>>) -> Result<(), ParquetError> {
    let (there, levels) = split(values);
    column::<Int64Type>(group, there, Some(levels))
}

/// The values that are there, and for each row whether one is.
fn split<T>(values: impl Iterator<Item = Option<T>>) -> (Vec<T>, Vec<i16>) {
    let mut levels = Vec::new();
    let there = values.inspect(|value| levels.push(i16::from(value.is_some()))).flatten().collect();
    (there, levels)
}

fn column<T: DataType>(
    group: Group<'_, '_>,
    values: Vec<T::T>,
    levels: Option<Vec<i16>>,
) -> Result<(), ParquetError> {
    let Some(mut column) = group.next_column()? else {
        return Err(ParquetError::General("there are more values than columns".to_owned()));
    };
    column.typed::<T>().write_batch(&values, levels.as_deref(), None)?;
    column.close()
}
