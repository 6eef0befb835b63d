//! Names and paths in columns: TEXT where they are UTF-8, else a BLOB, so that any name comes back
//! exactly and a person can read most of them.

use std::ffi::{OsStr, OsString};

use rusqlite::ToSql;
use rusqlite::types::{FromSqlError, FromSqlResult, ToSqlOutput, Value, ValueRef};

/// A name or path as a parameter.
pub(super) struct Name<'a>(pub(super) &'a OsStr);

impl ToSql for Name<'_> {
    fn to_sql(&self) -> rusqlite::Result<ToSqlOutput<'_>> {
        Ok(match self.0.to_str() {
            Some(text) => ToSqlOutput::Borrowed(ValueRef::Text(text.as_bytes())),
            None => raw(self.0),
        })
    }
}

/// The same, owned.
pub(super) fn name_value(name: &OsStr) -> Value {
    match Name(name).to_sql() {
        Ok(ToSqlOutput::Borrowed(value)) => value.try_into().unwrap_or(Value::Null),
        Ok(ToSqlOutput::Owned(value)) => value,
        _ => Value::Null,
    }
}

/// Reads a name or path back.
pub(super) fn read_name(value: ValueRef<'_>) -> FromSqlResult<OsString> {
    if let ValueRef::Text(text) = value {
        return std::str::from_utf8(text).map(OsString::from).map_err(FromSqlError::other);
    }
    read_raw(value.as_blob()?)
}

/// The same where there may be none.
pub(super) fn read_optional_name(value: ValueRef<'_>) -> FromSqlResult<Option<OsString>> {
    if value == ValueRef::Null { Ok(None) } else { read_name(value).map(Some) }
}

#[cfg(unix)]
fn raw(name: &OsStr) -> ToSqlOutput<'_> {
    ToSqlOutput::Borrowed(ValueRef::Blob(std::os::unix::ffi::OsStrExt::as_bytes(name)))
}

#[cfg(unix)]
#[expect(clippy::unnecessary_wraps, reason = "other systems know names that are wrong")]
fn read_raw(bytes: &[u8]) -> FromSqlResult<OsString> {
    Ok(std::os::unix::ffi::OsStringExt::from_vec(bytes.to_vec()))
}

#[cfg(windows)]
fn raw(name: &OsStr) -> ToSqlOutput<'_> {
    let units = std::os::windows::ffi::OsStrExt::encode_wide(name);
    ToSqlOutput::Owned(Value::Blob(units.flat_map(u16::to_le_bytes).collect()))
}

#[cfg(windows)]
fn read_raw(bytes: &[u8]) -> FromSqlResult<OsString> {
    let (pairs, []) = bytes.as_chunks::<2>() else { return Err(FromSqlError::InvalidType) };
    let units: Vec<u16> = pairs.iter().map(|pair| u16::from_le_bytes(*pair)).collect();
    Ok(std::os::windows::ffi::OsStringExt::from_wide(&units))
}
