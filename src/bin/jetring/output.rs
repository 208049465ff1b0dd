//! Talk on standard error: the log and progress bars.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

/// Logs to standard error: warnings of ours, more by `--verbose`, or what `RUST_LOG` says.
pub(crate) fn start_log(verbose: u8) {
    let default = match verbose {
        0 => "jetring=warn,async_nats=off",
        1 => "jetring=info,async_nats=off",
        _ => "debug",
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(default));
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(color).init();
}

/// A bar of `total` steps, or a spinner when the total is not known. Drawn on a terminal only.
pub(crate) fn progress(total: Option<u64>, what: &str) -> ProgressBar {
    let (bar, template) = match total {
        Some(total) => (ProgressBar::new(total), "{msg} {wide_bar} {human_pos}/{human_len} {per_sec}"),
        None => (ProgressBar::new_spinner(), "{spinner} {msg} {human_pos} {per_sec}"),
    };
    let hidden = !std::io::stderr().is_terminal();
    bar.set_draw_target(if hidden {
        ProgressDrawTarget::hidden()
    } else {
        ProgressDrawTarget::stderr_with_hz(10)
    });
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style);
    }
    bar.with_message(what.to_owned())
}
