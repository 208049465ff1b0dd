//! The picture: a pure function of the history, for a terminal of 80 × 24 and anything larger.

use super::history::{Curve, History};
use super::reading::Reading;
use crate::scrape::Target;
use jetring::Engine;
use ratatui::Frame;
use ratatui::layout::{Alignment, Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Block, LineGauge, Paragraph, Sparkline, Wrap};

/// The colours of good, of what deserves a look, and of what is lost; none where `NO_COLOR` is set.
#[derive(Clone, Copy)]
struct Palette {
    good: Style,
    wary: Style,
    bad: Style,
}

impl Palette {
    fn new() -> Self {
        if std::env::var_os("NO_COLOR").is_some() {
            return Self { good: Style::new(), wary: Style::new().bold(), bad: Style::new().bold() };
        }
        Self {
            good: Style::new().fg(Color::Green),
            wary: Style::new().fg(Color::Yellow),
            bad: Style::new().fg(Color::Red).bold(),
        }
    }
}

pub(super) fn draw(frame: &mut Frame<'_>, target: &Target, history: &History) {
    let palette = Palette::new();
    let rows = [
        Constraint::Length(1),
        Constraint::Length(9),
        Constraint::Min(4),
        Constraint::Min(4),
        Constraint::Length(4),
        Constraint::Length(1),
    ];
    let [title, numbers, acked, latency, dropped, foot] = Layout::vertical(rows).areas(frame.area());
    draw_title(frame, title, target, history, palette);
    if let Some(reading) = history.reading() {
        let [events, waiting] = Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(numbers);
        draw_events(frame, events, reading, history, palette);
        draw_waiting(frame, waiting, reading, palette);
        draw_acked(frame, acked, &history.acked, palette);
        draw_latency(frame, latency, history, palette);
        draw_dropped(frame, dropped, reading, palette);
    }
    draw_foot(frame, foot, history, palette);
}

fn draw_title(frame: &mut Frame<'_>, area: Rect, target: &Target, history: &History, palette: Palette) {
    let state = match (history.reading(), &history.problem) {
        (_, Some(_)) => Span::styled("no answer", palette.bad),
        (None, None) => Span::raw("waiting for the first answer"),
        (Some(reading), None) if !reading.balance.connected => Span::styled("not connected", palette.bad),
        (Some(reading), None) => {
            let engine = reading.balance.engine.map_or("none yet", Engine::as_str);
            Span::styled(format!("connected, engine {engine}"), palette.good)
        }
    };
    frame.render_widget(Line::from(vec![" jetring top ".bold(), Span::raw(target.to_string())]), area);
    frame.render_widget(Line::from(vec![state, Span::raw(" ")]).alignment(Alignment::Right), area);
}

fn draw_events(frame: &mut Frame<'_>, area: Rect, reading: &Reading, history: &History, palette: Palette) {
    let (ledger, rates) = (&reading.balance.ledger, &history.rates);
    let row = |name: &str, rate: String, total: String, style: Style| {
        Line::styled(format!(" {name:<14}{rate:>10} {total:>11} "), style)
    };
    let events = |name: &str, rate: f64, total: u64, is_bad: bool| {
        let style = if is_bad && total > 0 { palette.bad } else { Style::new() };
        row(name, number(rate), count(total), style)
    };
    let times = |name: &str, rate: f64, total: f64| {
        let style = if rate > 0.0 { palette.wary } else { Style::new() };
        row(name, number(rate), count(total as u64), style)
    };
    let lines = vec![
        events("offered", rates.offered, ledger.offered, false),
        events("acked", rates.acked, ledger.acked, false),
        events("dropped", rates.dropped, ledger.dropped.total(), true),
        events("indeterminate", rates.indeterminate, ledger.indeterminate, true),
        times("retries", rates.retries, reading.retries),
        times("reconnects", rates.reconnects, reading.reconnects),
        row("sent", bytes(rates.sent_bytes), bytes(reading.sent_bytes), Style::new()),
    ];
    let block = Block::bordered()
        .title(" events ")
        .title_bottom(Line::from(" a second, and in all ").right_aligned());
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_waiting(frame: &mut Frame<'_>, area: Rect, reading: &Reading, palette: Palette) {
    let block = Block::bordered().title(" waiting ");
    let inner = block.inner(area);
    frame.render_widget(block, area);
    let [gauge, rest] = Layout::vertical([Constraint::Length(1), Constraint::Min(0)]).areas(inner);
    let part = |bytes: f64| (bytes / reading.queue_capacity_bytes.max(1.0)).clamp(0.0, 1.0);
    let style_of = |part: f64| match part {
        part if part >= 0.9 => palette.bad,
        part if part >= 0.5 => palette.wary,
        _ => palette.good,
    };
    let (used, peak) = (part(reading.queue_bytes), part(reading.queue_peak_bytes));
    let used_gauge = LineGauge::default().label(" queue").ratio(used).filled_style(style_of(used));
    frame.render_widget(used_gauge, gauge);
    let ledger = &reading.balance.ledger;
    let row =
        |name: &str, value: String, style: Style| Line::styled(format!(" {name:<14}{value:>22} "), style);
    let oldest = reading.oldest_event_seconds;
    let oldest_style = if oldest >= 1.0 { palette.wary } else { Style::new() };
    let of_capacity = |held: f64| format!("{} of {}", bytes(held), bytes(reading.queue_capacity_bytes));
    let spooled = format!("{} ({})", count(ledger.spooled), bytes(reading.spool_bytes));
    let spooled_style = if ledger.spooled > 0 { palette.wary } else { Style::new() };
    let lines = vec![
        row("queued", count(ledger.queued), Style::new()),
        row("", of_capacity(reading.queue_bytes), Style::new()),
        row("peak", of_capacity(reading.queue_peak_bytes), style_of(peak)),
        row("in flight", count(ledger.in_flight), Style::new()),
        row("spooled", spooled, spooled_style),
        row("oldest event", duration(oldest), oldest_style),
    ];
    frame.render_widget(Paragraph::new(lines), rest);
}

fn draw_acked(frame: &mut Frame<'_>, area: Rect, curve: &Curve, palette: Palette) {
    let points = curve.tail(usize::from(area.width.saturating_sub(2)));
    let most = points.iter().copied().max().unwrap_or(0);
    let title = format!(" acknowledged a second, up to {} ", number(most as f64));
    let sparkline =
        Sparkline::default().block(Block::bordered().title(title)).data(&points).style(palette.good);
    frame.render_widget(sparkline, area);
}

fn draw_latency(frame: &mut Frame<'_>, area: Rect, history: &History, palette: Palette) {
    let points = history.ack_latency.tail(usize::from(area.width.saturating_sub(2)));
    let now = history.rates.ack_latency.map_or_else(
        || "nothing was acknowledged".to_owned(),
        |(p50, p99)| format!("p50 {}, p99 {}", duration(p50), duration(p99)),
    );
    let most = points.iter().copied().max().unwrap_or(0) as f64 / 1e6;
    let title = format!(" time to the acknowledgement: {now}; p99 up to {} ", duration(most));
    let sparkline =
        Sparkline::default().block(Block::bordered().title(title)).data(&points).style(palette.wary);
    frame.render_widget(sparkline, area);
}

fn draw_dropped(frame: &mut Frame<'_>, area: Rect, reading: &Reading, palette: Palette) {
    let reasons = reading.balance.ledger.dropped.iter().filter(|&(_, events)| events > 0);
    let reasons: Vec<String> =
        reasons.map(|(reason, events)| format!("{reason} {}", count(events))).collect();
    let (text, style) = match reasons.is_empty() {
        true => (" nothing".to_owned(), palette.good),
        false => (format!(" {}", reasons.join("   ")), palette.bad),
    };
    let budgets = [
        ("of these over budget", reading.balance.over_budget),
        ("sampled out, and not offered", reading.balance.ledger.sampled_out),
    ];
    let budgets = budgets.iter().filter(|(_, events)| *events > 0);
    let budgets: String = budgets.map(|(what, events)| format!(" {what} {} ", count(*events))).collect();
    let block = Block::bordered().title(" dropped, by reason ").title_bottom(budgets);
    let text = Paragraph::new(Line::styled(text, style)).wrap(Wrap { trim: false });
    frame.render_widget(text.block(block), area);
}

fn draw_foot(frame: &mut Frame<'_>, area: Rect, history: &History, palette: Palette) {
    let verdict = match (&history.problem, history.reading()) {
        (Some(problem), _) => Line::styled(format!(" {problem}"), palette.bad),
        (None, Some(reading)) => match reading.balance.ledger.check() {
            Ok(()) => Line::styled(" the ledger balances", palette.good),
            Err(error) => Line::styled(format!(" {error}"), palette.bad),
        },
        (None, None) => Line::default(),
    };
    let keys = match history.restarts {
        0 => "q: quit ".to_owned(),
        times => format!("started anew: {times}   q: quit "),
    };
    frame.render_widget(verdict, area);
    frame.render_widget(Line::from(keys).dim().alignment(Alignment::Right), area);
}

// ---- figures -----------------------------------------------------------------------------------------------------------------

/// With a comma between thousands; from a billion on in millions.
fn count(events: u64) -> String {
    if events >= 1_000_000_000 {
        return format!("{} M", count(events / 1_000_000));
    }
    let digits = events.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}

/// A rate.
fn number(rate: f64) -> String {
    if rate > 0.0 && rate < 10.0 { format!("{rate:.1}") } else { count(rate.round() as u64) }
}

fn bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let exponent = (bytes.max(1.0).log2() / 10.0).floor().min(4.0);
    let value = bytes / 1024f64.powf(exponent);
    let unit = units[exponent as usize];
    if exponent == 0.0 || value >= 100.0 {
        format!("{value:.0} {unit}")
    } else {
        format!("{value:.1} {unit}")
    }
}

fn duration(seconds: f64) -> String {
    match seconds {
        s if s < 0.001 => format!("{:.0} µs", s * 1e6),
        s if s < 1.0 => format!("{:.1} ms", s * 1e3),
        s if s < 100.0 => format!("{s:.1} s"),
        s if s < 7200.0 => format!("{:.0} min", s / 60.0),
        s => format!("{:.1} h", s / 3600.0),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;
    use crate::scrape::Scrape;
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;
    use std::time::{Duration, Instant};

    /// A scrape of a bus that has acknowledged so many events of `offered`, and dropped so many.
    fn reading(offered: u64, acked: u64, dropped: u64, connected: u8) -> Reading {
        let held = offered - acked - dropped;
        let text = format!(
            "event_bus_offered_events_total {offered}\nevent_bus_acked_events_total {acked}\n\
             event_bus_dropped_events_total{{reason=\"queue_full\"}} {dropped}\n\
             event_bus_indeterminate_events_total 0\nevent_bus_queued_events {held}\n\
             event_bus_in_flight_events 0\nevent_bus_spooled_events 0\nevent_bus_connected {connected}\n\
             event_bus_engine{{engine=\"fast\"}} 1\nevent_bus_queue_bytes 12582912\n\
             event_bus_queue_capacity_bytes 16777216\nevent_bus_queue_high_watermark_bytes 16777216\n\
             event_bus_oldest_event_age_seconds 2.5\nevent_bus_sent_bytes_total {}\n\
             event_bus_ack_latency_seconds_bucket{{le=\"0.0016\"}} {acked}\n\
             event_bus_ack_latency_seconds_bucket{{le=\"+Inf\"}} {acked}\n",
            acked * 414
        );
        Reading::of(&Scrape::parse(&text).unwrap()).unwrap()
    }

    fn history(readings: impl IntoIterator<Item = Result<Reading, String>>) -> History {
        let (mut history, mut at) = (History::default(), Instant::now());
        for reading in readings {
            history.add(at, reading);
            at += Duration::from_secs(1);
        }
        history
    }

    fn drawn(width: u16, height: u16, history: &History) -> Vec<String> {
        let target = "9464".parse().unwrap();
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| draw(frame, &target, history)).unwrap();
        let buffer = terminal.backend().buffer();
        let row = |y| (0..width).map(|x| buffer[(x, y)].symbol()).collect();
        (0..height).map(row).collect()
    }

    #[track_caller]
    fn assert_shows(screen: &[String], texts: &[&str]) {
        for text in texts {
            assert!(
                screen.iter().any(|line| line.contains(text)),
                "{text:?} is not in\n{}",
                screen.join("\n")
            );
        }
    }

    #[test]
    fn a_bus_in_trouble_fits_in_the_smallest_terminal() {
        let history =
            history([Ok(reading(1_000_000, 1_000_000, 0, 1)), Ok(reading(1_300_000, 1_200_000, 50_000, 1))]);
        let screen = drawn(80, 24, &history);
        assert_shows(
            &screen,
            &[
                "http://127.0.0.1:9464/metrics",
                "connected, engine fast",
                "offered          300,000   1,300,000",
                "acked            200,000   1,200,000",
                "dropped           50,000      50,000",
                "sent            79.0 MiB     474 MiB",
                "12.0 MiB of 16.0 MiB",
                "oldest event                   2.5 s",
                "acknowledged a second, up to 200,000",
                "p50 800 µs, p99 1.6 ms",
                "queue_full 50,000",
                "the ledger balances",
                "q: quit",
            ],
        );
    }

    #[test]
    fn a_process_that_does_not_answer_or_has_started_anew_is_said_to() {
        let gone =
            history([Ok(reading(10, 10, 0, 1)), Err("http://127.0.0.1:9464/metrics: refused".to_owned())]);
        assert_shows(
            &drawn(80, 24, &gone),
            &["no answer", "metrics: refused", "acked                  0          10"],
        );
        let anew = history([Ok(reading(10, 10, 0, 1)), Ok(reading(5, 5, 0, 1))]);
        assert_shows(&drawn(80, 24, &anew), &["started anew: 1", "acked                  0           5"]);
        assert_shows(&drawn(80, 24, &history([])), &["waiting for the first answer"]);
        assert_shows(&drawn(80, 24, &history([Ok(reading(1, 1, 0, 0))])), &["not connected"]);
    }

    #[test]
    fn any_size_of_terminal_is_drawn_to() {
        let history = history((1..700).map(|n| Ok(reading(n * 1_000_000_007, n * 1_000_000_000, n, 1))));
        for (width, height) in [(1, 1), (20, 5), (79, 23), (80, 24), (300, 100)] {
            assert_eq!(drawn(width, height, &history).len(), usize::from(height));
        }
    }

    #[test]
    fn figures_are_short_and_have_their_units() {
        assert_eq!([0, 999, 1000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(count(12_345_678_901), "12,345 M");
        assert_eq!([0.0, 0.25, 9.94, 1234.5].map(number), ["0", "0.2", "9.9", "1,235"]);
        assert_eq!([0.0, 1023.0, 1536.0, 5e8].map(bytes), ["0 B", "1023 B", "1.5 KiB", "477 MiB"]);
        assert_eq!(
            [0.0, 0.00025, 0.0125, 2.5, 600.0, 9000.0].map(duration),
            ["0 µs", "250 µs", "12.5 ms", "2.5 s", "10 min", "2.5 h"]
        );
    }
}
