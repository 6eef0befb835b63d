//! Drop folders full of orders, on the disk that holds the build, never in memory only.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use tempfile::TempDir;

use crate::Outcome;

/// Every file has exactly this size.
const FILE_BYTES: usize = 2048;

/// The default `quiet_for` of JSON is 1 s by the change time; after this pause every file of a
/// round is ready, so that what is measured is draining, not waiting.
const QUIET_FOR: Duration = Duration::from_millis(1500);

/// A fresh root with one full route, removed when dropped.
pub(crate) struct DropFolder {
    folder: TempDir,
    files: usize,
}

impl DropFolder {
    /// Makes `root/orders/` with `files` files in it and an empty `sent/`, and waits until all of
    /// it is on disk and quiet. An empty one is for measuring the start of a process.
    pub(crate) fn prepare(files: usize) -> Outcome<Self> {
        let parent = Path::new(env!("CARGO_TARGET_TMPDIR"));
        fs::create_dir_all(parent)?;
        let drop_folder = Self { folder: TempDir::with_prefix_in("drain-", parent)?, files };
        fs::create_dir_all(drop_folder.sent())?;
        for number in 0..files {
            fs::write(drop_folder.inbox().join(format!("order-{number:06}.json")), order(number))?;
        }
        if files > 0 {
            // What is still in the page cache of the preparation must not be written at the
            // expense of the side that happens to be measured.
            #[cfg(unix)]
            rustix::fs::sync();
            thread::sleep(QUIET_FOR);
        }
        Ok(drop_folder)
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.path().join("root")
    }

    pub(crate) fn inbox(&self) -> PathBuf {
        self.root().join("orders")
    }

    pub(crate) fn sent(&self) -> PathBuf {
        self.inbox().join("sent")
    }

    /// Whether the inbox is empty and `sent/` full.
    pub(crate) fn check_drained(&self) -> Outcome<()> {
        let (left, sent) = (files_in(&self.inbox())?, files_in(&self.sent())?);
        if (left, sent) == (0, self.files) {
            return Ok(());
        }
        Err(format!("{left} files left in the inbox, {sent} of {} in sent/", self.files).into())
    }
}

fn files_in(folder: &Path) -> Outcome<usize> {
    let mut files = 0;
    for entry in fs::read_dir(folder)? {
        files += usize::from(entry?.file_type()?.is_file());
    }
    Ok(files)
}

pub(crate) fn bytes_of(files: usize) -> u64 {
    (files * FILE_BYTES) as u64
}

/// An order as an ERP exports it: a head, some lines, and a note that fills it up to its size.
fn order(number: usize) -> String {
    let mut text = String::with_capacity(FILE_BYTES);
    write!(
        text,
        "{{\n  \"order_id\": \"SO-{number:08}\",\n  \"currency\": \"EUR\",\n  \
         \"ordered_at\": \"2026-11-21T08:{:02}:{:02}Z\",\n  \"customer\": {{\"id\": {}, \
         \"name\": \"Müller & Søn\", \"email\": \"orders{}@example.com\"}},\n  \"lines\": [",
        number / 60 % 60,
        number % 60,
        1000 + number % 977,
        number % 977
    )
    .expect("writing to a string does not fail");
    for line in 1..=12 {
        let comma = if line == 1 { "" } else { "," };
        write!(
            text,
            "{comma}\n    {{\"line\": {line}, \"sku\": \"AB-{:05}\", \"quantity\": {}, \
             \"unit_price\": {}.{:02}, \"tax\": 0.19, \"is_gift\": {}}}",
            (number * 31 + line * 7) % 100_000,
            1 + (number + line) % 9,
            3 + (number + line * 13) % 400,
            (number * line) % 100,
            (number + line).is_multiple_of(11)
        )
        .expect("writing to a string does not fail");
    }
    text.push_str("\n  ],\n  \"note\": \"");
    let end = "\"\n}\n";
    let room = FILE_BYTES - end.len() - text.len();
    text.extend("leave with the neighbour; ".chars().cycle().take(room));
    text.push_str(end);
    text
}
