//! A program on a core of its own: started, measured from outside, ended.
//!
//! In: a program and its arguments. Out: what the kernel says it has used. The core is taken over
//! from the thread that starts it, so that the program counts one core from its beginning.
//! Source: proc(5); sched(7).

use std::collections::HashMap;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{CpuSet, sched_setaffinity};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::super::MeasureError;
use super::super::child::with_log;

/// Who runs where.
#[derive(Clone, Copy, Debug, clap::Args)]
pub(crate) struct Cores {
    /// The core of what is measured.
    #[arg(long, default_value_t = 0)]
    pub(crate) relay_core: usize,
    /// The core of the senders and the push services.
    #[arg(long, default_value_t = 1)]
    pub(crate) own_core: usize,
    /// Worker threads of what is measured, which then may use both cores.
    #[arg(skip)]
    pub(crate) workers: Option<u32>,
}

/// A program that runs; it is killed when this is dropped.
pub(crate) struct Process {
    child: Child,
    log_file: PathBuf,
}

/// The CPU time of each thread of a program so far, in nanoseconds.
pub(crate) struct CpuTimes(HashMap<String, u64>);

/// How tokio is told the number of its worker threads where a program does not say it.
const WORKERS: &str = "TOKIO_WORKER_THREADS";
const STOP_LIMIT: Duration = Duration::from_secs(40);

/// Gives the CPU time of everything on this machine, in microseconds.
/// Source: proc(5), /proc/stat, `cpu`: user, nice, system, irq and softirq; in steps of one tick.
pub(crate) fn machine_cpu_us() -> Result<f64, MeasureError> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().and_then(|line| line.strip_prefix("cpu "));
    let fields = line.ok_or(MeasureError::Missing("the machine's CPU time"))?;
    let fields = fields.split_ascii_whitespace().enumerate();
    let busy = fields.filter(|(place, _)| matches!(place, 0..=2 | 5..=6));
    let ticks: f64 = busy.filter_map(|(_, field)| field.parse::<f64>().ok()).sum();
    #[expect(clippy::cast_precision_loss, reason = "a hundred or a thousand")]
    let ticks_per_s = rustix::param::clock_ticks_per_second() as f64;
    Ok(ticks * 1_000_000.0 / ticks_per_s)
}

// === impl Cores ===

impl Cores {
    /// Keeps this thread, and all that it starts, to the senders' core.
    /// Errors: there is no such core.
    fn stay(self) -> io::Result<()> {
        keep_to(&[self.own_core])
    }

    /// Does the work on this thread, which it keeps to the senders' core from then on: senders and
    /// push services share a core and hand over without a wake-up.
    /// Errors: the work's, or the system's.
    pub(crate) fn work<T>(
        self,
        work: impl Future<Output = Result<T, MeasureError>>,
    ) -> Result<T, MeasureError> {
        self.stay()?;
        tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work)
    }

    /// Starts a program on the core of what is measured.
    fn spawn(self, command: &mut Command) -> io::Result<Child> {
        match self.workers {
            None => keep_to(&[self.relay_core])?,
            Some(workers) => {
                command.env(WORKERS, workers.to_string());
                keep_to(&[self.relay_core, self.own_core])?;
            }
        }
        let spawned = command.spawn();
        self.stay()?;
        spawned
    }
}

fn keep_to(cores: &[usize]) -> io::Result<()> {
    if cores.iter().any(|core| *core >= CpuSet::MAX_CPU) {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    let mut set = CpuSet::new();
    for core in cores {
        set.set(*core);
    }
    Ok(sched_setaffinity(None, &set)?)
}

// === impl Process ===

impl Process {
    /// Starts a program with its log in a file.
    /// Errors: `NoRelay`, or the system's.
    pub(crate) fn start(
        program: &Path,
        args: &[&str],
        log_file: PathBuf,
        cores: Cores,
    ) -> Result<Process, MeasureError> {
        if !program.is_file() {
            return Err(MeasureError::NoRelay(program.to_owned()));
        }
        let mut command = Command::new(program);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log_file)?)
            .kill_on_drop(true);
        Ok(Process { child: cores.spawn(&mut command)?, log_file })
    }

    /// Fails once it has ended.
    /// Errors: `Relay` with the end of its log.
    pub(crate) fn check(&mut self) -> Result<(), MeasureError> {
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => Err(self.fault(format!("the program ended with {status}"))),
        }
    }

    /// Waits until it has done its work.
    /// Errors: it failed, with the end of its log.
    pub(crate) async fn ended(&mut self) -> Result<(), MeasureError> {
        match self.child.wait().await? {
            status if status.success() => Ok(()),
            status => Err(self.fault(format!("the program ended with {status}"))),
        }
    }

    /// Gives the CPU time of its threads so far.
    /// Source: /proc/pid/task/tid/schedstat, the first field, in nanoseconds.
    pub(crate) fn cpu(&self) -> Result<CpuTimes, MeasureError> {
        let mut times = HashMap::new();
        for task in fs::read_dir(self.proc_path("task")?)? {
            let task = task?;
            // A thread may end between the two looks.
            let Ok(text) = fs::read_to_string(task.path().join("schedstat")) else { continue };
            let time_ns = text.split_ascii_whitespace().next().and_then(|text| text.parse().ok());
            let time_ns = time_ns.ok_or(MeasureError::Missing("its CPU time"))?;
            times.insert(task.file_name().to_string_lossy().into_owned(), time_ns);
        }
        Ok(CpuTimes(times))
    }

    /// Gives how many threads it has.
    /// Source: /proc/pid/task.
    pub(crate) fn threads(&self) -> Result<u64, MeasureError> {
        Ok(fs::read_dir(self.proc_path("task")?)?.count() as u64)
    }

    /// Gives the memory that it has resident now, in KiB.
    /// Source: /proc/pid/status, `VmRSS`.
    pub(crate) fn memory_kib(&self) -> Result<u64, MeasureError> {
        let status = fs::read_to_string(self.proc_path("status")?)?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse().ok());
        kib.ok_or(MeasureError::Missing("its memory"))
    }

    /// Gives how many files it has open, connections among them.
    /// Source: /proc/pid/fd.
    pub(crate) fn open_files(&self) -> Result<u64, MeasureError> {
        Ok(fs::read_dir(self.proc_path("fd")?)?.count() as u64)
    }

    /// Asks it to stop, and waits until it has.
    /// Errors: it does not, in time.
    pub(crate) async fn stop(mut self) -> Result<(), MeasureError> {
        if let Some(pid) = self.child.id().and_then(|id| Pid::from_raw(id.cast_signed())) {
            kill_process(pid, Signal::TERM).map_err(io::Error::from)?;
        }
        match timeout(STOP_LIMIT, self.child.wait()).await {
            Ok(ended) => ended.map(|_| ()).map_err(MeasureError::Io),
            Err(_) => Err(self.fault("the program does not stop on SIGTERM".to_owned())),
        }
    }

    /// Tells what it did not do, with the end of its log.
    pub(crate) fn fault(&self, what: String) -> MeasureError {
        with_log(what, &self.log_file)
    }

    /// Gives its number.
    /// Errors: it has ended.
    pub(crate) fn id(&self) -> Result<u32, MeasureError> {
        self.child.id().ok_or_else(|| self.fault("the program has ended".to_owned()))
    }

    fn proc_path(&self, file: &str) -> Result<String, MeasureError> {
        Ok(format!("/proc/{}/{file}", self.id()?))
    }
}

// === impl CpuTimes ===

impl CpuTimes {
    /// Gives the microseconds of all threads that are there.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub(crate) fn total_us(&self) -> f64 {
        self.0.values().sum::<u64>() as f64 / 1_000.0
    }

    /// Gives the microseconds since an earlier look; what a thread that has ended since used after
    /// it is not in them.
    #[expect(clippy::cast_precision_loss, reason = "figures far below 2^52")]
    pub(crate) fn since_us(&self, before: &CpuTimes) -> f64 {
        let of_thread = |(thread, now): (&String, &u64)| {
            now.saturating_sub(before.0.get(thread).copied().unwrap_or(0))
        };
        self.0.iter().map(of_thread).sum::<u64>() as f64 / 1_000.0
    }
}
