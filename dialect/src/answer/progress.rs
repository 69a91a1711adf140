//! Where the units of a step stand.

use super::Case;
use super::bounds::{MAX_NAME, cut};
use crate::kryo::message;
use crate::kryo::table::{self, UnitProgressData, UnitStatus};
use crate::request::Request;
use flate2::Compression;
use flate2::write::ZlibEncoder;
use proto::result::{self, UnitProgress};
use std::io::Write;

/// The body of a progress update: units in their order, compressed by zlib. **Source**: protocol facts §5.
pub fn progress(request: &Request, units: &[UnitProgress]) -> Vec<u8> {
    let data =
        UnitProgressData { unit_progresses: units.iter().map(|unit| one(request, unit, None)).collect() };
    let mut encoder = ZlibEncoder::new(Vec::new(), Compression::default());
    // Writing into a Vec cannot fail.
    let _infallible = encoder.write_all(&message(&data));
    encoder.finish().unwrap_or_default()
}

/// The content type of [`progress_call`].
pub const PROGRESS_CONTENT_TYPE: &str = "application/x-protobuf";

/// The body of the call that tells progress: `SendTaskProgressRequest` with account, task, callback token and
/// [`progress`]. **Source**: protocol facts §5; the numbers of its four fields are the order in which that names them, which
/// nothing here could be held against.
pub fn progress_call(account: &str, request: &Request, token: &str, units: &[UnitProgress]) -> Vec<u8> {
    let mut body = Vec::new();
    let data = progress(request, units);
    let parts = [account.as_bytes(), request.task_id.as_bytes(), token.as_bytes(), &data];
    for (part, number) in parts.into_iter().zip(1..) {
        let mut inner = Vec::new();
        field(&mut inner, 1, part);
        field(&mut body, number, &inner);
    }
    body
}

/// A field of bytes in Protocol Buffers: number and kind, length, content.
fn field(into: &mut Vec<u8>, number: u8, content: &[u8]) {
    into.push(number << 3 | 2);
    let mut length = content.len();
    while length >= 0x80 {
        into.push((length & 0x7f) as u8 | 0x80);
        length >>= 7;
    }
    into.push(length as u8);
    into.extend_from_slice(content);
}

/// `closed`: the step has ended, so a unit that still runs has failed at this time.
fn one(request: &Request, unit: &UnitProgress, closed: Option<u64>) -> table::UnitProgress {
    let (status, end) = match (unit.status, closed) {
        (result::UnitStatus::Running, Some(time)) => (UnitStatus::Failure, Some(time)),
        (result::UnitStatus::Running, None) => (UnitStatus::Running, None),
        (result::UnitStatus::Queued, _) => (UnitStatus::Queued, None),
        (result::UnitStatus::Success, _) => (UnitStatus::Success, unit.ended_at),
        (result::UnitStatus::Failure, _) => (UnitStatus::Failure, unit.ended_at),
        (result::UnitStatus::Skipped, _) => (UnitStatus::Skipped, unit.ended_at),
    };
    table::UnitProgress {
        unit_name: cut(request.unit_name(&unit.unit), MAX_NAME).into_owned(),
        status,
        start_time: unit.started_at.unwrap_or_default(),
        end_time: end.unwrap_or_default(),
    }
}

/// The units of a step that has ended. One that failed before any unit began shows its first unit as failed, so that the
/// manager does not wait for it.
pub(super) fn units(case: &Case<'_>) -> UnitProgressData {
    let all = &case.result.units;
    let last = all.iter().flat_map(|unit| [unit.started_at, unit.ended_at]).flatten().max();
    let closed = (!case.succeeded()).then(|| last.unwrap_or_default());
    let mut units: Vec<table::UnitProgress> =
        all.iter().map(|unit| one(case.request, unit, closed)).collect();
    if units.is_empty() {
        let status = if case.succeeded() { UnitStatus::Success } else { UnitStatus::Failure };
        let count = if case.succeeded() { usize::MAX } else { 1 };
        let names = case.request.units.iter().take(count);
        units.extend(names.map(|name| table::UnitProgress {
            unit_name: cut(name, MAX_NAME).into_owned(),
            status,
            start_time: 0,
            end_time: 0,
        }));
    }
    UnitProgressData { unit_progresses: units }
}
