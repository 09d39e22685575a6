//! How far the demo has come: a line that is drawn over and over on a terminal, plain lines elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget};

use super::plan::Kill;
use crate::output::count;
use crate::progress::style;

/// Cells of the bar.
const WIDTH: usize = 40;

pub struct Track {
    bar: ProgressBar,
    total: usize,
    kills: Vec<usize>,
    done: usize,
}

impl Track {
    pub fn new(total: usize, kills: &[Kill]) -> Self {
        let bar = ProgressBar::with_draw_target(Some(total as u64), ProgressDrawTarget::stderr());
        bar.set_style(style("{spinner} {msg}"));
        bar.enable_steady_tick(std::time::Duration::from_millis(120));
        Self { bar, total, kills: kills.iter().map(|kill| kill.at).collect(), done: 0 }
    }

    pub fn at(&self, fed: usize, rows: usize) {
        let cells = cells(fed, self.total, &self.kills, self.done);
        let (kills, done) = (self.kills.len(), self.done);
        self.bar.set_message(format!(
            "{cells} {} events  {} rows  kill {done}/{kills}",
            count(fed as u64),
            count(rows as u64)
        ));
    }

    /// Something worth a line of its own.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    pub fn killed(&mut self) {
        self.done += 1;
    }

    pub fn close(&self) {
        self.bar.finish_and_clear();
    }
}

/// A bar with a mark for each kill: `✗` done, `·` to come.
fn cells(fed: usize, total: usize, kills: &[usize], done: usize) -> String {
    let cell = |events: usize| (events * WIDTH / total.max(1)).min(WIDTH - 1);
    let mut cells: Vec<char> = (0..WIDTH).map(|at| if at < fed * WIDTH / total.max(1) { '━' } else { '─' }).collect();
    for (number, at) in kills.iter().enumerate() {
        cells[cell(*at)] = if number < done { '✗' } else { '·' };
    }
    cells.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kills_are_marked_on_the_bar() {
        assert_eq!(cells(50, 100, &[10, 90], 1), "━━━━✗━━━━━━━━━━━━━━━────────────────·───");
        assert_eq!(cells(100, 100, &[100], 1), "━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━━✗");
    }
}
