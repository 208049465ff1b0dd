//! A line chart as SVG: a value on a logarithmic scale over anything that has ticks, each line named at its end.
//!
//! The background is transparent and all colours lie between light and dark, so a chart reads on both.

use std::fmt::Write as _;

const WIDTH: f64 = 840.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 150.0;
const TOP: f64 = 62.0;
const BOTTOM: f64 = 48.0;

/// Names at the ends of lines stand at least so far apart.
const NAME_HEIGHT: f64 = 14.0;

const TEXT: &str = "#7d8590";
const GRID: &str = "#8b949e";

/// A chart.
#[derive(Debug)]
pub(crate) struct Chart {
    pub(crate) title: String,
    pub(crate) subtitle: String,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) lines: Vec<Line>,
}

/// The ends of an axis are its first and last tick.
#[derive(Debug)]
pub(crate) struct Axis {
    pub(crate) name: String,
    pub(crate) ticks: Vec<(f64, String)>,
}

/// A line of points whose y is a value above zero.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) name: String,
    pub(crate) colour: &'static str,
    pub(crate) stroke: Stroke,
    /// Drawn stronger.
    pub(crate) is_ours: bool,
    pub(crate) points: Vec<(f64, f64)>,
}

#[derive(Clone, Copy, Debug)]
pub(crate) enum Stroke {
    Solid,
    Dashed,
    Dotted,
    DashDotted,
}

impl Axis {
    /// A logarithmic axis around all values of the lines, with a tick at each power of ten.
    pub(crate) fn decades(name: &str, lines: &[Line], text: impl Fn(f64) -> String) -> Self {
        let values = || lines.iter().flat_map(|line| &line.points).map(|&(_, value)| value.log10());
        let first = values().fold(f64::INFINITY, f64::min).floor() as i32;
        let last = (values().fold(f64::NEG_INFINITY, f64::max).ceil() as i32).max(first + 1);
        let tick = |decade: i32| (f64::from(decade), text(10f64.powi(decade)));
        Self { name: name.to_owned(), ticks: (first..=last).map(tick).collect() }
    }

    /// Where a coordinate lies between the ends, from 0 to 1.
    fn place(&self, coordinate: f64) -> f64 {
        let (first, last) = match (self.ticks.first(), self.ticks.last()) {
            (Some(&(first, _)), Some(&(last, _))) if last > first => (first, last),
            _ => return 0.0,
        };
        (coordinate - first) / (last - first)
    }
}

impl Chart {
    pub(crate) fn to_svg(&self) -> String {
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" \
             font-family=\"-apple-system, 'Segoe UI', 'DejaVu Sans', Arial, sans-serif\" font-size=\"12\" fill=\"{TEXT}\">\n"
        );
        self.write_texts(&mut svg);
        self.write_grid(&mut svg);
        for line in &self.lines {
            self.write_line(&mut svg, line);
        }
        self.write_names(&mut svg);
        svg += "</svg>\n";
        svg
    }

    fn write_texts(&self, svg: &mut String) {
        let mut put = |x: f64, y: f64, attributes: &str, text: &str| {
            let _ = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\"{attributes}>{}</text>", escaped(text));
        };
        put(12.0, 22.0, " font-size=\"15\" font-weight=\"600\"", &self.title);
        put(12.0, 41.0, " font-size=\"11\"", &self.subtitle);
        put((LEFT + WIDTH - RIGHT) / 2.0, HEIGHT - 10.0, " text-anchor=\"middle\"", &self.x.name);
        for (at, name) in &self.x.ticks {
            put(self.x_of(*at), HEIGHT - BOTTOM + 18.0, " text-anchor=\"middle\"", name);
        }
        for (at, name) in &self.y.ticks {
            put(LEFT - 8.0, self.y_of(*at) + 4.0, " text-anchor=\"end\"", name);
        }
    }

    fn write_grid(&self, svg: &mut String) {
        let mut path = |points: String, opacity: f64| {
            let _ = writeln!(
                svg,
                "<path d=\"{points}\" stroke=\"{GRID}\" stroke-opacity=\"{opacity}\" fill=\"none\"/>"
            );
        };
        let (left, right) = (LEFT, WIDTH - RIGHT);
        for (at, _) in &self.y.ticks {
            path(format!("M{left:.1} {y:.1}H{right:.1}", y = self.y_of(*at)), 0.35);
        }
        for pair in self.y.ticks.windows(2) {
            for part in [2f64, 5.0] {
                path(format!("M{left:.1} {y:.1}H{right:.1}", y = self.y_of(pair[0].0 + part.log10())), 0.12);
            }
        }
        for (at, _) in &self.x.ticks {
            path(format!("M{x:.1} {TOP:.1}V{:.1}", HEIGHT - BOTTOM, x = self.x_of(*at)), 0.2);
        }
    }

    fn write_line(&self, svg: &mut String, line: &Line) {
        let points: Vec<String> = line
            .points
            .iter()
            .map(|&(x, value)| format!("{:.1},{:.1}", self.x_of(x), self.y_of(value.log10())))
            .collect();
        let dashes = match line.stroke {
            Stroke::Solid => "",
            Stroke::Dashed => " stroke-dasharray=\"7 4\"",
            Stroke::Dotted => " stroke-dasharray=\"2 3\"",
            Stroke::DashDotted => " stroke-dasharray=\"8 3 2 3\"",
        };
        let width = if line.is_ours { 2.6 } else { 1.6 };
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{}\" stroke-width=\"{width}\"{dashes} stroke-linejoin=\"round\"/>",
            points.join(" "),
            line.colour
        );
    }

    /// The lines' names, at their ends, moved apart where they would cover each other; a thin leader shows which is whose.
    fn write_names(&self, svg: &mut String) {
        let mut ends: Vec<(f64, &Line)> = self
            .lines
            .iter()
            .filter_map(|line| Some((self.y_of(line.points.last()?.1.log10()), line)))
            .collect();
        ends.sort_by(|one, other| one.0.total_cmp(&other.0));
        let wanted: Vec<f64> = ends.iter().map(|&(y, _)| y).collect();
        let end = WIDTH - RIGHT;
        for (y, (end_y, line)) in apart(&wanted, NAME_HEIGHT, TOP, HEIGHT - BOTTOM).into_iter().zip(ends) {
            let weight = if line.is_ours { " font-weight=\"600\"" } else { "" };
            let _ = writeln!(
                svg,
                "<path d=\"M{end:.1} {end_y:.1}L{:.1} {y:.1}\" stroke=\"{colour}\" stroke-width=\"0.8\" fill=\"none\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" fill=\"{colour}\"{weight}>{}</text>",
                end + 14.0,
                end + 17.0,
                y + 4.0,
                escaped(&line.name),
                colour = line.colour,
            );
        }
    }

    fn x_of(&self, at: f64) -> f64 {
        LEFT + self.x.place(at) * (WIDTH - RIGHT - LEFT)
    }

    fn y_of(&self, log: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(log) * (HEIGHT - BOTTOM - TOP)
    }
}

/// Moves sorted places apart by at least `distance`, as little as this takes, within the limits where they have room.
fn apart(wanted: &[f64], distance: f64, low: f64, high: f64) -> Vec<f64> {
    /// Neighbours that touch move as one, around the middle of what they want.
    struct Cluster {
        wanted: Vec<f64>,
    }
    let span = |cluster: &Cluster| distance * (cluster.wanted.len() - 1) as f64;
    let start = |cluster: &Cluster| {
        let offsets = cluster.wanted.iter().enumerate().map(|(index, place)| place - distance * index as f64);
        let start = offsets.sum::<f64>() / cluster.wanted.len() as f64;
        start.min(high - span(cluster)).max(low)
    };
    let mut clusters: Vec<Cluster> = Vec::new();
    for &place in wanted {
        clusters.push(Cluster { wanted: vec![place] });
        while let [.., before, last] = clusters.as_slice() {
            if start(before) + span(before) + distance <= start(last) {
                break;
            }
            let last = clusters.pop().map(|cluster| cluster.wanted).unwrap_or_default();
            if let Some(before) = clusters.last_mut() {
                before.wanted.extend(last);
            }
        }
    }
    clusters
        .iter()
        .flat_map(|cluster| {
            let start = start(cluster);
            (0..cluster.wanted.len()).map(move |index| start + distance * index as f64)
        })
        .collect()
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_moved_apart_and_stay_in_order_within_the_limits() {
        assert_eq!(apart(&[10.0, 50.0], 14.0, 0.0, 100.0), [10.0, 50.0]);
        assert_eq!(apart(&[50.0, 50.0], 14.0, 0.0, 100.0), [43.0, 57.0]);
        let crowded = apart(&[95.0, 96.0, 97.0, 99.0], 14.0, 0.0, 100.0);
        assert!(crowded.windows(2).all(|pair| pair[1] - pair[0] >= 14.0 - 1e-9), "{crowded:?}");
        assert!(crowded[3] <= 100.0 && crowded[0] >= 0.0, "{crowded:?}");
    }

    #[test]
    fn a_percentile_lies_on_the_axis_where_its_nines_say() {
        let ticks = (0..=4).map(|nine| (f64::from(nine), String::new())).collect();
        let axis = Axis { name: String::new(), ticks };
        let places: Vec<f64> = [0.0, 1.0, 2.0, 4.0].map(|nines| axis.place(nines)).into();
        assert_eq!(places, [0.0, 0.25, 0.5, 1.0]);
    }

    #[test]
    fn the_axis_of_values_holds_them_all_between_powers_of_ten() {
        let points = vec![(0.0, 21.0), (1.0, 90_000.0)];
        let line = Line { name: "a<b".into(), colour: "#000", stroke: Stroke::Dotted, is_ours: true, points };
        let y = Axis::decades("", &[line], |value| format!("{value}"));
        let ticks: Vec<&str> = y.ticks.iter().map(|(_, text)| text.as_str()).collect();
        assert_eq!(ticks, ["10", "100", "1000", "10000", "100000"]);
    }
}
