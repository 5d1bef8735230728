//! The report beside a finished file.
//!
//! It is written as soon as the file is complete, and once more when the producer has told its part.
//! A report that cannot be written is a warning: the file is complete without.

use super::disk;
use crate::error::SinkError;
use ptystream_common::error::chain;
use ptystream_common::message::{Announce, SinkReport};
use ptystream_common::ptyd::master;
use ptystream_common::report::{ScanReport, report_name};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Returns the name of a file's report.
pub(super) fn path_of(dfile: &Path) -> PathBuf {
    disk::beside(dfile, &report_name(&disk::name_of(dfile)))
}

/// Writes what the sink knows of a file that is complete and still locked.
pub(super) fn write(announce: &Announce, report: &SinkReport) {
    put(&ScanReport::new(announce, report, None, SystemTime::now()));
}

/// Writes the whole report, if the file is still the one that it is about.
pub(crate) fn complete(report: &ScanReport) {
    let Some(file) = &report.file else { return };
    let stands = master::read_record(file)
        .is_some_and(|record| format!("{:016x}", record.identity.run_id) == report.run_id);
    match stands {
        true => put(report),
        false => tracing::warn!("{}: replaced before its report was written", file.display()),
    }
}

fn put(report: &ScanReport) {
    let Some(file) = &report.file else { return };
    let text = report.json().map_err(|e| SinkError::file("write", path_of(file))(e.into()));
    let written = text.and_then(|text| disk::write_whole(file, &path_of(file), &text));
    if let Err(error) = written {
        tracing::warn!("the report is not written: {}", chain(&error));
    }
}
