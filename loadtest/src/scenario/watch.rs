//! The relay's process seen from outside, once a second: CPU time, memory, open files, sockets.
//!
//! In: a process number. Out: samples. What is not there for the asking (no process number, or no
//! /proc) is left out, never guessed. Source: proc(5).

use std::collections::HashMap;
use std::fs;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use super::books::Books;
use super::progress::Bar;
use crate::measure::MeasureError;

/// Who is watched.
pub(super) struct Watch {
    pid: u32,
    /// Nanoseconds of each thread, those that have ended included.
    threads_ns: HashMap<String, u64>,
}

/// What was seen at one moment.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    pub(super) cpu_us: u64,
    pub(super) memory_kib: u64,
    pub(super) memory_peak_kib: u64,
    pub(super) files: u64,
    /// Those of the files that are sockets: callers, push services, doors.
    pub(super) sockets: u64,
}

const BAR_EVERY: Duration = Duration::from_millis(250);
const BARS_PER_SAMPLE: u32 = 4;
const SETTLE_POLL: Duration = Duration::from_millis(500);
const SETTLE_POLLS_MAX: usize = 20;
/// What counts as no change, in KiB.
const SETTLED_KIB: u64 = 64;

// === impl Watch ===

impl Watch {
    pub(super) fn of(pid: u32) -> Watch {
        Watch { pid, threads_ns: HashMap::new() }
    }

    /// Looks once.
    /// Errors: the process is gone, or not this user's.
    pub(super) fn look(&mut self) -> Result<Sample, MeasureError> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid))?;
        let kib = |field: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(field));
            let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
            kib.ok_or(MeasureError::Missing("its memory"))
        };
        let (mut files, mut sockets) = (0, 0);
        for file in fs::read_dir(format!("/proc/{}/fd", self.pid))? {
            files += 1;
            // A file may be closed between the two looks.
            let target = fs::read_link(file?.path());
            let is_socket = |path: &str| path.starts_with("socket:");
            sockets += u64::from(target.is_ok_and(|to| to.to_str().is_some_and(is_socket)));
        }
        Ok(Sample {
            cpu_us: self.cpu_us()?,
            memory_kib: kib("VmRSS:")?,
            memory_peak_kib: kib("VmHWM:")?,
            files,
            sockets,
        })
    }

    /// The first field of each thread's schedstat; of a thread that has ended, what was last seen.
    fn cpu_us(&mut self) -> Result<u64, MeasureError> {
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            let task = task?;
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let time_ns = text.split_ascii_whitespace().next().and_then(|text| text.parse().ok());
            let time_ns = time_ns.ok_or(MeasureError::Missing("its CPU time"))?;
            self.threads_ns.insert(task.file_name().to_string_lossy().into_owned(), time_ns);
        }
        Ok(self.threads_ns.values().sum::<u64>() / 1_000)
    }

    /// Waits until its memory no longer changes, and gives it in KiB.
    pub(super) async fn settled_kib(&mut self) -> Result<u64, MeasureError> {
        let mut memory_kib = self.look()?.memory_kib;
        for _ in 0..SETTLE_POLLS_MAX {
            sleep(SETTLE_POLL).await;
            let now_kib = self.look()?.memory_kib;
            if now_kib.abs_diff(memory_kib) <= SETTLED_KIB {
                return Ok(now_kib);
            }
            memory_kib = now_kib;
        }
        Ok(memory_kib)
    }
}

/// Looks at the beginning of each second from `begin` on, and moves the bar; ends only by a fault.
pub(super) async fn keep_watch(
    watch: &mut Option<Watch>,
    books: &Books,
    bar: &Bar,
    begin: Instant,
    samples: &mut Vec<Sample>,
) -> MeasureError {
    let mut tick: u32 = 0;
    loop {
        sleep_until(begin + BAR_EVERY * tick).await;
        if tick.is_multiple_of(BARS_PER_SAMPLE)
            && let Some(watch) = watch
        {
            match watch.look() {
                Ok(sample) => samples.push(sample),
                Err(error) => return error,
            }
        }
        bar.tell(begin.elapsed(), BAR_EVERY, &books.glance());
        tick += 1;
    }
}
