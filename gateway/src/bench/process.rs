//! What this process costs, as Linux tells it under `/proc`.

use std::fs;
use std::time::Duration;

use anyhow::Context;

/// CPU time of the thread of this name.
///
/// # Errors
/// There is no such thread, or no `/proc` with scheduler statistics.
pub(super) fn thread_cpu(name: &str) -> anyhow::Result<Duration> {
    for task in fs::read_dir("/proc/self/task").context("CPU times are read from /proc, which only Linux has")? {
        let task = task?.path();
        if fs::read_to_string(task.join("comm"))?.trim_end() != name {
            continue;
        }
        let schedstat = fs::read_to_string(task.join("schedstat")).context("this kernel keeps no schedstat")?;
        let nanoseconds = schedstat.split(' ').next().and_then(|first| first.parse().ok());
        return Ok(Duration::from_nanos(nanoseconds.context("schedstat: no number")?));
    }
    anyhow::bail!("no thread is called {name:?}")
}

/// Resident memory of this process, bytes.
///
/// # Errors
/// No `/proc`.
pub(super) fn resident() -> anyhow::Result<u64> {
    let status = fs::read_to_string("/proc/self/status").context("memory is read from /proc, which only Linux has")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.parse::<u64>().ok());
    Ok(kilobytes.context("/proc/self/status: no VmRSS")? * 1024)
}
