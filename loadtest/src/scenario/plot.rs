//! Plots as SVG, with nothing from elsewhere: lines over time, and bars of a distribution.
//!
//! In: points with their units. Out: a `<figure>` whose colours are the page's own variables, so
//! that it is light or dark as the page is. A point that is missing leaves a gap, never a zero.

use std::fmt::Write as _;

/// Lines over time.
pub(super) struct Plot {
    pub(super) title: &'static str,
    /// With its unit.
    pub(super) y_label: &'static str,
    pub(super) scale: Scale,
    pub(super) lines: Vec<Line>,
}

/// One of them; the x values are seconds.
pub(super) struct Line {
    pub(super) name: &'static str,
    pub(super) points: Vec<(f64, Option<f64>)>,
}

/// How heights are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scale {
    /// From 0 on.
    Linear,
    /// Each step is ten times the one before: for times, where the greatest would hide the others.
    Logarithmic,
}

/// Where values are on the paper.
struct Axis {
    scale: Scale,
    low: f64,
    high: f64,
    ticks: Vec<f64>,
}

const WIDTH: f64 = 440.0;
const HEIGHT: f64 = 250.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 14.0;
const TOP: f64 = 28.0;
const BOTTOM: f64 = 42.0;
const STEPS_MAX: f64 = 5.0;

// === impl Plot ===

impl Plot {
    /// Draws it; nothing where no line has a point.
    pub(super) fn figure(&self) -> String {
        let points = || self.lines.iter().flat_map(|line| &line.points);
        let values: Vec<f64> = points().filter_map(|(_, value)| *value).collect();
        if values.is_empty() {
            return String::new();
        }
        let end_s = points().map(|(second, _)| *second).fold(1.0, f64::max);
        let across = Axis::of(Scale::Linear, &[0.0, end_s], false);
        let up = Axis::of(self.scale, &values, true);
        let mut drawing = frame(&across, &up, "seconds since the beginning", self.y_label);
        for (number, line) in self.lines.iter().enumerate() {
            draw_line(&mut drawing, number, &line.points, &across, &up);
        }
        let names: Vec<&str> = self.lines.iter().map(|line| line.name).collect();
        figure(self.title, &names, &drawing)
    }
}

/// Draws bars, each from the end of the one before to its own, on a logarithmic width.
/// Shape: `(up_to, count)`, in order, all above 0; `ratio` is how many times wider each end is.
pub(super) fn bars(
    title: &'static str,
    x_label: &'static str,
    y_label: &'static str,
    bars: &[(f64, f64)],
    ratio: f64,
) -> String {
    let (Some((first, _)), Some((last, _))) = (bars.first(), bars.last()) else {
        return String::new();
    };
    let across = Axis::of(Scale::Logarithmic, &[first / ratio, *last], false);
    let counts: Vec<f64> = bars.iter().map(|(_, count)| *count).collect();
    let up = Axis::of(Scale::Linear, &counts, true);
    let mut drawing = frame(&across, &up, x_label, y_label);
    for (end, count) in bars {
        let (from, to) = (across.x(end / ratio), across.x(*end));
        let (top, base) = (up.y(*count), up.y(up.low));
        // Writing to a String cannot fail, here and below.
        let _ = write!(
            drawing,
            r#"<rect class="b0" x="{:.1}" y="{top:.1}" width="{:.1}" height="{:.1}"/>"#,
            from + 0.5,
            (to - from - 1.0).max(0.5),
            base - top
        );
    }
    figure(title, &[], &drawing)
}

fn figure(title: &str, names: &[&str], drawing: &str) -> String {
    let mut legend = String::new();
    if names.len() > 1 {
        for (number, name) in names.iter().enumerate() {
            let _ = write!(legend, r#"<span class="k{number}">{name}</span>"#);
        }
    }
    format!(
        "<figure><figcaption><h2>{title}</h2><p class=\"legend\">{legend}</p></figcaption>\
         <svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">{drawing}</svg>\
         </figure>\n"
    )
}

/// Draws grid, ticks and the axes' names.
fn frame(across: &Axis, up: &Axis, x_label: &str, y_label: &str) -> String {
    let mut drawing = String::new();
    let (right, base) = (WIDTH - RIGHT, HEIGHT - BOTTOM);
    for tick in &up.ticks {
        let y = up.y(*tick);
        let _ = write!(drawing, r#"<path class="g" d="M{LEFT} {y:.1}H{right}"/>"#);
        text(&mut drawing, "end", (LEFT - 6.0, y + 4.0), &number(*tick));
    }
    for tick in &across.ticks {
        let x = across.x(*tick);
        let _ = write!(drawing, r#"<path class="g" d="M{x:.1} {base}v5"/>"#);
        text(&mut drawing, "middle", (x, base + 18.0), &number(*tick));
    }
    let _ = write!(drawing, r#"<path class="a" d="M{LEFT} {TOP}V{base}H{right}"/>"#);
    text(&mut drawing, "start", (4.0, 14.0), y_label);
    text(&mut drawing, "middle", (f64::midpoint(LEFT, right), HEIGHT - 6.0), x_label);
    drawing
}

fn text(drawing: &mut String, anchor: &str, (x, y): (f64, f64), text: &str) {
    let place = format!(r#"x="{x:.1}" y="{y:.1}""#);
    let _ = write!(drawing, r#"<text class="t" text-anchor="{anchor}" {place}>{text}</text>"#);
}

/// Draws one line; a point between two gaps is a dot.
fn draw_line(
    drawing: &mut String,
    number: usize,
    points: &[(f64, Option<f64>)],
    across: &Axis,
    up: &Axis,
) {
    let mut path = String::new();
    for stretch in points.split(|(_, value)| value.is_none()) {
        for (place, (second, value)) in stretch.iter().enumerate() {
            let (x, y) = (across.x(*second), up.y(value.unwrap_or(up.low)));
            let pen = if place == 0 { 'M' } else { 'L' };
            let _ = write!(path, "{pen}{x:.1} {y:.1}");
            if stretch.len() == 1 {
                let _ =
                    write!(drawing, r#"<circle class="d{number}" cx="{x:.1}" cy="{y:.1}" r="2"/>"#);
            }
        }
    }
    let _ = write!(drawing, r#"<path class="l l{number}" d="{path}"/>"#);
}

/// Writes a figure as short as it can be read: 1.5k, 20M, 0.02.
fn number(value: f64) -> String {
    let (value, unit) = match value.abs() {
        big if big >= 1e6 => (value / 1e6, "M"),
        big if big >= 1e4 => (value / 1e3, "k"),
        _ => (value, ""),
    };
    let text = format!("{value:.3}");
    format!("{}{unit}", text.trim_end_matches('0').trim_end_matches('.'))
}

// === impl Axis ===

impl Axis {
    /// Makes one that holds all values; a rounded one ends at ticks.
    fn of(scale: Scale, values: &[f64], is_rounded: bool) -> Axis {
        let high = values.iter().copied().fold(f64::MIN, f64::max);
        match scale {
            Scale::Linear => {
                let step = step_for(high);
                let steps = (high / step).ceil().max(1.0);
                let end = if is_rounded { step * steps } else { high };
                let ticks = (0_u32..=u32::from(u8::MAX)).map(|tick| f64::from(tick) * step);
                let ticks = ticks.take_while(|tick| *tick <= end * 1.000_001).collect();
                Axis { scale, low: 0.0, high: end, ticks }
            }
            Scale::Logarithmic => {
                let positive = values.iter().copied().filter(|value| *value > 0.0);
                let low = positive.fold(f64::MAX, f64::min).min(high.max(f64::MIN_POSITIVE));
                let (first, last) = (low.log10().floor(), high.max(low).log10().ceil());
                let last = if last > first { last } else { first + 1.0 };
                let mut ticks = Vec::new();
                let mut decade = first;
                while decade <= last {
                    let ten = 10_f64.powf(decade);
                    // Few tenfolds leave room for what is in between.
                    let within: &[f64] = if last - first > 2.0 { &[1.0] } else { &[1.0, 2.0, 5.0] };
                    ticks.extend(within.iter().map(|part| part * ten));
                    decade += 1.0;
                }
                let (low, high) = match is_rounded {
                    true => (10_f64.powf(first), 10_f64.powf(last)),
                    false => (low, high),
                };
                ticks.retain(|tick| (low * 0.999..=high * 1.001).contains(tick));
                Axis { scale, low, high, ticks }
            }
        }
    }

    fn x(&self, value: f64) -> f64 {
        LEFT + self.share(value) * (WIDTH - LEFT - RIGHT)
    }

    fn y(&self, value: f64) -> f64 {
        HEIGHT - BOTTOM - self.share(value) * (HEIGHT - BOTTOM - TOP)
    }

    /// Gives where a value is between the ends, from 0 to 1.
    fn share(&self, value: f64) -> f64 {
        let share = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        if share.is_nan() { 0.0 } else { share.clamp(0.0, 1.0) }
    }
}

/// Gives a step of 1, 2 or 5 times a power of ten, at most five of which reach a value.
fn step_for(high: f64) -> f64 {
    let rough = high.max(f64::MIN_POSITIVE) / STEPS_MAX;
    if rough < 1e-6 {
        return 1.0;
    }
    let ten = 10_f64.powf(rough.log10().floor());
    let part = [1.0, 2.0, 5.0, 10.0].into_iter().find(|part| part * ten >= rough * 0.999_999);
    part.unwrap_or(10.0) * ten
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_hold_every_value() {
        let rows: [(&[f64], &[f64]); 4] = [
            (&[7.0], &[0.0, 2.0, 4.0, 6.0, 8.0]),
            (&[0.0], &[0.0, 1.0]),
            (&[500.0, 3.0], &[0.0, 100.0, 200.0, 300.0, 400.0, 500.0]),
            (&[0.31], &[0.0, 0.1, 0.2, 0.3, 0.4]),
        ];
        for (values, ticks) in rows {
            let axis = Axis::of(Scale::Linear, values, true);
            let is_same = axis.ticks.iter().zip(ticks).all(|(own, tick)| (own - tick).abs() < 1e-9);
            assert!(is_same && axis.ticks.len() == ticks.len(), "{values:?}: {:?}", axis.ticks);
        }
        let axis = Axis::of(Scale::Logarithmic, &[0.5, 3_000.0], true);
        assert_eq!(axis.ticks.len(), 6, "{:?}", axis.ticks);
    }

    #[test]
    fn figures_are_short() {
        let rows =
            [(0.0, "0"), (0.02, "0.02"), (1_500.0, "1500"), (15_000.0, "15k"), (2.5e6, "2.5M")];
        for (value, text) in rows {
            assert_eq!(number(value), text);
        }
    }

    /// The second point is missing: two stretches, of which the first is a dot.
    #[test]
    fn a_missing_point_leaves_a_gap() {
        let points = vec![(0.0, Some(1.0)), (1.0, None), (2.0, Some(1.0)), (3.0, Some(2.0))];
        let line = Line { name: "p50", points };
        let plot = Plot { title: "T", y_label: "ms", scale: Scale::Linear, lines: vec![line] };
        let figure = plot.figure();
        assert_eq!(figure.matches("<circle").count(), 1);
        let path = figure.split(r#"class="l l0" d=""#).nth(1).unwrap();
        let path = path.split('"').next().unwrap();
        assert_eq!((path.matches('M').count(), path.matches('L').count()), (2, 1), "{path}");
    }

    #[test]
    fn no_points_are_no_figure() {
        let line = Line { name: "p50", points: vec![(0.0, None)] };
        let plot = Plot { title: "T", y_label: "ms", scale: Scale::Linear, lines: vec![line] };
        assert_eq!(plot.figure(), "");
        assert_eq!(bars("T", "ms", "messages", &[], 2.0), "");
    }
}
