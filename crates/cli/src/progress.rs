//! Progress of long work, on standard error and only where that is a terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a spinner turns.
const TICK: Duration = Duration::from_millis(120);

/// A bar that draws itself on a terminal, and nothing elsewhere.
pub fn bar(total: u64, what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr());
    bar.set_style(style("{msg} {wide_bar} {human_pos}/{human_len} {eta}"));
    bar.with_message(what)
}

/// A spinner with a count, for work whose end is not known.
pub fn spinner(what: &'static str) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    bar.set_style(style("{spinner} {human_pos} {msg} ({elapsed})"));
    bar.enable_steady_tick(TICK);
    bar.with_message(what)
}

pub fn style(template: &'static str) -> ProgressStyle {
    ProgressStyle::with_template(template).expect("the templates here are well-formed")
}
